package daemon

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// served is a connection that knows whether its client waits for something:
// whether what was written last is newer than what was read last. The worker
// flushes the end of each reply, and reads the next request only then.
type served struct {
	conn   *net.UnixConn
	socket *socket
	turns  *turns
	// greeting is how long the client may take for its greeting, from the first
	// read on; 0 once it has come, or without a limit. Only the goroutine that
	// reads looks at it.
	greeting time.Duration
	timed    bool

	mu sync.Mutex
	// reading is true while a read waits for bytes.
	reading bool
	// mid is true from the first byte of a request to the end of its reply.
	mid      bool
	draining bool
}

// Read reads from the client. Between requests of a draining server the
// stream is at its end.
func (s *served) Read(p []byte) (int, error) {
	s.mu.Lock()
	if s.draining && !s.mid {
		s.mu.Unlock()
		return 0, io.EOF
	}
	s.reading = true
	s.mu.Unlock()
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
	s.mu.Lock()
	s.reading = false
	s.mid = s.mid || n > 0
	s.mu.Unlock()
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
func (s *served) Write(p []byte) (int, error) { return s.socket.write(p) }

// Idle is called by the worker when it is done with a request.
func (s *served) Idle() {
	s.turns.done(s)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mid = false
}

// drain ends the connection now if no request is under way, and else after
// that request. It tells whether one is.
func (s *served) drain() (busy bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.draining = true
	if !s.mid && s.reading {
		s.conn.CloseRead() // wakes the read, which finds the end
	}
	return s.mid
}
