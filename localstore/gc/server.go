package gc

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/storepath"
)

const (
	// socketName is where processes tell us of new roots, within the state directory.
	socketName = "gc-socket/socket"

	// maxClients bounds the connections. Everybody can connect, and a client that is cut off connects again, so
	// the oldest connection makes room for the next.
	maxClients = 512

	// maxLine is longer than any full store path.
	maxLine = 8 << 10
)

// server takes temporary roots from all processes that add some during a collection. A client sends a full store
// path and a newline, and waits for the character 1: then the path will not be deleted any more. Lines that are no
// store paths are answered, too.
type server struct {
	listener net.Listener
	dir      storepath.Dir
	claims   *claims
	hold     func(storepath.Path) error // keeps a root of another process beyond this collection
	log      activity.Sink
	done     sync.WaitGroup

	mu      sync.Mutex
	clients []net.Conn // the oldest first; nil after close
	closed  bool
}

func serve(path string, dir storepath.Dir, c *claims, hold func(storepath.Path) error, log activity.Sink) (*server, error) {
	l, err := listen(path)
	if err != nil {
		return nil, fmt.Errorf("listen for roots: %w", err)
	}
	s := &server{listener: l, dir: dir, claims: c, hold: hold, log: log}
	s.done.Go(s.accept)
	return s, nil
}

// listen makes the socket. The lock gc.lock is held, so what is there of that name is nobody's.
func listen(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	// It gets its name when everybody may connect: a client that is refused would give up.
	fresh := path + ".new"
	if err := os.Remove(fresh); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := listenAnywhere(fresh)
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	if err = os.Chmod(fresh, 0o666); err == nil {
		err = os.Rename(fresh, path)
	}
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return &namedListener{l, path}, nil
}

// maxSocketPath is what fits sockaddr_un with its final zero (unix(7)).
const maxSocketPath = len(unix.RawSockaddrUnix{}.Path) - 1

func listenAnywhere(path string) (*net.UnixListener, error) {
	if len(path) <= maxSocketPath {
		return net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return listenBeneath(dir, filepath.Base(path))
}

// namedListener removes its socket when it closes, under the name that it really has.
type namedListener struct {
	net.Listener
	path string
}

// Close removes the socket before it stops listening: while gc.lock is held the name is ours.
func (l *namedListener) Close() error {
	return errors.Join(os.Remove(l.path), l.Listener.Close())
}

// close stops listening and hangs up on everybody.
func (s *server) close() {
	s.listener.Close()
	s.claims.close()
	s.mu.Lock()
	s.closed = true
	for _, conn := range s.clients {
		conn.Close()
	}
	s.clients = nil
	s.mu.Unlock()
	s.done.Wait()
}

func (s *server) accept() {
	for {
		conn, err := s.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			// Out of descriptors: the oldest client must go. Without any, nobody is let in; they try again.
			if !s.dropOldest() {
				s.listener.Close()
				return
			}
			continue
		}
		if s.enter(conn) {
			s.done.Go(func() {
				defer s.leave(conn)
				s.talk(conn)
			})
		}
	}
}

func (s *server) enter(conn net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		conn.Close()
		return false
	}
	if len(s.clients) == maxClients {
		s.clients[0].Close()
		s.clients = s.clients[1:]
	}
	s.clients = append(s.clients, conn)
	return true
}

func (s *server) dropOldest() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.clients) == 0 {
		return false
	}
	s.clients[0].Close()
	s.clients = s.clients[1:]
	return true
}

func (s *server) leave(conn net.Conn) {
	conn.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, c := range s.clients {
		if c == conn {
			s.clients = append(s.clients[:i:i], s.clients[i+1:]...)
			return
		}
	}
}

// talk serves one client until either side hangs up.
func (s *server) talk(conn net.Conn) {
	in := bufio.NewReaderSize(conn, maxLine)
	out := bufio.NewWriterSize(conn, 256)
	complained := false
	foreign := peerPID(conn) != os.Getpid()
	for {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return
		}
		p, err := s.dir.Parse(strings.TrimSuffix(string(line), "\n"))
		switch {
		case err == nil:
			// What was answered already must not wait with the rest.
			if s.claims.mayWait(p.HashPart()) && out.Flush() != nil {
				return
			}
			if !s.claims.claim(p.HashPart()) {
				return
			}
			// Ours have written it down before they asked.
			if foreign {
				if err := s.hold(p); err != nil {
					s.log.Message(activity.Error, "keeping a root of another process: "+err.Error())
					return
				}
			}
		case !complained:
			s.log.Message(activity.Error, "received garbage instead of a root from client")
			complained = true
		}
		if out.WriteByte('1') != nil {
			return
		}
		if in.Buffered() == 0 && out.Flush() != nil {
			return
		}
	}
}
