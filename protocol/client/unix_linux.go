package client

import (
	"context"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// dialBeneath reaches the socket through /proc, whose links lead to open
// directories.
func dialBeneath(ctx context.Context, d *net.Dialer, dir, base string) (net.Conn, error) {
	f, err := os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return d.DialContext(ctx, "unix", fmt.Sprintf("/proc/self/fd/%d/%s", f.Fd(), base))
}
