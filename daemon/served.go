package daemon

import (
	"io"
	"net"
	"sync"
)

// served is a connection that knows whether its client waits for something:
// whether what was written last is newer than what was read last. The worker
// flushes the end of each reply, and reads the next request only then.
type served struct {
	conn *net.UnixConn

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
	n, err := s.conn.Read(p)
	s.mu.Lock()
	s.reading = false
	s.mid = s.mid || n > 0
	s.mu.Unlock()
	return n, err
}

// Write writes to the client.
func (s *served) Write(p []byte) (int, error) { return s.conn.Write(p) }

// Idle is called by the worker when it is done with a request.
func (s *served) Idle() {
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
