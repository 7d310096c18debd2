package sandbox

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// From sys/wait.h.
const (
	idPid   = 1
	wExited = 0x4
	wNoWait = 0x20
)

// awaitExit blocks until the child has ended and leaves it to be reaped.
func awaitExit(pid int) error {
	// siginfo_t is 104 bytes; what it says is not needed.
	var info [16]uint64
	for {
		_, _, errno := unix.Syscall6(unix.SYS_WAITID, idPid, uintptr(pid), uintptr(unsafe.Pointer(&info[0])), wExited|wNoWait, 0, 0)
		if errno == 0 {
			return nil
		}
		if errno != unix.EINTR {
			return fmt.Errorf("wait for builder %d: %w", pid, errno)
		}
	}
}
