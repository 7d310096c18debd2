package build

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/storepath"
)

// hookGrace is how long the output of a killed hook is waited for: what it has started may hold it open.
const hookGrace = 2 * time.Second

// runPostBuildHook runs the program that the administrator wants to run after each build. When it fails the client's
// build has failed, though the outputs stay (libstore/build/derivation-building-goal.cc, runPostBuildHook).
func (a *attempt) runPostBuildHook() error {
	hook := a.set.PostBuildHook
	if hook == "" {
		return nil
	}
	id := a.s.ids.Next()
	drv := a.dir.Print(a.j.drvPath)
	a.j.feed.Start(id, activity.Talkative, activity.PostBuildHook, "running post-build-hook '"+hook+"'",
		[]activity.Field{activity.Text(drv)}, 0)
	defer a.j.feed.Stop(id)
	lines := &hookLines{sink: &a.j.feed, id: id}
	cmd := exec.CommandContext(a.ctx, hook)
	cmd.Dir = "/"
	cmd.Env = a.hookEnvironment(drv)
	cmd.Stdout, cmd.Stderr = lines, lines
	// A group of its own, so that what it has started ends with it when nobody wants the build any more.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = hookGrace
	err := cmd.Run()
	lines.end()
	if a.ctx.Err() != nil {
		return context.Cause(a.ctx)
	}
	// A hook that succeeded may leave something running that has its output open, such as an upload.
	if err == nil || errors.Is(err, exec.ErrWaitDelay) {
		return nil
	}
	return hookError(hook, lines, err)
}

// hookError turns the error of running a program into upstream's text: there a program that cannot be executed says
// so itself and fails.
func hookError(hook string, lines *hookLines, err error) error {
	if _, ran := errors.AsType[*exec.ExitError](err); ran {
		return errorf("program %s %s", quotedPath(hook), hookStatus(err))
	}
	text := err.Error()
	if errors.Is(err, exec.ErrNotFound) {
		err = syscall.ENOENT
	}
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		text = errnoText(errno)
	}
	lines.Write([]byte(errorLog(textf("executing %s: %s", quotedPath(hook), text).Coloured()) + "\n"))
	return errorf("program %s %s", quotedPath(hook), "failed with exit code 1")
}

// hookEnvironment is the daemon's, with what the hook is to know. What the daemon was started with comes first.
func (a *attempt) hookEnvironment(drv string) []string {
	paths := make([]string, len(a.madePaths))
	for i, p := range a.madePaths {
		paths[i] = a.dir.Print(p)
	}
	env := os.Environ()
	for _, v := range [][2]string{{"DRV_PATH", drv}, {"OUT_PATHS", strings.Join(paths, " ")}, {"NIX_CONFIG", a.set.NixConfig()}} {
		if _, taken := os.LookupEnv(v[0]); !taken {
			env = append(env, v[0]+"="+v[1])
		}
	}
	return env
}

// noteMade remembers which paths the build has made: those that were missing, or all that it was to check.
func (a *attempt) noteMade(all map[string]*made) {
	if a.j.mode == derivation.BuildCheck {
		for _, o := range a.outputs {
			if o.present {
				a.madePaths = append(a.madePaths, o.known)
			}
		}
	} else {
		for _, m := range all {
			a.madePaths = append(a.madePaths, m.info.Path)
		}
	}
	a.madePaths = storepath.SortUnique(a.madePaths)
}

// hookLines passes a hook's output on by lines.
type hookLines struct {
	sink activity.Sink
	id   activity.ID
	line []byte
}

// Write never fails.
func (l *hookLines) Write(data []byte) (int, error) {
	for rest := data; len(rest) > 0; {
		text, after, complete := bytes.Cut(rest, []byte{'\n'})
		// A line without an end is cut, so that a hook cannot make us hold more.
		if room := maxLogLine - len(l.line); len(text) > room {
			text, after, complete = rest[:room], rest[room:], true
		}
		l.line = append(l.line, text...)
		if complete {
			l.flush()
		}
		rest = after
	}
	return len(data), nil
}

func (l *hookLines) flush() {
	l.sink.Result(l.id, activity.PostBuildLogLine, []activity.Field{activity.Text(string(l.line))})
	l.line = l.line[:0]
}

// end passes on the last line if it has no end; upstream then adds one.
func (l *hookLines) end() {
	if len(l.line) > 0 {
		l.line = append(l.line, '\n')
		l.flush()
	}
}
