package ssh

import (
	"os"

	"golang.org/x/sys/unix"
)

// pipeSize is what a pipe shall hold: archives go through, and each wake-up
// of the other process costs more than the memory.
const pipeSize = 1 << 20

// widen makes a pipe larger if that is allowed.
func widen(f *os.File) {
	conn, err := f.SyscallConn()
	if err != nil {
		return
	}
	conn.Control(func(fd uintptr) { unix.FcntlInt(fd, unix.F_SETPIPE_SZ, pipeSize) })
}
