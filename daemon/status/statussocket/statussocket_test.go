package statussocket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"nixdaemon/daemon/status"
)

// fake is a daemon with one build.
type fake struct {
	mu        sync.Mutex
	cancelled []string
	log       Log
}

func (*fake) Server() status.Server {
	return status.Server{PID: 7, Builds: []status.Build{{ID: "7-1", Derivation: "/nix/store/x-a.drv", LastLine: "secret", Users: []string{"bob"}}}}
}

func (f *fake) OpenLog(_ context.Context, v status.Viewer, what string, running bool) (Log, error) {
	switch {
	case what == "others":
		return nil, fmt.Errorf("%w: it is bob's", ErrForbidden)
	case what == "stored" && !running:
		return &chunks{list: []string{"kept\n"}}, nil
	case what == "running" && running:
		return f.log, nil
	case what == "broken":
		return &chunks{list: []string{"half"}, err: errors.New("disk on fire")}, nil
	}
	return nil, fmt.Errorf("%w as '%s'", ErrUnknown, what)
}

func (f *fake) Cancel(v status.Viewer, what string) (string, error) {
	if what != "a" {
		return "", fmt.Errorf("%w as '%s'", ErrUnknown, what)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cancelled = append(f.cancelled, v.User)
	return "/nix/store/x-a.drv", nil
}

// chunks is a log that comes in pieces; next, if not nil, says when there may be one more.
type chunks struct {
	list   []string
	next   chan struct{}
	err    error
	closed bool
}

func (c *chunks) Read(ctx context.Context, p []byte) (int, error) {
	if c.next != nil {
		select {
		case <-c.next:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	if len(c.list) == 0 {
		return 0, errors.Join(c.err, io.EOF)
	}
	n := copy(p, c.list[0])
	c.list = c.list[1:]
	if len(c.list) == 0 && c.err != nil {
		return n, c.err
	}
	return n, nil
}

func (c *chunks) Close() error {
	c.closed = true
	return nil
}

func listen(path string) (net.Listener, error) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	return l, nil
}

// shortDir is one whose sockets have names that fit.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ss")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func open(t *testing.T, dir string, d Daemon, v status.Viewer) *Server {
	t.Helper()
	s, err := Open(Options{
		Dir: dir, Listen: listen, Handler: NewMux(d),
		Admit: func(*net.UnixConn) (status.Viewer, func(), error) { return v, nil, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStatus(t *testing.T) {
	dir := filepath.Join(shortDir(t), "made")
	var nobody *NobodyError
	if _, err := Ask(t.Context(), dir); !errors.As(err, &nobody) {
		t.Errorf("nobody is there: %v", err)
	}
	s := open(t, dir, &fake{}, status.Viewer{User: "root", All: true})
	snap, err := Ask(t.Context(), dir)
	if err != nil || snap.Version != 1 || len(snap.Servers) != 1 || snap.Servers[0].Builds[0].LastLine != "secret" {
		t.Errorf("got %+v, %v", snap, err)
	}
	if target, err := os.Readlink(filepath.Join(dir, Newest)); err != nil || target != strconv.Itoa(os.Getpid()) {
		t.Errorf("newest is %q, %v", target, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if _, err := Ask(t.Context(), dir); !errors.As(err, &nobody) {
		t.Errorf("nobody is there any more: %v", err)
	}
}

func TestPrivacy(t *testing.T) {
	dir := shortDir(t)
	s := open(t, dir, &fake{}, status.Viewer{User: "alice"})
	defer s.Close()
	snap, err := Ask(t.Context(), dir)
	if err != nil || snap.Servers[0].Builds[0].LastLine != "" || snap.Servers[0].Builds[0].Others != 1 {
		t.Errorf("got %+v, %v", snap, err)
	}
}

func TestRefused(t *testing.T) {
	dir := shortDir(t)
	refused := make(chan error, 10)
	s, err := Open(Options{
		Dir: dir, Listen: listen, Handler: NewMux(&fake{}), Refused: func(err error) { refused <- err },
		Admit: func(*net.UnixConn) (status.Viewer, func(), error) {
			return status.Viewer{}, nil, errors.New("not you")
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := Ask(t.Context(), dir); err == nil {
		t.Error("was let in")
	}
	if err := <-refused; err.Error() != "not you" {
		t.Error(err)
	}
}

// TestLeave counts clients out.
func TestLeave(t *testing.T) {
	dir := shortDir(t)
	left := make(chan struct{}, 10)
	s, err := Open(Options{Dir: dir, Listen: listen, Handler: NewMux(&fake{}), Admit: func(*net.UnixConn) (status.Viewer, func(), error) {
		return status.Viewer{}, func() { left <- struct{}{} }, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := Ask(t.Context(), dir); err != nil {
		t.Error(err)
	}
	<-left
}

// TestSeveral asks all that live, and removes what the dead have left.
func TestSeveral(t *testing.T) {
	dir := shortDir(t)
	dead, err := listen(filepath.Join(dir, "999999"))
	if err != nil {
		t.Fatal(err)
	}
	dead.Close()
	other, err := listen(filepath.Join(dir, "1"))
	if err != nil {
		t.Fatal(err)
	}
	older := &http.Server{Handler: NewMux(&fake{})}
	go older.Serve(other)
	defer older.Close()
	s := open(t, dir, &fake{}, status.Viewer{})
	defer s.Close()
	if _, err := os.Lstat(filepath.Join(dir, "999999")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the dead one's socket: %v", err)
	}
	snap, err := Ask(t.Context(), dir)
	if err != nil || len(snap.Servers) != 2 {
		t.Errorf("got %+v, %v", snap, err)
	}
}

// TestStartingAtOnce: who removes what the dead have left does not take a socket for that which is about to be listened on.
func TestStartingAtOnce(t *testing.T) {
	dir := shortDir(t)
	s, err := Open(Options{
		Dir: dir, Handler: NewMux(&fake{}),
		Admit: func(*net.UnixConn) (status.Viewer, func(), error) { return status.Viewer{All: true}, nil, nil },
		Listen: func(path string) (net.Listener, error) {
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
			if err != nil {
				return nil, err
			}
			f := os.NewFile(uintptr(fd), path)
			defer f.Close()
			if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
				return nil, err
			}
			removeDead(dir) // as another server does that starts now
			if err := unix.Listen(fd, 8); err != nil {
				return nil, err
			}
			return net.FileListener(f)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if snap, err := Ask(t.Context(), dir); err != nil || len(snap.Servers) != 1 {
		t.Errorf("got %+v, %v", snap, err)
	}
}

// TestNewestStays: a server that ends does not take the name that another has been given.
func TestNewestStays(t *testing.T) {
	dir := shortDir(t)
	link := filepath.Join(dir, Newest)
	for _, c := range []struct{ target, want string }{{"1", ""}, {"2", "2"}, {"", ""}} {
		os.Remove(link)
		if c.target != "" {
			if err := os.Symlink(c.target, link); err != nil {
				t.Fatal(err)
			}
		}
		if err := unpoint(link, "1"); err != nil {
			t.Error(err)
		}
		if got, _ := os.Readlink(link); got != c.want {
			t.Errorf("%q: got %q", c.target, got)
		}
	}
	// One that comes in between.
	var begin sync.WaitGroup
	for range 200 {
		if err := point(link, "1"); err != nil {
			t.Fatal(err)
		}
		begin.Go(func() {
			if err := point(link, "2"); err != nil {
				t.Error(err)
			}
		})
		if err := unpoint(link, "1"); err != nil {
			t.Error(err)
		}
		begin.Wait()
		if got, err := os.Readlink(link); got != "2" {
			t.Fatalf("the newer one's is %q, %v", got, err)
		}
	}
}

func TestLog(t *testing.T) {
	dir := shortDir(t)
	log := &chunks{list: []string{"one\n", "two\n"}, next: make(chan struct{})}
	s := open(t, dir, &fake{log: log}, status.Viewer{})
	defer s.Close()
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := CopyLog(t.Context(), dir, "running", true, w)
		w.Close()
		done <- err
	}()
	buf := make([]byte, 100)
	for _, want := range []string{"one\n", "two\n"} {
		log.next <- struct{}{}
		if n, err := r.Read(buf); string(buf[:n]) != want || err != nil {
			t.Errorf("read %q, %v, want %q at once", buf[:n], err, want)
		}
	}
	close(log.next)
	if err := <-done; err != nil {
		t.Error(err)
	}
	for what, want := range map[string]string{"others": "not allowed: it is bob's", "nothing": "there is no such build as 'nothing'", "broken": "the daemon has broken off the log"} {
		if err := CopyLog(t.Context(), dir, what, true, io.Discard); err == nil || err.Error() != want {
			t.Errorf("log of %s: %v, want %s", what, err, want)
		}
	}
	for _, follow := range []bool{true, false} {
		var text strings.Builder
		if err := CopyLog(t.Context(), dir, "stored", follow, &text); err != nil || text.String() != "kept\n" {
			t.Errorf("stored log: %q, %v", text.String(), err)
		}
	}
}

// TestCloseEndsLogs does not wait for those who read along.
func TestCloseEndsLogs(t *testing.T) {
	dir := shortDir(t)
	log := &chunks{list: []string{"one\n"}, next: make(chan struct{})}
	s := open(t, dir, &fake{log: log}, status.Viewer{})
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() { done <- CopyLog(t.Context(), dir, "running", true, w) }()
	log.next <- struct{}{}
	if _, err := io.ReadFull(r, make([]byte, 4)); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if !log.closed {
		t.Error("the log is still open")
	}
	if err := <-done; err == nil {
		t.Error("the log seems complete")
	}
}

func TestCancel(t *testing.T) {
	dir := shortDir(t)
	f := &fake{}
	s := open(t, dir, f, status.Viewer{User: "alice"})
	defer s.Close()
	if got, err := Cancel(t.Context(), dir, "a"); got != "/nix/store/x-a.drv" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := Cancel(t.Context(), dir, "b"); err == nil || err.Error() != "there is no such build as 'b'" {
		t.Error(err)
	}
	if fmt.Sprint(f.cancelled) != "[alice]" {
		t.Errorf("cancelled for %q", f.cancelled)
	}
	// Looking must not do anything.
	if _, err := ask(t.Context(), filepath.Join(dir, Newest), http.MethodGet, "/v1/cancel", map[string][]string{"build": {"a"}}); err == nil {
		t.Error("GET cancels")
	}
}
