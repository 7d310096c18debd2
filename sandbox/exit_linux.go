package sandbox

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// awaitExit blocks until the child has ended and leaves it to be reaped.
func awaitExit(pid int) error {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if err == nil {
			return nil
		}
		if err != unix.EINTR {
			return fmt.Errorf("wait for builder %d: %w", pid, err)
		}
	}
}
