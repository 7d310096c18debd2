// Package statussocket carries the status of servers to those who ask, over sockets of their own.
//
// Each server process listens on a socket that is called as its process number, in a directory that they share
// ([Open]), for as long as it does anything: so one that only finishes what it has begun is seen as well as the one that
// has taken over, whoever has started them. The name "socket" leads to the newest. Who connects is judged by who they
// are, as on the daemon's own socket. What is spoken is HTTP:
//
//	GET  /v1/status               the server, as JSON (package status)
//	GET  /v1/log?of=WHAT          the log of a build: as it grows if it runs, with running=1 only if it does
//	POST /v1/cancel?build=WHAT    ends a build
//
// and what else is mounted, such as metrics. WHAT is what [status.Match] understands, for logs also any store path. The
// functions with a directory are the other end: they ask all servers.
package statussocket

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"nixdaemon/daemon/status"
)

// Newest is the name of the socket of the newest server.
const Newest = "socket"

const (
	// headerTime is how long a client may take for a request, idleTime how long it may keep a connection for the next.
	headerTime = 10 * time.Second
	idleTime   = time.Minute
	maxHeader  = 16 << 10
)

// Options are a server's.
type Options struct {
	// Dir is where the socket is to be; it is made if it is not there.
	Dir string
	// Listen binds a socket.
	Listen func(path string) (net.Listener, error)
	// Admit judges who has connected. An error refuses them; leave, if not nil, is called when they have gone.
	Admit func(conn *net.UnixConn) (v status.Viewer, leave func(), err error)
	// Handler answers. [ViewerOf] tells it who asks.
	Handler http.Handler
	// Refused is told why somebody was not let in; nil drops that.
	Refused func(err error)
}

// Server is one that listens.
type Server struct {
	path, newest string
	http         *http.Server
	cancel       context.CancelFunc
	served       sync.WaitGroup // the listener, and who is being answered

	mu     sync.Mutex
	closed bool // nobody is answered any more
}

// Open listens and answers until the server is closed. It removes what servers that have died have left.
func Open(o Options) (*Server, error) {
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return nil, err
	}
	name := strconv.Itoa(os.Getpid())
	s := &Server{path: filepath.Join(o.Dir, name), newest: filepath.Join(o.Dir, Newest)}
	removeDead(o.Dir)
	if err := os.Remove(s.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l, err := publish(o, s.path)
	if err != nil {
		return nil, err
	}
	if err := point(s.newest, name); err != nil {
		return nil, errors.Join(err, l.Close(), os.Remove(s.path))
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	s.http = &http.Server{
		Handler: s.answering(o.Handler), ReadHeaderTimeout: headerTime, IdleTimeout: idleTime, MaxHeaderBytes: maxHeader,
		BaseContext: func(net.Listener) context.Context { return ctx },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, viewerKey{}, c.(*guest).viewer)
		},
		ErrorLog: nil,
	}
	s.served.Go(func() { s.http.Serve(&door{l, o}) })
	return s, nil
}

// publish listens at a path. The socket gets its name when it can be connected to: before that it looks like one that the
// dead have left, which others remove.
func publish(o Options, path string) (net.Listener, error) {
	unready := filepath.Join(filepath.Dir(path), "."+filepath.Base(path))
	if err := os.Remove(unready); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l, err := o.Listen(unready)
	if err != nil {
		return nil, fmt.Errorf("listen for those who ask for the status: %w", err)
	}
	// Everybody may ask, and is told what is their business.
	if err = os.Chmod(unready, 0o666); err == nil {
		err = os.Rename(unready, path)
	}
	if err != nil {
		return nil, errors.Join(err, l.Close(), os.Remove(unready))
	}
	return l, nil
}

// answering has Close wait for answers: what they are made of may be gone afterwards.
func (s *Server) answering(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !s.begin() {
			panic(http.ErrAbortHandler)
		}
		defer s.served.Done()
		h.ServeHTTP(w, r)
	})
}

func (s *Server) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.served.Add(1)
	}
	return !s.closed
}

// point has a link lead to a name, at once.
func point(link, name string) error {
	temp := link + "." + name
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Symlink(name, temp); err != nil {
		return err
	}
	return os.Rename(temp, link)
}

// unpoint removes a link if it leads to a name. One that another server makes meanwhile stays, or comes back.
func unpoint(link, name string) error {
	if target, err := os.Readlink(link); err != nil || target != name {
		return nil
	}
	temp := link + "." + name
	if err := os.Rename(link, temp); err != nil {
		return ignoring(err, fs.ErrNotExist)
	}
	target, err := os.Readlink(temp)
	if err == nil && target != name {
		err = ignoring(os.Symlink(target, link), fs.ErrExist)
	}
	return errors.Join(err, os.Remove(temp))
}

// ignoring is an error unless it is of one kind.
func ignoring(err, kind error) error {
	if errors.Is(err, kind) {
		return nil
	}
	return err
}

// Close hangs up on everybody and takes the socket away. Nobody is being answered when it returns.
func (s *Server) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.cancel()
	err := s.http.Close()
	s.served.Wait()
	return errors.Join(err, unpoint(s.newest, filepath.Base(s.path)), ignoring(os.Remove(s.path), fs.ErrNotExist))
}

// door lets clients in one after the other.
type door struct {
	net.Listener
	o Options
}

// Accept gives the next client that is let in.
func (d *door) Accept() (net.Conn, error) {
	for {
		conn, err := d.Listener.Accept()
		if err != nil {
			return nil, err
		}
		unixConn, ok := conn.(*net.UnixConn)
		if !ok {
			conn.Close()
			continue
		}
		v, leave, err := d.o.Admit(unixConn)
		if err == nil {
			return &guest{Conn: conn, viewer: v, leave: leave}, nil
		}
		if d.o.Refused != nil {
			d.o.Refused(err)
		}
		conn.Close()
	}
}

// guest is a client that was let in.
type guest struct {
	net.Conn
	viewer status.Viewer
	leave  func()
	gone   sync.Once
}

// Close hangs up.
func (g *guest) Close() error {
	err := g.Conn.Close()
	g.gone.Do(func() {
		if g.leave != nil {
			g.leave()
		}
	})
	return err
}

type viewerKey struct{}

// ViewerOf tells who asks; nobody in particular if the request did not come through a [Server].
func ViewerOf(ctx context.Context) status.Viewer {
	v, _ := ctx.Value(viewerKey{}).(status.Viewer)
	return v
}
