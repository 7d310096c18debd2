package gc

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

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
	listener *net.UnixListener
	dir      storepath.Dir
	claims   *claims
	hold     func(storepath.Path) error // keeps a root of another process beyond this collection
	log      activity.Sink
	done     sync.WaitGroup

	mu      sync.Mutex
	clients []*net.UnixConn // the oldest first
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
func listen(path string) (*net.UnixListener, error) {
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
	return l, nil
}

// reserveSocket gives the socket a name before anybody holds gc.lock. Afterwards there is one always, even if nobody
// listens: some releases (2.8) go on without an answer if they find the lock held and no socket, but ask again if the
// connection is refused.
func reserveSocket(path string) error {
	if _, err := os.Lstat(path); err == nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	fresh := fmt.Sprintf("%s.%d-%d", path, os.Getpid(), rand.Uint32())
	l, err := listenAnywhere(fresh)
	if err != nil {
		return err
	}
	l.SetUnlinkOnClose(false)
	err = errors.Join(l.Close(), os.Chmod(fresh, 0o666))
	if err == nil {
		// Unlike a renaming this leaves the socket of a collector alone that came first.
		if err = os.Link(fresh, path); errors.Is(err, os.ErrExist) {
			err = nil
		}
	}
	return errors.Join(err, os.Remove(fresh))
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

// close stops listening and hangs up on everybody. The socket keeps its name, see [reserveSocket].
func (s *server) close() {
	s.mu.Lock()
	s.closed = true
	for _, conn := range s.clients {
		conn.SetWriteDeadline(time.Unix(1, 0))
		conn.CloseRead()
	}
	s.mu.Unlock()
	s.claims.close()
	s.listener.SetDeadline(time.Unix(1, 0))
	s.done.Wait()
	sendAway(s.listener)
	s.listener.Close()
}

// sendAway has new connections refused, and hangs up on those that nobody has let in.
func sendAway(l *net.UnixListener) {
	raw, err := l.SyscallConn()
	if err != nil {
		return
	}
	raw.Control(func(fd uintptr) {
		unix.Shutdown(int(fd), unix.SHUT_RDWR)
		for {
			conn, err := acceptQuietly(int(fd))
			if err == unix.EINTR || err == unix.ECONNABORTED {
				continue
			}
			if err != nil {
				return
			}
			unix.Shutdown(conn, unix.SHUT_RD)
			for buf := make([]byte, maxLine); ; {
				if n, err := unix.Read(conn, buf); n <= 0 && err != unix.EINTR {
					break
				}
			}
			unix.Close(conn)
		}
	})
}

// acceptQuietly accepts what no child shall have. It does not block: the descriptor is the poller's.
func acceptQuietly(fd int) (int, error) {
	syscall.ForkLock.RLock() // not every system can do both at once
	defer syscall.ForkLock.RUnlock()
	conn, _, err := unix.Accept(fd)
	if err == nil {
		unix.CloseOnExec(conn)
	}
	return conn, err
}

// hangUp closes a connection so that the client reads its end and asks again. Closed with something unread it would look
// broken, and some releases (2.8) take that for an answer.
func hangUp(conn *net.UnixConn) {
	conn.CloseRead()
	io.Copy(io.Discard, conn)
	conn.Close()
}

func (s *server) accept() {
	for {
		conn, err := s.listener.AcceptUnix()
		if err != nil && s.isClosed() {
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

func (s *server) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

func (s *server) enter(conn *net.UnixConn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		hangUp(conn)
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

func (s *server) leave(conn *net.UnixConn) {
	hangUp(conn)
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
func (s *server) talk(conn *net.UnixConn) {
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
