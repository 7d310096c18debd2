package build

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path"
	"strings"
	"syscall"

	"nixdaemon/protocol/activity"
	"nixdaemon/sandbox"
)

// runPreBuildHook runs the administrator's program that names more paths to show to the builder
// (unix/build/derivation-builder.cc, getPathsInSandbox). It is given the derivation and the directory of the builder's
// root, if it has one of its own; what it complains of goes where the daemon's own errors go.
func (a *attempt) runPreBuildHook(paths sandboxPaths) error {
	hook := a.set.PreBuildHook
	if hook == "" {
		return nil
	}
	a.j.feed.Message(activity.Chatty, "executing pre-build hook '"+hook+"'")
	args := []string{a.dir.Print(a.j.drvPath)}
	if a.chroot != nil {
		args = append(args, a.chroot.root)
	}
	cmd := exec.CommandContext(a.ctx, hook, args...)
	// What it has started ends with it when nobody wants the build any more.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = hookGrace
	out := &limitedOutput{most: maxHookOutput}
	cmd.Stdout, cmd.Stderr = out, os.Stderr
	err := cmd.Run()
	switch {
	case a.ctx.Err() != nil:
		return context.Cause(a.ctx)
	case out.full:
		return errorf("pre-build hook '%s' says more than %s bytes", hook, maxHookOutput)
	case err == nil || errors.Is(err, exec.ErrWaitDelay):
		return parsePreBuildHook(out.String(), paths)
	}
	if _, ran := errors.AsType[*exec.ExitError](err); !ran {
		// As upstream, whose child says so and fails.
		a.complain("run pre-build hook", err)
		return errorf("program %s %s", quotedPath(hook), "failed with exit code 1")
	}
	return errorf("program %s %s", quotedPath(hook), hookStatus(err))
}

// maxHookOutput bounds what a hook may say.
const maxHookOutput = 1 << 20

// limitedOutput notes that it has got more than it holds.
type limitedOutput struct {
	bytes.Buffer
	most int
	full bool
}

// Write takes everything, so that the program is not stopped by it.
func (l *limitedOutput) Write(p []byte) (int, error) {
	if l.Len()+len(p) > l.most {
		l.full = true
		return len(p), nil
	}
	return l.Buffer.Write(p)
}

// parsePreBuildHook obeys the commands that a hook has printed: "extra-sandbox-paths" (formerly "extra-chroot-dirs")
// and then a line for each path up to an empty one. A last line without an end does not count.
func parsePreBuildHook(text string, paths sandboxPaths) error {
	within := false
	for {
		line, rest, complete := strings.Cut(text, "\n")
		if !complete {
			return nil
		}
		text = rest
		switch {
		case within && line == "":
			within = false
		case within:
			target, source, both := strings.Cut(line, "=")
			if !both {
				source = target
			}
			paths.set(target, source, false)
		case line == "extra-sandbox-paths" || line == "extra-chroot-dirs":
			within = true
		default:
			return errorf("unknown pre-build hook command '%s'", line)
		}
	}
}

// addMade shows what the hook has made in the directory that it was given as the builder's root, unless something else is
// shown there: in upstream's sandbox that directory is the root.
func (a *attempt) addMade(entries []sandbox.Entry) ([]sandbox.Entry, error) {
	if a.set.PreBuildHook == "" {
		return entries, nil
	}
	taken, above := make(map[string]sandbox.EntryKind, len(entries)), make(map[string]bool)
	for i := range entries {
		target := entries[i].Target
		taken[target] = entries[i].Kind
		for dir := path.Dir(target); !above[dir]; dir = path.Dir(dir) {
			above[dir] = true
		}
	}
	var made []sandbox.Entry
	dirs := []string{"/"}
	for len(dirs) > 0 {
		dir := dirs[len(dirs)-1]
		dirs = dirs[:len(dirs)-1]
		found, err := os.ReadDir(a.chroot.root + dir)
		if err != nil {
			return nil, err
		}
		for _, e := range found {
			target := path.Join(dir, e.Name())
			kind, there := taken[target]
			switch {
			case e.IsDir() && (there && kind == sandbox.EntryDir || !there && above[target]):
				dirs = append(dirs, target)
			case !there && !above[target]:
				made = append(made, sandbox.Entry{Kind: sandbox.EntryBind, Target: target, Source: a.chroot.root + target})
			}
		}
	}
	return append(entries, made...), nil
}
