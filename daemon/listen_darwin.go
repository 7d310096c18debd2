package daemon

import (
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// bindBeneath binds relative to the directory. macOS has no name for an open
// directory, so the process changes into it for the moment; this happens once,
// before anything else runs.
func bindBeneath(dir *os.File, base string) (net.Listener, error) {
	if err := unix.Fchdir(int(dir.Fd())); err != nil {
		return nil, os.NewSyscallError("fchdir", err)
	}
	defer os.Chdir("/")
	return listenKeeping(base)
}
