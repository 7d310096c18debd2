package roots

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"

	"nixdaemon/protocol/storepath"
)

const (
	// maxHelperLine is longer than any full store path.
	maxHelperLine = 8 << 10

	// maxHelperRoots is more than any machine has running.
	maxHelperRoots = 1 << 22
)

// helper asks a program that may see more processes than we ("nix store roots-daemon"): it answers a connection with
// full store paths, each ended by a NUL byte, and hangs up. Without its answer nothing may be collected.
func (o *Options) helper(ctx context.Context) ([]candidate, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", o.HelperSocket)
	if err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		var errno syscall.Errno
		if errors.As(err, &errno) {
			err = errno
		}
		return nil, fmt.Errorf("cannot connect to socket at '%s': %w", o.HelperSocket, err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	found, err := o.readHelper(conn)
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return found, err
}

func (o *Options) readHelper(r io.Reader) ([]candidate, error) {
	seen := make(map[storepath.Path]struct{})
	in := bufio.NewReaderSize(r, maxHelperLine)
	for {
		line, err := in.ReadSlice(0)
		if errors.Is(err, io.EOF) && len(line) == 0 {
			break
		}
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF // it died: what else would it have said?
		}
		if err != nil {
			return nil, fmt.Errorf("read roots from \"%s\": %w", o.HelperSocket, err)
		}
		p, err := o.Dir.Parse(string(line[:len(line)-1]))
		if err != nil {
			return nil, fmt.Errorf("read roots from \"%s\": %w", o.HelperSocket, err)
		}
		if seen[p] = struct{}{}; len(seen) > maxHelperRoots {
			return nil, fmt.Errorf("read roots from \"%s\": more than %d", o.HelperSocket, maxHelperRoots)
		}
	}
	found := make([]candidate, 0, len(seen))
	for p := range seen {
		found = append(found, candidate{target: p, label: Censored})
	}
	return found, nil
}
