package supervisor_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"nixdaemon/daemon/supervisor"
)

// behaviour names, in a file that tests can change, what kind of server this program is.
const behaviour = "SUPERVISOR_TEST_BEHAVIOUR"

func TestMain(m *testing.M) {
	file := os.Getenv(behaviour)
	if file == "" {
		os.Exit(m.Run())
	}
	kind, err := os.ReadFile(file)
	if err != nil {
		panic(err)
	}
	os.Exit(serve(string(kind)))
}

// serve is a server: it greets each client with its process number, then answers each line with it.
func serve(kind string) int {
	control, listeners, err := supervisor.Inherited()
	if err != nil || control == nil || len(listeners) != 1 {
		return 99
	}
	if kind == "broken" {
		return 3
	}
	for _, name := range []string{"_NIXDAEMON_SUPERVISED", "NOTIFY_SOCKET"} {
		if _, ok := os.LookupEnv(name); ok {
			return 98
		}
	}
	control.Patience()
	var wait sync.WaitGroup
	var clients atomic.Int64
	stop, drain := context.WithCancel(context.Background())
	defer context.AfterFunc(stop, func() { listeners[0].Close() })()
	go control.Obey(supervisor.Orders{
		Drain:  func() int { drain(); return int(clients.Load()) },
		Cancel: func() { os.Exit(0) },
		Alive: func() {
			if kind == "deaf" {
				select {}
			}
		},
	})
	if kind == "slow" {
		control.Status(fmt.Sprint("kind slow ", os.Getpid()))
		select {}
	}
	control.Status("kind " + kind)
	control.Ready()
	for {
		conn, err := listeners[0].Accept()
		if err != nil {
			break
		}
		clients.Add(1)
		wait.Go(func() {
			defer clients.Add(-1)
			defer conn.Close()
			fmt.Fprintf(conn, "%d\n", os.Getpid())
			for lines := bufio.NewScanner(conn); lines.Scan(); {
				if lines.Text() == "die" {
					os.Exit(1)
				}
				fmt.Fprintf(conn, "%d\n", os.Getpid())
			}
		})
	}
	wait.Wait()
	return 0
}

// world is a supervisor under test.
type world struct {
	t       *testing.T
	socket  string
	inode   uint64 // of the listening socket
	kind    string // file
	signals chan os.Signal
	ended   chan error

	mu   sync.Mutex
	said []string
	pid  int // of a slow server
	more chan struct{}
}

func begin(t *testing.T, kind string, change func(*supervisor.Options)) *world {
	t.Helper()
	dir, err := os.MkdirTemp("", "sup")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	w := &world{
		t: t, socket: filepath.Join(dir, "socket"), kind: filepath.Join(dir, "kind"),
		signals: make(chan os.Signal, 8), ended: make(chan error, 1), more: make(chan struct{}, 1000),
	}
	w.become(kind)
	l, err := net.Listen("unix", w.socket)
	if err != nil {
		t.Fatal(err)
	}
	f, err := l.(*net.UnixListener).File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		f.Close()
		l.Close()
	})
	var st syscall.Stat_t
	if err := syscall.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	w.inode = st.Ino
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	o := supervisor.Options{
		Program: self, Args: []string{"server"}, Env: []string{behaviour + "=" + w.kind, "GOTRACEBACK=none"},
		Listeners: []int{int(f.Fd())}, Notify: w.notify, Log: zerolog.New(zerolog.NewTestWriter(t)),
	}
	if change != nil {
		change(&o)
	}
	s := supervisor.New(o)
	go func() { w.ended <- s.Run(w.signals) }()
	t.Cleanup(func() {
		w.signals <- syscall.SIGINT
		w.signals <- syscall.SIGINT
		select {
		case <-w.ended:
		case <-time.After(time.Minute):
			t.Error("the supervisor goes on")
		}
	})
	return w
}

func (w *world) become(kind string) {
	w.t.Helper()
	if err := os.WriteFile(w.kind, []byte(kind), 0o644); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) notify(state string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.said = append(w.said, state)
	fmt.Sscanf(state, "STATUS=kind slow %d", &w.pid)
	select {
	case w.more <- struct{}{}:
	default:
	}
}

// hears waits until the service manager is told something that begins so, and forgets it and what came before.
func (w *world) hears(prefix string) {
	w.t.Helper()
	for {
		w.mu.Lock()
		for i, s := range w.said {
			if strings.HasPrefix(s, prefix) {
				w.said = w.said[i+1:]
				w.mu.Unlock()
				return
			}
		}
		all := strings.Join(w.said, " | ")
		w.mu.Unlock()
		select {
		case <-w.more:
		case <-time.After(time.Minute):
			w.t.Fatalf("the service manager never heard %q, but %s", prefix, all)
		}
	}
}

