package build

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/pathinfo"
)

func exists(path string) bool {
	var st unix.Stat_t
	return unix.Lstat(path, &st) == nil
}

// compare tells whether an output came out as the one that is valid.
func (a *attempt) compare(m *made, keys []pathinfo.SecretKey) error {
	valid, err := a.store.IsValid(a.ctx, m.info.Path)
	if err != nil || !valid {
		return err
	}
	old, err := a.store.PathInfo(a.ctx, m.info.Path)
	if err != nil {
		return err
	}
	if old.NarHash != m.info.NarHash {
		return a.differs(m)
	}
	if old.Ultimate {
		return nil
	}
	// Now it has been built here, too.
	better := *old
	better.Ultimate = true
	if err := signInfo(a.dir, &better, keys); err != nil {
		return err
	}
	return a.store.Register(a.ctx, []*pathinfo.Info{&better})
}

// differs keeps the other result if anybody wants to see it.
func (a *attempt) differs(m *made) error {
	dest := a.store.RealPath(m.info.Path)
	hook := ""
	if a.set.RunDiffHook {
		hook = a.set.DiffHook
	}
	if hook == "" && !a.set.KeepFailed {
		return nonDeterministic("derivation '%s' may not be deterministic: output %s differs", a.dir.Print(a.j.drvPath), quotedPath(dest))
	}
	kept := dest + ".check"
	if err := a.removeTree(kept); err != nil {
		return err
	}
	if err := a.store.Move(m.path, kept); err != nil {
		return err
	}
	if hook != "" {
		a.runDiffHook(hook, a.dir.Print(m.info.Path), kept)
	}
	return nonDeterministic("derivation '%s' may not be deterministic: output %s differs from %s",
		a.dir.Print(a.j.drvPath), quotedPath(dest), quotedPath(kept))
}

func nonDeterministic(format string, args ...any) *Failure {
	f := failuref(derivation.StatusNotDeterministic, format, args...)
	f.NonDeterministic = true
	return f
}

// runDiffHook shows the difference to the client. The hook runs as the builder did, since it reads what that wrote.
func (a *attempt) runDiffHook(hook, before, after string) {
	ctx, cancel := context.WithCancel(a.ctx)
	defer cancel()
	cmd := exec.CommandContext(ctx, hook, before, after, a.dir.Print(a.j.drvPath), a.tmp.path)
	cmd.Dir = "/"
	cmd.Env = os.Environ()
	if a.user != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: a.user.UID, Gid: a.user.GID}}
	}
	var out cappedText
	cmd.Stdout = &out
	cmd.WaitDelay = hookGrace
	err := cmd.Run()
	if err != nil && err != exec.ErrWaitDelay {
		status := "failed with exit code 1" // as if the program had said why it cannot be executed
		if _, ran := errors.AsType[*exec.ExitError](err); ran {
			status = hookStatus(err)
		} else {
			a.complain("run diff hook", err)
		}
		text := textf("diff-hook program %s %s", quotedPath(hook), status)
		a.j.feed.Message(activity.Error, errorLog(textf("diff hook execution failed: %s", text.String()).Coloured()))
		return
	}
	if text := strings.TrimRight(out.String(), "\n\r\t "); text != "" {
		a.j.feed.Message(activity.Error, text)
	}
}

func hookStatus(err error) string {
	exit, ok := err.(*exec.ExitError)
	if !ok {
		return err.Error()
	}
	if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return "failed due to signal " + itoa(int(status.Signal())) + " (" + signalText(status.Signal()) + ")"
	}
	return "failed with exit code " + itoa(exit.ExitCode())
}

// cappedText keeps the beginning of what a program prints.
type cappedText struct{ strings.Builder }

// Write keeps what fits and takes the rest.
func (c *cappedText) Write(p []byte) (int, error) {
	const most = 1 << 20
	c.Builder.Write(p[:min(len(p), max(0, most-c.Len()))])
	return len(p), nil
}
