package sandbox

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"nixdaemon/sandbox/internal/child"
	"nixdaemon/sandbox/internal/plan"
)

// Mount makes source, a path of the host, appear read-only at target in the root of an isolated builder that runs
// already, for as long as it runs. Above target all directories exist. It fails with [ErrEnded] when the builder has
// ended, and for one that is not isolated: that sees source where it is.
func (p *Process) Mount(source, target string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.reaped {
		return fmt.Errorf("mount '%s' in sandbox: %w", target, ErrEnded)
	}
	if p.attach == nil {
		return fmt.Errorf("mount '%s' in sandbox: builder is not isolated", target)
	}
	return p.attach(p.pid, source, target)
}

// attacher mounts into the builder of a process id.
type attacher func(pid int, source, target string) error

func (i *isolator) attacher(f *forker, in *plan.Input) attacher {
	return func(pid int, source, target string) error {
		entries, err := resolveEntries([]Entry{{Kind: EntryBind, Source: source, Target: target, ReadOnly: true}})
		if err != nil {
			return err
		}
		mounts, err := unix.Open(fmt.Sprintf("/proc/%d/ns/mnt", pid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			// A zombie has no namespaces any more.
			return fmt.Errorf("mount '%s' in sandbox: %w", target, errors.Join(ErrEnded, err))
		}
		defer unix.Close(mounts)
		t, err := f.thread(plainThread)
		if err != nil {
			return err
		}
		helper, err := t.run(plan.Attach(plan.Attachment{Entry: entries[0], Mounts: mounts, UserNamespace: in.UserNamespace, Privileged: in.Privileged}), false)
		if err != nil {
			return fmt.Errorf("mount in sandbox: %w", err)
		}
		child.Reap(helper)
		return nil
	}
}