// client is connected to a server.
type client struct {
	net.Conn
	r   *bufio.Reader
	pid int
}

func (w *world) client() *client {
	w.t.Helper()
	conn, err := net.Dial("unix", w.socket)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { conn.Close() })
	c := &client{Conn: conn, r: bufio.NewReader(conn)}
	if c.pid, err = c.answer(); err != nil {
		w.t.Fatal(err)
	}
	return c
}

func (c *client) answer() (int, error) {
	c.SetDeadline(time.Now().Add(time.Minute))
	line, err := c.r.ReadString('\n')
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(line))
}

func (c *client) ask(t *testing.T) {
	t.Helper()
	io.WriteString(c, "who\n")
	if pid, err := c.answer(); err != nil || pid != c.pid {
		t.Errorf("answered by %d, %v; it was %d", pid, err, c.pid)
	}
}

func runs(pid int) bool { return syscall.Kill(pid, 0) == nil }

func (w *world) awaitEnd(pid int) {
	w.t.Helper()
	for end := time.Now().Add(time.Minute); runs(pid); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("process %d goes on", pid)
		}
	}
}

func TestReload(t *testing.T) {
	w := begin(t, "first", nil)
	w.hears("EXTEND_TIMEOUT_USEC=60000000")
	w.hears("READY=1")
	old := w.client()
	w.become("second")
	w.signals <- syscall.SIGHUP
	w.hears("RELOADING=1\nMONOTONIC_USEC=")
	w.hears("READY=1")
	w.hears("STATUS=kind second; 1 earlier servers")
	fresh := w.client()
	for fresh.pid == old.pid { // it has not heard yet that it shall drain
		fresh.ask(t)
		fresh.Close()
		fresh = w.client()
	}
	old.ask(t)
	fresh.ask(t)
	old.Close()
	w.awaitEnd(old.pid)
	w.hears("STATUS=kind second")
	fresh.ask(t)
}

// A server that drains keeps no copy of the listening socket: once the supervisor has left, too, clients could connect
// to that, and nobody would ever answer.
func TestDrainingClosesSocket(t *testing.T) {
	if _, err := os.Stat("/proc/self/fd"); err != nil {
		t.Skip("no /proc here that shows other processes' descriptors")
	}
	w := begin(t, "first", nil)
	w.hears("READY=1")
	old := w.client()
	if holds(t, old.pid, w.inode) == 0 {
		t.Fatal("the server does not hold the listening socket, or the test does not see it")
	}
	w.signals <- syscall.SIGHUP
	w.hears("RELOADING=1")
	w.hears("READY=1")
	for end := time.Now().Add(time.Minute); holds(t, old.pid, w.inode) > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the draining server holds the listening socket")
		}
	}
	old.ask(t)
}

// holds counts a process's descriptors of a socket.
func holds(t *testing.T, pid int, inode uint64) int {
	t.Helper()
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil || len(fds) == 0 {
		t.Fatalf("descriptors of %d: %v", pid, err)
	}
	n := 0
	for _, fd := range fds {
		if target, err := os.Readlink(fd); err == nil && target == fmt.Sprintf("socket:[%d]", inode) {
			n++
		}
	}
	return n
}

// A server that does not start does not take over.
func TestReloadFails(t *testing.T) {
	w := begin(t, "first", nil)
	w.hears("READY=1")
	old := w.client()
	w.become("broken")
	w.signals <- syscall.SIGHUP
	w.hears("RELOADING=1")
	w.hears("READY=1")
	old.ask(t)
	if again := w.client(); again.pid != old.pid {
		t.Error("another server accepts")
	}
}

func TestCrash(t *testing.T) {
	w := begin(t, "first", nil)
	w.hears("READY=1")
	for range 3 {
		c := w.client()
		io.WriteString(c, "die\n")
		if _, err := c.answer(); err == nil {
			t.Error("the server lives")
		}
		w.hears("READY=1")
		if again := w.client(); again.pid == c.pid {
			t.Error("the dead answer")
		}
	}
}

// What cannot start at all ends the supervisor with the server's status.
func TestNeverStarts(t *testing.T) {
	w := begin(t, "broken", nil)
	err := <-w.ended
	var start *supervisor.StartError
	if !errors.As(err, &start) || start.State.ExitCode() != 3 {
		t.Errorf("got %v", err)
	}
	w.ended <- nil
}

