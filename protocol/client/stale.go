package client

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// stale tells whether an idle connection is of no more use: closed by the
// daemon, or with something to read that nobody asked for. Upstream's daemons
// send errors after which they hang up twice (libstore/daemon.cc,
// processConnection), and the second one would answer the next request. Streams
// that are no sockets can say themselves that they have ended.
func (c *Conn) stale() bool {
	if c.in.Buffered() > 0 {
		return true
	}
	if s, ok := c.stream.(interface{ Ended() bool }); ok && s.Ended() {
		return true
	}
	socket, ok := c.stream.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return true
	}
	stale := true
	err = raw.Control(func(fd uintptr) {
		_, _, err := unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
		stale = err != unix.EAGAIN && err != unix.ENOTSOCK
	})
	return stale || err != nil
}
