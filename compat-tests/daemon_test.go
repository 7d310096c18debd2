package compat

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	// How long a daemon of upstream's may take for its socket, and to end. Ours
	// are held to more, see patience.
	startLimit = time.Minute
	stopLimit  = time.Minute
	// waitLimit is for whatever a scenario waits for.
	waitLimit = 2 * time.Minute
)

// daemon is a running daemon, of whichever make, serving a scratch.
type daemon struct {
	scratch scratch
	program program
	cmd     *exec.Cmd
	exited  chan struct{} // closed once err is set
	err     error
	log     lockedBuffer
}

// daemonOptions vary how a daemon is started; zero is the usual way.
type daemonOptions struct {
	args   []string // after --daemon
	env    []string // in addition
	users  bool     // with the accounts of accounts_test.go in its /etc
	socket string   // where it will listen; empty: the scratch's usual place
	// inherit is a listening socket to hand over as systemd does, stdin one to hand over as inetd and launchd do.
	inherit, stdin *os.File
}

// startDaemon starts a daemon and waits until it answers. When the test ends
// it is stopped if it still runs, and its log shown if the test failed.
func startDaemon(t testing.TB, s scratch, p program, opts daemonOptions) *daemon {
	t.Helper()
	d := launchDaemon(t, s, p, opts)
	socket := opts.socket
	if socket == "" {
		socket = s.socket()
	}
	if err := d.awaitSocket(socket); err != nil {
		t.Fatal(err)
	}
	return d
}

// launchDaemon is startDaemon without the waiting.
func launchDaemon(t testing.TB, s scratch, p program, opts daemonOptions) *daemon {
	t.Helper()
	d := &daemon{scratch: s, program: p, exited: make(chan struct{})}
	argv := append([]string{p.path, "--daemon"}, opts.args...)
	if opts.users {
		argv = withAccounts(t, s, argv)
	}
	if opts.inherit != nil {
		// LISTEN_PID must be the daemon's own.
		argv = append([]string{"/bin/sh", "-c", `LISTEN_PID=$$ exec "$0" "$@"`}, argv...)
		opts.env = append(slices.Clone(opts.env), "LISTEN_FDS=1")
	}
	d.cmd = exec.Command(argv[0], argv[1:]...)
	if opts.inherit != nil {
		d.cmd.ExtraFiles = []*os.File{opts.inherit}
	}
	if opts.stdin != nil {
		d.cmd.Stdin = opts.stdin
	}
	d.cmd.Env = append(s.daemonEnv(p), opts.env...)
	d.cmd.Dir = "/"
	// The main process may end before servers that have clients do: its end is
	// not that of the log.
	log, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	go func() {
		defer log.Close()
		io.Copy(&d.log, log)
	}()
	d.cmd.Stdout, d.cmd.Stderr = w, w
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		d.err = d.cmd.Wait()
		close(d.exited)
	}()
	t.Cleanup(func() { d.cleanup(t) })
	return d
}

func (d *daemon) awaitSocket(socket string) error {
	if d.isOurs() {
		return pollPatiently(startPatience, d.program.path, d.scratch.root, func() error { return d.listens(socket) })
	}
	return poll(startLimit, func() error { return d.listens(socket) })
}

// isOurs tells our daemon, or a copy of it, from those of upstream's releases.
func (d *daemon) isOurs() bool {
	for _, c := range shared.clients {
		if filepath.Dir(d.program.path) == c.bin {
			return false
		}
	}
	return true
}

func (d *daemon) listens(socket string) error {
	select {
	case <-d.exited:
		return fmt.Errorf("the daemon ended at once: %v\n%s", d.err, d.log.String())
	default:
	}
	return listening(socket)
}

// listening tells whether somebody listens at a socket, on Linux without
// connecting: upstream's workers get in each other's way when a new store has
// its first two connections at once.
func listening(socket string) error {
	table, err := os.ReadFile("/proc/net/unix")
	if os.IsNotExist(err) {
		return dial(socket)
	}
	for line := range strings.Lines(string(table)) {
		fields := strings.Fields(line)
		const acceptsConnections = "00010000"
		if len(fields) == 8 && fields[7] == socket && fields[3] == acceptsConnections {
			return err
		}
		// The kernel keeps the name that a socket was bound to; ours gets another when somebody serves it.
		if len(fields) == 8 && fields[7] == socket+".new" && fields[3] == acceptsConnections {
			if _, err := os.Stat(socket + ".new"); os.IsNotExist(err) {
				return nil
			}
		}
		// The oldest daemons bind to a relative name, which could be anybody's.
		if len(fields) == 8 && fields[7] == "./"+filepath.Base(socket) && dial(socket) == nil {
			return nil
		}
	}
	return fmt.Errorf("nobody listens at %s", socket)
}

