package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// maxSocketPath is what fits sockaddr_un with its final zero (unix(7)).
const maxSocketPath = len(unix.RawSockaddrUnix{}.Path) - 1

// Unix dials a unix socket, at a path of any length as long as its last
// element fits an address.
func Unix(path string) func(context.Context) (io.ReadWriteCloser, error) {
	return func(ctx context.Context) (io.ReadWriteCloser, error) {
		if len(filepath.Base(path)) > maxSocketPath {
			return nil, fmt.Errorf("socket path '%s' is too long", path)
		}
		conn, err := dialUnix(ctx, path)
		if err != nil {
			return nil, &dialError{path, err}
		}
		return conn, nil
	}
}

func dialUnix(ctx context.Context, path string) (net.Conn, error) {
	var d net.Dialer
	if len(path) <= maxSocketPath {
		return d.DialContext(ctx, "unix", path)
	}
	return dialBeneath(ctx, &d, filepath.Dir(path), filepath.Base(path))
}

// dialError has upstream's text (libutil/unix-domain-socket.cc).
type dialError struct {
	path string
	err  error
}

// Error spells the cause as strerror(3) does.
func (e *dialError) Error() string {
	cause := e.err.Error()
	var errno unix.Errno
	if errors.As(e.err, &errno) {
		cause = errno.Error()
		cause = strings.ToUpper(cause[:1]) + cause[1:]
	}
	return fmt.Sprintf("cannot connect to socket at '%s': %s", e.path, cause)
}

// Unwrap gives the cause.
func (e *dialError) Unwrap() error { return e.err }