// Clients find the socket when somebody serves, or when that takes long.
func TestPublish(t *testing.T) {
	for _, kind := range []string{"first", "slow"} {
		published := make(chan struct{}, 2)
		w := begin(t, kind, func(o *supervisor.Options) {
			o.Publish = func() error {
				published <- struct{}{}
				return nil
			}
		})
		<-published
		if kind == "first" {
			w.hears("READY=1")
			w.signals <- syscall.SIGHUP
			w.hears("RELOADING=1")
			w.hears("READY=1")
		}
		if len(published) > 0 {
			t.Errorf("%s: published twice", kind)
		}
	}
	w := begin(t, "first", func(o *supervisor.Options) {
		o.Publish = func() error { return errors.New("no place for it") }
	})
	if err := <-w.ended; err == nil || err.Error() != "no place for it" {
		t.Errorf("got %v", err)
	}
	w.ended <- nil
}

// One that is killed before it was ready is replaced as any.
func TestKilledAtStart(t *testing.T) {
	w := begin(t, "slow", nil)
	w.hears("STATUS=kind slow ")
	w.become("first")
	w.mu.Lock()
	pid := w.pid
	w.mu.Unlock()
	syscall.Kill(pid, syscall.SIGKILL)
	w.hears("READY=1")
	if c := w.client(); c.pid == pid {
		t.Error("the dead answer")
	}
}

func TestNoProgram(t *testing.T) {
	w := begin(t, "first", func(o *supervisor.Options) { o.Program = "/nonexistent/program" })
	if err := <-w.ended; err == nil || !strings.Contains(err.Error(), "start '/nonexistent/program'") {
		t.Errorf("got %v", err)
	}
	w.ended <- nil
}

// SIGTERM leaves clients alone.
func TestTerminate(t *testing.T) {
	w := begin(t, "first", nil)
	w.hears("READY=1")
	c := w.client()
	w.signals <- syscall.SIGTERM
	w.hears("STOPPING=1")
	if err := <-w.ended; err != nil {
		t.Error(err)
	}
	w.ended <- nil
	c.ask(t)
	c.Close()
	w.awaitEnd(c.pid)
}

// Without clients nothing is left when the supervisor has gone.
func TestTerminateIdle(t *testing.T) {
	w := begin(t, "first", nil)
	w.hears("READY=1")
	c := w.client()
	c.Close()
	w.signals <- syscall.SIGTERM
	if err := <-w.ended; err != nil {
		t.Error(err)
	}
	w.ended <- nil
	if runs(c.pid) {
		// It may still have had the client when it was asked.
		w.awaitEnd(c.pid)
	}
}

// SIGINT, and as process 1 SIGTERM, waits for clients; a second signal does not.
func TestInterrupt(t *testing.T) {
	for _, first := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		w := begin(t, "first", func(o *supervisor.Options) { o.Stay = first == syscall.SIGTERM })
		w.hears("READY=1")
		patient, impatient := w.client(), w.client()
		w.signals <- first
		w.hears("STOPPING=1")
		patient.ask(t)
		patient.Close()
		impatient.ask(t)
		select {
		case err := <-w.ended:
			t.Errorf("%v: left a client: %v", first, err)
		default:
		}
		w.signals <- first
		if err := <-w.ended; err != nil {
			t.Error(err)
		}
		w.ended <- nil
		if runs(impatient.pid) {
			t.Error("a server is left")
		}
	}
}

// A server that does not answer is replaced; the service manager hears of the supervisor all the time.
func TestSilence(t *testing.T) {
	w := begin(t, "deaf", func(o *supervisor.Options) {
		o.Silence, o.Watchdog = 300*time.Millisecond, 20*time.Millisecond
	})
	w.hears("READY=1")
	c := w.client()
	w.become("lively")
	for range 10 {
		w.hears("WATCHDOG=1")
	}
	w.awaitEnd(c.pid)
	w.hears("READY=1")
	if again := w.client(); again.pid == c.pid {
		t.Error("the dead answer")
	}
}

// A server whose supervisor has died finishes.
func TestOrphan(t *testing.T) {
	w := begin(t, "first", func(o *supervisor.Options) { o.Leave = time.Millisecond })
	w.hears("READY=1")
	c := w.client()
	w.signals <- syscall.SIGTERM
	<-w.ended
	w.ended <- nil
	c.ask(t)
	// It hears of the death a moment later.
	for end := time.Now().Add(time.Minute); accepts(t, w.socket); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("an orphan goes on accepting")
		}
	}
	c.ask(t)
}

// accepts tells whether a server answers at the socket, which is the test's and so can always be connected to.
func accepts(t *testing.T, socket string) bool {
	t.Helper()
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(50 * time.Millisecond))
	n, err := conn.Read(make([]byte, 1))
	return n > 0 || !errors.Is(err, os.ErrDeadlineExceeded)
}
