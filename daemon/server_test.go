package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
)

// start runs a server on a socket of its own until the test ends.
func start(t *testing.T, s *Server, log ...zerolog.Logger) (socket string, stop func() error) {
	t.Helper()
	dir, err := os.MkdirTemp("", "nixd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket = filepath.Join(dir, "sub", "socket")
	l, publish, err := Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	if err := publish(); err != nil {
		t.Fatal(err)
	}
	s.Accounts, s.Log = fakeAccounts{}, zerolog.Nop()
	if len(log) > 0 {
		s.Log = log[0]
	}
	drain := make(chan struct{})
	done := make(chan error, 1)
	go func() { done <- s.Run(context.Background(), drain, []net.Listener{l}) }()
	var result error
	stopped := false
	stop = func() error {
		if !stopped {
			stopped = true
			close(drain)
			result = <-done
		}
		return result
	}
	t.Cleanup(func() { stop() })
	return socket, stop
}

func dial(t *testing.T, socket string) *net.UnixConn {
	t.Helper()
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn.(*net.UnixConn)
}

var everybody = Policy{Allowed: []string{"*"}}

// echo answers each byte after it has arrived.
func echo(ctx context.Context, stream io.ReadWriter, _ Peer) error {
	buf := make([]byte, 1)
	for {
		if _, err := stream.Read(buf); err != nil {
			return nil
		}
		if _, err := stream.Write(buf); err != nil {
			return err
		}
		stream.(interface{ Idle() }).Idle()
	}
}

func exchange(t *testing.T, conn net.Conn) error {
	t.Helper()
	if _, err := conn.Write([]byte("x")); err != nil {
		return err
	}
	_, err := io.ReadFull(conn, make([]byte, 1))
	return err
}

func TestServe(t *testing.T) {
	peers := make(chan Peer, 1)
	s := &Server{Policy: everybody, Serve: func(ctx context.Context, s io.ReadWriter, p Peer) error {
		peers <- p
		return echo(ctx, s, p)
	}}
	socket, stop := start(t, s)
	if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o666 {
		t.Errorf("socket: %v, %v", info.Mode(), err)
	}
	conn := dial(t, socket)
	if err := exchange(t, conn); err != nil {
		t.Fatal(err)
	}
	p := <-peers
	if p.PID != os.Getpid() || p.UID != uint32(os.Getuid()) || p.Trusted || p.Client == 0 {
		t.Errorf("got peer %+v", p)
	}
	// The answer is there before the connection counts as idle.
	for begun := time.Now(); s.Connections() != 1 || s.Busy() != 0; time.Sleep(time.Millisecond) {
		if time.Since(begun) > time.Minute {
			t.Fatalf("%d connections, %d busy", s.Connections(), s.Busy())
		}
	}
	conn.Close()
	if err := stop(); err != nil {
		t.Error(err)
	}
	if s.Connections() != 0 {
		t.Errorf("%d connections at the end", s.Connections())
	}
}

func TestRefusedClientSeesAReset(t *testing.T) {
	socket, _ := start(t, &Server{Serve: echo})
	conn := dial(t, socket)
	conn.Write([]byte("greeting"))
	if _, err := io.ReadFull(conn, make([]byte, 1)); err == nil {
		t.Error("a refused client was answered")
	}
}

// TestDrain lets clients that are connected go on, and nobody else in.
func TestDrain(t *testing.T) {
	s := &Server{Policy: everybody, Serve: echo}
	socket, stop := start(t, s)
	idle, busy := dial(t, socket), dial(t, socket)
	for _, conn := range []net.Conn{idle, busy} {
		if err := exchange(t, conn); err != nil {
			t.Fatal(err)
		}
	}
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	for { // the listener closes first
		c, err := net.Dial("unix", socket)
		if err != nil {
			break
		}
		c.Close()
	}
	for _, conn := range []net.Conn{busy, idle} {
		for range 3 {
			if err := exchange(t, conn); err != nil {
				t.Errorf("a client was cut off: %v", err)
			}
		}
		select {
		case err := <-stopped:
			t.Errorf("ended with a client connected: %v", err)
		default:
		}
		conn.Close()
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

// A service manager may hand over a socket of another kind, through which nobody can be known.
func TestOnlyUnixSockets(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{Policy: everybody, Serve: echo, Accounts: fakeAccounts{}, Log: zerolog.Nop()}
	drain := make(chan struct{})
	done := make(chan error, 1)
	go func() { done <- s.Run(context.Background(), drain, []net.Listener{l}) }()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if n, err := conn.Read(make([]byte, 1)); err == nil {
		t.Errorf("read %d bytes", n)
	}
	close(drain)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestDrainEnds cancels what does not finish in time.
func TestDrainEnds(t *testing.T) {
	begun := make(chan struct{})
	socket, stop := start(t, &Server{Policy: everybody, Drain: time.Millisecond,
		Serve: func(ctx context.Context, s io.ReadWriter, p Peer) error {
			s.Read(make([]byte, 1))
			close(begun)
			<-ctx.Done()
			return ctx.Err()
		}})
	conn := dial(t, socket)
	conn.Write([]byte("x"))
	<-begun
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// TestDrainEndsWhateverDraining hangs up on clients, when they have had their time or the second signal comes, while
// Draining still goes on.
func TestDrainEndsWhateverDraining(t *testing.T) {
	for name, atMost := range map[string]time.Duration{"drain timeout": time.Millisecond, "second signal": 0} {
		t.Run(name, func(t *testing.T) {
			begun, draining, gone := make(chan struct{}), make(chan struct{}), make(chan struct{})
			s := &Server{Policy: everybody, Drain: atMost, Accounts: fakeAccounts{}, Log: zerolog.Nop(),
				Draining: func() {
					close(draining)
					select {
					case <-gone: // all that could end a server has to happen while it hangs
					case <-time.After(time.Minute):
						t.Error("the client was kept until Draining ended")
					}
				},
				Serve: func(ctx context.Context, s io.ReadWriter, p Peer) error {
					close(begun)
					defer close(gone)
					_, err := s.Read(make([]byte, 1))
					return err
				}}
			socket := filepath.Join(t.TempDir(), "socket")
			l, err := net.Listen("unix", socket)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			drain, done := make(chan struct{}), make(chan error, 1)
			go func() { done <- s.Run(ctx, drain, []net.Listener{l}) }()
			dial(t, socket)
			<-begun
			close(drain)
			<-draining
			if atMost == 0 {
				cancel()
			}
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}

// TestHangUp cancels the work of a client that goes away, though nobody reads
// from it; one that only stops sending still waits for its answer.
func TestHangUp(t *testing.T) {
	begun, cancelled := make(chan struct{}), make(chan struct{})
	half := make(chan error, 1)
	socket, _ := start(t, &Server{Policy: everybody, Serve: func(ctx context.Context, s io.ReadWriter, p Peer) error {
		s.Read(make([]byte, 1))
		begun <- struct{}{}
		<-half
		if ctx.Err() != nil {
			t.Error("a half-closed connection counts as gone")
		}
		begun <- struct{}{}
		<-ctx.Done()
		close(cancelled)
		return nil
	}})
	conn := dial(t, socket)
	conn.Write([]byte("x"))
	<-begun
	conn.CloseWrite()
	half <- nil
	<-begun
	conn.Close()
	select {
	case <-cancelled:
	case <-time.After(time.Minute):
		t.Error("hang-up was not noticed")
	}
}

func TestManyConnections(t *testing.T) {
	socket, stop := start(t, &Server{Policy: everybody, Serve: echo})
	for range 200 {
		conn := dial(t, socket)
		if err := exchange(t, conn); err != nil {
			t.Fatal(err)
		}
		conn.Close()
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestLongSocketPath(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("long/", 40))
	path := filepath.Join(dir, "socket")
	for range 2 { // a second daemon takes the name over
		l, publish, err := Listen(path)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if err := publish(); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(path); err != nil || info.Mode() != os.ModeSocket|0o666 {
			t.Errorf("no socket at %s: %v", path, err)
		}
	}
}

// A socket that is not published stays hidden, and the old one in its place.
func TestUnpublished(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	if err := os.WriteFile(path, []byte("the old one"), 0o644); err != nil {
		t.Fatal(err)
	}
	l, _, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if text, err := os.ReadFile(path); err != nil || string(text) != "the old one" {
		t.Errorf("%q, %v", text, err)
	}
	if got := paths([]net.Listener{l}); got[0] != path {
		t.Errorf("it is called %s", got[0])
	}
}

func TestInherited(t *testing.T) {
	tests := []struct {
		fds, pid string
		want     error
	}{
		{"1", "1", ErrActivation},
		{"x", fmt.Sprint(os.Getpid()), ErrActivation},
		{"0", fmt.Sprint(os.Getpid()), ErrActivation},
		{"", "", nil},
	}
	for _, tt := range tests {
		t.Setenv("LISTEN_FDS", tt.fds)
		t.Setenv("LISTEN_PID", tt.pid)
		listeners, err := Inherited()
		if !errors.Is(err, tt.want) || len(listeners) > 0 {
			t.Errorf("LISTEN_FDS=%s LISTEN_PID=%s: got %d, %v", tt.fds, tt.pid, len(listeners), err)
		}
		if os.Getenv("LISTEN_FDS") != "" {
			t.Error("builders would see the variables")
		}
	}
}
