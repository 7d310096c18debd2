package build

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// nestedSocket is the name of the daemon's socket in the build directory.
	nestedSocket = ".nix-socket"
	// maxNestedConns is how many connections of one builder are served at a time; more of them wait.
	maxNestedConns = 64
	// acceptPause is how long to wait after an error that may pass, such as a lack of descriptors.
	acceptPause = 50 * time.Millisecond
)

// nestedServer is the daemon of one builder. All its goroutines end with stop.
type nestedServer struct {
	n        *Nested
	serve    func(context.Context, net.Conn, *Nested) error
	listener net.Listener
	ctx      context.Context // of all requests
	cancel   context.CancelFunc
	places   chan struct{} // one token per connection
	wait     sync.WaitGroup
}

// serveNested listens in the build directory, where nobody but the builder can come.
func (a *attempt) serveNested(n *Nested) (*nestedServer, error) {
	l, err := a.listenNested()
	if err != nil {
		return nil, err
	}
	s := &nestedServer{n: n, serve: a.o.Nested, listener: l, places: make(chan struct{}, maxNestedConns)}
	s.ctx, s.cancel = context.WithCancel(a.ctx)
	s.wait.Go(s.accept)
	return s, nil
}

// listenNested makes the socket. The builder does not run yet, so nobody can have put something else in its place.
func (a *attempt) listenNested() (net.Listener, error) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: a.tmp.address(nestedSocket), Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("cannot bind to socket '%s': %w", a.tmp.path+"/"+nestedSocket, err)
	}
	l.SetUnlinkOnClose(false) // it goes with the build directory
	err = unix.Fchmodat(a.tmp.fd, nestedSocket, 0o600, 0)
	if err == nil && a.user != nil {
		uid, gid := a.owner()
		err = unix.Fchownat(a.tmp.fd, nestedSocket, uid, gid, unix.AT_SYMLINK_NOFOLLOW)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("give socket to builder: %w", err), l.Close())
	}
	return l, nil
}

func (s *nestedServer) accept() {
	for {
		select {
		case s.places <- struct{}{}:
		case <-s.ctx.Done():
			return
		}
		conn, err := s.listener.Accept()
		if err == nil {
			s.wait.Go(func() { s.talk(conn) })
			continue
		}
		<-s.places
		if errors.Is(err, net.ErrClosed) || s.ctx.Err() != nil {
			return
		}
		s.n.a.complain("accept connection of builder", err)
		pause(s.ctx, acceptPause)
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// talk serves one connection. The end of the build closes it, whatever the builder does with its end.
func (s *nestedServer) talk(conn net.Conn) {
	defer func() { <-s.places }()
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if err := s.serve(ctx, conn, s.n); err != nil && ctx.Err() == nil {
		s.n.a.complain("serve builder", err)
	}
}

// stop hangs up on the builder, gives up what it has asked for, and waits. It may be called again.
func (s *nestedServer) stop() {
	s.cancel()
	s.listener.Close() // a second time it says so, which is no news
	s.wait.Wait()
}
