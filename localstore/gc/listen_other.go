//go:build !linux

package gc

import (
	"errors"
	"net"
	"os"
)

// listenBeneath has no way to name an open directory; changing into it would change it for the whole process.
func listenBeneath(dir *os.File, base string) (*net.UnixListener, error) {
	return nil, &os.PathError{Op: "bind", Path: dir.Name() + "/" + base, Err: errors.ErrUnsupported}
}