func dial(socket string) error {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return err
	}
	return conn.Close()
}

// stop ends the daemon as a service manager would and tells what was not
// right about how it went.
func (d *daemon) stop() error {
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("the daemon had ended before: %w\n%s", err, d.log.String())
	}
	if d.isOurs() {
		if err := d.awaitEnd(stopPatience, d.scratch.root); err != nil {
			return err
		}
	} else {
		select {
		case <-d.exited:
		case <-time.After(stopLimit):
			d.kill() // upstream's hangs once in hundreds of times, which is not what is tested
			return nil
		}
	}
	if d.err != nil {
		return fmt.Errorf("exit status after SIGTERM: %w", d.err)
	}
	return nil
}

// awaitEnd waits for the end of a daemon that was told to.
func (d *daemon) awaitEnd(p patience, dir string) error {
	select {
	case <-d.exited:
		return nil
	case <-p.end(d.exited, d.program.path, dir):
		return fmt.Errorf("the daemon goes on %v after SIGTERM, while the machine did %d steps of work", p.least, p.steps)
	}
}

// kill ends the main process and those that it has started, supervisor and
// server, at once, as a lack of memory or a power cut does.
func (d *daemon) kill() {
	servers := childrenOf(d.cmd.Process.Pid)
	d.cmd.Process.Kill()
	for _, pid := range servers {
		syscall.Kill(pid, syscall.SIGKILL)
	}
	<-d.exited
}

// childrenOf are the processes that one has started; Linux only, elsewhere none.
func childrenOf(pid int) []int {
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	var pids []int
	for _, list := range lists {
		text, _ := os.ReadFile(list)
		for _, field := range strings.Fields(string(text)) {
			if child, err := strconv.Atoi(field); err == nil {
				pids = append(pids, child)
			}
		}
	}
	return pids
}

// cleanup makes sure that nothing goes on, however the test went.
func (d *daemon) cleanup(t testing.TB) {
	select {
	case <-d.exited:
	default:
		d.kill()
	}
	for _, p := range d.scratch.processes() {
		syscall.Kill(p, syscall.SIGKILL)
	}
	if t.Failed() {
		t.Logf("log of %s:\n%s", d.program.path, d.log.String())
	}
}

// awaitQuiet waits until no process of this scratch is left.
func (s scratch) awaitQuiet() error {
	return poll(waitLimit, func() error {
		var left []string
		for _, pid := range s.processes() {
			cmdline, _ := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
			left = append(left, fmt.Sprintf("%d (%s)", pid, bytes.ReplaceAll(cmdline, []byte{0}, []byte{' '})))
		}
		if len(left) > 0 {
			return fmt.Errorf("processes left behind: %s", strings.Join(left, ", "))
		}
		return nil
	})
}

// processes finds what belongs to this scratch: daemons, clients and builders
// all have its paths in their environment. Linux only; elsewhere none.
func (s scratch) processes() []int {
	environs, _ := filepath.Glob("/proc/[0-9]*/environ")
	var pids []int
	for _, file := range environs {
		env, err := os.ReadFile(file)
		if err != nil || !bytes.Contains(env, []byte("="+s.root+"/")) {
			continue
		}
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		pids = append(pids, pid)
	}
	return pids
}

// poll calls f until it succeeds, or returns its last error.
func poll(limit time.Duration, f func() error) error {
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	if err := pollUntil(deadline.C, f); err != nil {
		return fmt.Errorf("not within %v: %w", limit, err)
	}
	return nil
}

// pollUntil calls f until it succeeds, or returns its last error when ended says so.
func pollUntil[T any](ended <-chan T, f func() error) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-ended:
			return err
		case <-tick.C:
		}
	}
}

// runs tells whether a process goes on; one that only waits to be reaped does
// not.
func runs(pid int) bool {
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if errors.Is(err, os.ErrNotExist) {
		return false
	}
	_, state, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(state, "Z")
}

// lockedBuffer is a buffer that several goroutines may use.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
