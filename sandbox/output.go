package sandbox

import (
	"errors"
	"io"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// output reads the master side of the builder's terminal.
type output struct {
	master *os.File

	ended atomic.Bool // set once, when the master is closed
}

// Read ends with io.EOF when the last holder has closed the slave, which Linux reports as EIO.
func (o *output) Read(b []byte) (int, error) {
	n, err := o.master.Read(b)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		n, err = o.drain(b)
	}
	if errors.Is(err, syscall.EIO) || errors.Is(err, os.ErrClosed) {
		err = io.EOF
	}
	if err == io.EOF {
		if o.ended.CompareAndSwap(false, true) {
			o.master.Close()
		}
	}
	return n, err
}

// expire ends the output at t even if a process outside the tree (one that was handed the descriptor) holds it open.
func (o *output) expire(t time.Time) {
	// The only error is that the file is closed already.
	o.master.SetReadDeadline(t)
}

// drain reads what is there after the deadline, when a plain Read no longer tries. Nothing there is the end.
func (o *output) drain(b []byte) (n int, err error) {
	conn, err := o.master.SyscallConn()
	if err != nil {
		return 0, err
	}
	ctlErr := conn.Control(func(fd uintptr) {
		for {
			if n, err = unix.Read(int(fd), b); err != unix.EINTR {
				return
			}
		}
	})
	if ctlErr != nil {
		return 0, ctlErr
	}
	if err == unix.EAGAIN || err == nil && n == 0 && len(b) > 0 {
		return 0, io.EOF
	}
	return max(n, 0), err
}
