package gc

import (
	"fmt"
	"net"
	"os"
)

// listenBeneath binds through /proc, whose links lead to open directories.
func listenBeneath(dir *os.File, base string) (*net.UnixListener, error) {
	return net.ListenUnix("unix", &net.UnixAddr{Name: fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), base), Net: "unix"})
}
