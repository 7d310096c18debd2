//go:build !linux

package client

import (
	"context"
	"net"
	"path/filepath"
)

// dialBeneath has no way to name a socket by its directory's descriptor here,
// and leaves it to the system to refuse the path.
func dialBeneath(ctx context.Context, d *net.Dialer, dir, base string) (net.Conn, error) {
	return d.DialContext(ctx, "unix", filepath.Join(dir, base))
}
