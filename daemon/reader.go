package daemon

import (
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// watchReader calls gone, once and from another goroutine, when nobody reads
// what is written to out any more. A client that has only closed our standard
// input may still wait for an answer. stop ends the watch; gone is not called
// after it returns.
func watchReader(out int, gone func()) (stop func(), err error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	fds := []unix.PollFd{{Fd: int32(out)}, {Fd: int32(r.Fd()), Events: unix.POLLIN}}
	var wait sync.WaitGroup
	wait.Go(func() {
		defer r.Close()
		for {
			_, err := unix.Poll(fds, -1)
			switch {
			case err == unix.EINTR:
			case err != nil || fds[1].Revents != 0:
				return
			case fds[0].Revents != 0:
				gone()
				return
			}
		}
	})
	return func() {
		w.Close()
		wait.Wait()
	}, nil
}
