package sandbox

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// kill stops all members until no new one appears, and then kills them. Stopping comes first because it keeps
// parents alive, and with them the ancestry by which their children are found.
func (t *tree) kill() error {
	stopped := make(map[int]bool)
	for fresh := true; fresh; {
		members, err := t.members()
		if err != nil {
			return err
		}
		fresh = false
		for _, pid := range members {
			if !stopped[pid] {
				unix.Kill(pid, unix.SIGSTOP)
				stopped[pid], fresh = true, true
			}
		}
	}
	var errs []error
	for pid := range stopped {
		if err := unix.Kill(pid, unix.SIGKILL); err != nil && err != unix.ESRCH {
			errs = append(errs, fmt.Errorf("kill process %d of builder %d: %w", pid, t.root, err))
		}
	}
	return errors.Join(errs...)
}

// killAll kills the tree and returns when none of it lives.
func (t *tree) killAll() error {
	start := time.Now()
	for delay := killPause; ; delay = min(2*delay, 20*time.Millisecond) {
		members, err := t.members()
		if err != nil || len(members) == 0 {
			return err
		}
		if err := t.kill(); err != nil {
			return err
		}
		if time.Since(start) > killLimit {
			return fmt.Errorf("kill processes of builder %d: still alive: %v", t.root, members)
		}
		time.Sleep(delay)
	}
}
