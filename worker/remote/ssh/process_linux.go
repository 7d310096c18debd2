package ssh

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// attributes has the kernel end the process with us.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}

// AwaitEnd waits for the end of a child and leaves it to be reaped: until then its number is no other's. It tells whether
// it could (waitid(2) with WNOWAIT).
func AwaitEnd(pid int) bool {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if err != unix.EINTR {
			return err == nil
		}
	}
}
