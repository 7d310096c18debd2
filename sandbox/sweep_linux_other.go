//go:build linux && !(amd64 || arm64)

package sandbox

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// sweepUser kills what a walk of /proc finds, and never claims that nothing was there: the caller looks again.
func sweepUser(uid uint32) (alone bool, err error) {
	if uid == 0 {
		return false, ErrRootBuilder
	}
	pids, err := processesOf(uid)
	if err != nil {
		return false, fmt.Errorf("look for processes of uid %d: %w", uid, err)
	}
	for _, pid := range pids {
		if err := unix.Kill(pid, unix.SIGKILL); err != nil && err != unix.ESRCH {
			return false, fmt.Errorf("kill process %d of uid %d: %w", pid, uid, err)
		}
	}
	return false, nil
}
