package localstore

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nixdaemon/localstore/pathlock"
)

func tempRootFiles(t *testing.T, s *Store) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(s.StateDir(), "temproots"))
	if err != nil {
		t.Fatal(err)
	}
	var files []string
	for _, e := range entries {
		files = append(files, filepath.Join(s.StateDir(), "temproots", e.Name()))
	}
	return files
}

// TestTempRoots reads the file as a collector of upstream does.
func TestTempRoots(t *testing.T) {
	s := open(t, nil)
	roots := s.NewTempRoots()
	if files := tempRootFiles(t, s); len(files) != 0 {
		t.Errorf("a set without roots has a file: %v", files)
	}
	a, b := mustPath(t, "a"), mustPath(t, "b")
	if err := roots.Add(ctx, a, b); err != nil {
		t.Fatal(err)
	}
	if err := roots.Add(ctx, a); err != nil {
		t.Fatal(err)
	}
	files := tempRootFiles(t, s)
	if len(files) != 1 {
		t.Fatal(files)
	}
	if n, err := strconv.ParseInt(filepath.Base(files[0]), 10, 32); err != nil || n <= maxPID {
		t.Errorf("%s is no integer beyond process ids", files[0])
	}
	text, _ := os.ReadFile(files[0])
	if want := s.Dir().Print(a) + "\x00" + s.Dir().Print(b) + "\x00"; string(text) != want {
		t.Errorf("holds %q, want %q", text, want)
	}
	f, err := os.OpenFile(files[0], os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != unix.EWOULDBLOCK {
		t.Error("the file counts as that of a dead process")
	}
	if all, err := s.TempRootPaths(); len(all) != 2 || err != nil {
		t.Error(all, err)
	}
	if err := roots.Close(); err != nil {
		t.Fatal(err)
	}
	if files := tempRootFiles(t, s); len(files) != 0 {
		t.Errorf("left %v", files)
	}
	if err := roots.Add(ctx, a); err == nil {
		t.Error("a closed set took a root")
	}
	if err := roots.Close(); err != nil {
		t.Error(err)
	}
}

// collector holds gc.lock and, once it listens, acknowledges roots.
type collector struct {
	lock     *os.File
	listener net.Listener
	roots    chan string
}

func startCollector(t *testing.T, s *Store) *collector {
	t.Helper()
	f, err := pathlock.OpenLockFile(filepath.Join(s.StateDir(), gcLockName), true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := pathlock.Flock(ctx, f, pathlock.Exclusive, nil); err != nil {
		t.Fatal(err)
	}
	return &collector{lock: f, roots: make(chan string, 1000)}
}

func (c *collector) listen(t *testing.T, s *Store) {
	t.Helper()
	path := filepath.Join(s.StateDir(), gcSocketName)
	os.MkdirAll(filepath.Dir(path), 0o755)
	var err error
	if c.listener, err = net.Listen("unix", path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.listener.Close() })
	go func() {
		for {
			conn, err := c.listener.Accept()
			if err != nil {
				return
			}
			go c.serve(conn)
		}
	}()
}

func (c *collector) serve(conn net.Conn) {
	defer conn.Close()
	lines := bufio.NewScanner(conn)
	for lines.Scan() {
		if strings.HasSuffix(lines.Text(), "-hangup") {
			return
		}
		c.roots <- lines.Text()
		conn.Write([]byte("1"))
	}
}

func TestTempRootsTellTheCollector(t *testing.T) {
	s := open(t, nil)
	roots := s.NewTempRoots()
	defer roots.Close()
	c := startCollector(t, s)
	added := make(chan error, 1)
	go func() { added <- roots.Add(ctx, mustPath(t, "early")) }()
	// It cannot be done before somebody listens.
	select {
	case err := <-added:
		t.Fatal("added while a collector runs that was not told", err)
	default:
	}
	c.listen(t, s)
	if err := <-added; err != nil {
		t.Fatal(err)
	}
	if got := <-c.roots; got != s.Dir().Print(mustPath(t, "early")) {
		t.Error(got)
	}
	// The collector breaks off and ends: the lock is asked for again.
	go func() { added <- roots.Add(ctx, mustPath(t, "hangup")) }()
	c.lock.Close()
	if err := <-added; err != nil {
		t.Fatal(err)
	}
	if all, err := s.TempRootPaths(); len(all) != 2 || err != nil {
		t.Error(all, err)
	}
	ended, cancel := context.WithTimeout(ctx, time.Millisecond)
	defer cancel()
	startCollector(t, s)
	c.listener.Close()
	if err := roots.Add(ended, mustPath(t, "late")); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

// The next collector, which may begin as soon as this one has answered, finds the root in the file.
func TestTempRootsAreWrittenFirst(t *testing.T) {
	s := open(t, nil)
	roots := s.NewTempRoots()
	defer roots.Close()
	startCollector(t, s)
	path := filepath.Join(s.StateDir(), gcSocketName)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	written := make(chan bool, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		line, _ := bufio.NewReader(conn).ReadString('\n')
		text, err := os.ReadFile(tempRootFiles(t, s)[0])
		written <- err == nil && strings.Contains(string(text), strings.TrimSuffix(line, "\n")+"\x00")
		conn.Write([]byte("1"))
	}()
	if err := roots.Add(ctx, mustPath(t, "first")); err != nil {
		t.Fatal(err)
	}
	if !<-written {
		t.Error("told before it was written")
	}
}

// TestTempRootAbandoned: the client goes away at the very moment in which the collector answers or hangs up.
func TestTempRootAbandoned(t *testing.T) {
	s := open(t, nil)
	c := startCollector(t, s)
	c.listen(t, s)
	for i := range 500 {
		roots := s.NewTempRoots()
		ctx, cancel := context.WithCancel(ctx)
		go func() {
			<-c.roots
			cancel()
		}()
		if err := roots.Add(ctx, mustPath(t, fmt.Sprintf("root-%d", i))); err != nil && !isCancel(err) {
			t.Error(err)
		}
		roots.Add(ctx, mustPath(t, "hangup")) // the collector does, and nobody wants it any more
		if err := roots.Add(t.Context(), mustPath(t, "next")); err != nil {
			t.Error("what was abandoned hinders the next:", err)
		}
		<-c.roots
		if err := roots.Close(); err != nil {
			t.Error(err)
		}
	}
}

func isCancel(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, os.ErrDeadlineExceeded)
}

func TestTempRootsOfReadOnlyStore(t *testing.T) {
	o := testOptions(t)
	s, err := Open(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	info := addText(t, s, "a", "hello")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	o.ReadOnly = true
	if s, err = Open(ctx, o); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	roots := s.NewTempRoots()
	defer roots.Close()
	if err := roots.Add(ctx, info.Path); err != nil {
		t.Error(err)
	}
	if files := tempRootFiles(t, s); len(files) != 0 {
		t.Errorf("wrote %v", files)
	}
	checkPath(t, s, info)
	if _, err := s.Invalidate(ctx, info.Path); err == nil {
		t.Error("a read-only store was changed")
	}
}

func TestRoots(t *testing.T) {
	s := open(t, nil)
	info := addText(t, s, "a", "hello")
	dir := t.TempDir()
	link := filepath.Join(dir, "sub", "result")
	got, err := s.AddPermRoot(ctx, info.Path, dir+"/./sub//result")
	if err != nil || got != link {
		t.Fatal(got, err)
	}
	if target, _ := os.Readlink(link); target != s.Dir().Print(info.Path) {
		t.Error(target)
	}
	auto, err := os.ReadDir(filepath.Join(s.StateDir(), "gcroots", "auto"))
	if err != nil || len(auto) != 1 {
		t.Fatal(auto, err)
	}
	if target, _ := os.Readlink(filepath.Join(s.StateDir(), "gcroots", "auto", auto[0].Name())); target != link {
		t.Error(target)
	}
	// Again, which replaces the link.
	if _, err := s.AddPermRoot(ctx, info.Path, link); err != nil {
		t.Error(err)
	}
	os.WriteFile(filepath.Join(dir, "file"), nil, 0o644)
	_, err = s.AddPermRoot(ctx, info.Path, filepath.Join(dir, "file"))
	if want := "cannot create symlink \"" + dir + "/file\"; already exists"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	inside := string(s.Dir()) + "/result"
	_, err = s.AddPermRoot(ctx, info.Path, inside)
	want := "creating a garbage collector root (\"" + inside + "\") in the Nix store is forbidden (are you running nix-build inside the store?)"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}
