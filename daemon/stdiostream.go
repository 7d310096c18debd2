package daemon

import (
	"context"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// stdio is standard input and output as one stream, whatever these are: pipes, sockets, terminals, the ports of a virtual
// machine. They may be shared with others, who may have them not wait, from now on or not any more; the runtime's own
// files hold to what they found at the start, and a read of theirs that waits can not be ended.
type stdio struct {
	in, out int
	ctx     context.Context
	// The end of ctx closes enough, so that ended hangs up.
	ended, enough *os.File
	endedFD       int32
	stop          func() bool
}

// newStdio makes the stream of two descriptors, which stay open. Reads and waits of writes end with ctx. Close it.
func newStdio(ctx context.Context, in, out int) (*stdio, error) {
	ended, enough, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	return &stdio{in: in, out: out, ctx: ctx, ended: ended, enough: enough, endedFD: int32(ended.Fd()),
		stop: context.AfterFunc(ctx, func() { enough.Close() })}, nil
}

// close releases what the stream has, when nobody reads or writes any more.
func (s *stdio) close() {
	s.stop()
	s.enough.Close()
	s.ended.Close()
}

// Read reads what there is, once there is something.
func (s *stdio) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		if err := s.await(s.in, unix.POLLIN); err != nil {
			return 0, err
		}
		switch n, err := unix.Read(s.in, p); {
		case err == unix.EINTR, err == unix.EAGAIN: // somebody else has read it
		case err != nil:
			return 0, os.NewSyscallError("read", err)
		case n == 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

// Write writes all of p. Only what does not wait by itself, but says that it would have to, is waited for here.
func (s *stdio) Write(p []byte) (written int, err error) {
	for written < len(p) {
		n, err := unix.Write(s.out, p[written:])
		written += max(n, 0)
		switch err {
		case nil, unix.EINTR:
		case unix.EAGAIN:
			if err := s.await(s.out, unix.POLLOUT); err != nil {
				return written, err
			}
		default:
			return written, os.NewSyscallError("write", err)
		}
	}
	return written, nil
}

// await returns when something can be read or written, or why not. What cannot be polled never lets wait.
func (s *stdio) await(fd int, events int16) error {
	fds := []unix.PollFd{{Fd: int32(fd), Events: events}, {Fd: s.endedFD}}
	for {
		_, err := unix.Poll(fds, -1)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return os.NewSyscallError("poll", err)
		case fds[1].Revents != 0:
			return context.Cause(s.ctx)
		default:
			return nil
		}
	}
}
