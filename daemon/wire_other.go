//go:build !linux

package daemon

import "net"

// turns has nothing to tell: the runtime's poller waits for all connections.
type turns struct{}

func (*turns) sit(*served) bool { return false }

func (*turns) rise() {}

func (*turns) done(*served) {}

// socket reads and writes a connection.
type socket struct{ conn *net.UnixConn }

func newSocket(conn *net.UnixConn) (*socket, error) { return &socket{conn}, nil }

func (s *socket) read(p []byte, _ bool) (int, error) { return s.conn.Read(p) }

func (s *socket) write(p []byte) (int, error) { return s.conn.Write(p) }
