package daemon

import (
	"errors"
	"net"
	"os"
	"sync/atomic"
	"time"
)

// served is a connection that knows whether its client waits for something:
// whether what was written last is newer than what was read last. The worker
// flushes the end of each reply, and reads the next request only then.
type served struct {
	conn   *net.UnixConn
	socket *socket
	turns  *turns
	// alone is true if no other connection has answered between its last two replies.
	alone bool
	// greeting is how long the client may take for its greeting, from the first
	// read on; 0 once it has come, or without a limit. Only the goroutine that
	// reads looks at it.
	greeting time.Duration
	timed    bool

	// busy is true from the first byte of a request to the end of its reply. It
	// belongs to the goroutine that reads.
	busy  bool
	count *atomic.Int64 // of the busy ones

	traffic *traffic // of all connections
}

// traffic counts bytes.
type traffic struct{ received, sent atomic.Uint64 }

// Read reads from the client.
func (s *served) Read(p []byte) (int, error) {
	if s.greeting > 0 && !s.timed {
		s.timed = true
		s.conn.SetReadDeadline(time.Now().Add(s.greeting))
	}
	sit := s.turns.sit(s)
	n, err := s.socket.read(p, sit)
	if sit {
		s.turns.rise()
	}
	if s.timed && errors.Is(err, os.ErrDeadlineExceeded) {
		err = errSilent
	}
	s.traffic.received.Add(uint64(max(n, 0)))
	if n > 0 && !s.busy {
		s.busy = true
		s.count.Add(1)
	}
	return n, err
}

// errSilent ends connections that nobody uses.
var errSilent = errors.New("the client did not say in time that it is one")

// Greeted is called by the worker when the client has said who it is.
func (s *served) Greeted() {
	s.greeting = 0
	if s.timed {
		s.timed = false
		s.conn.SetReadDeadline(time.Time{})
	}
}

// Write writes to the client.
func (s *served) Write(p []byte) (int, error) {
	n, err := s.socket.write(p)
	s.traffic.sent.Add(uint64(max(n, 0)))
	return n, err
}

// Idle is called by the worker when it is done with a request.
func (s *served) Idle() {
	s.turns.done(s)
	s.rest()
}

// rest notes that the client waits for nothing any more.
func (s *served) rest() {
	if s.busy {
		s.busy = false
		s.count.Add(-1)
	}
}
