package daemon

import (
	"net"
)

// hangups notices clients that go away while nothing is read from them, so
// that what they wait for can be given up. A client that only shuts down its
// writing side still waits (libutil/monitor-fd.hh looks for POLLHUP too).
type hangups interface {
	// watch calls gone, once and from another goroutine, when the peer hangs
	// up. stop ends the watch; gone is not called after it returns.
	watch(conn *net.UnixConn, gone func()) (stop func(), err error)
	close() error
}
