package compat

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// run runs one of a client's programs to its end and returns what it printed.
func (s scratch) run(t testing.TB, c client, env []string, name string, args ...string) (stdout string, err error) {
	t.Helper()
	cmd := exec.Command(filepath.Join(c.bin, name), args...)
	cmd.Env = append(s.clientEnv(c), env...)
	cmd.Dir = s.path("home")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, stderr.String())
	}
	return strings.TrimSpace(string(out)), err
}

// must is run where nothing may go wrong.
func (s scratch) must(t testing.TB, c client, env []string, name string, args ...string) string {
	t.Helper()
	out, err := s.run(t, c, env, name, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// shell is an expression that makes its output with a shell script.
func shell(name, script string) string {
	return fmt.Sprintf(`derivation { name = %q; system = builtins.currentSystem; builder = "/bin/sh"; `+
		`args = [ "-ec" %q ]; PATH = "/usr/bin:/bin"; }`, name, script)
}

func build(expr string) []string { return []string{"--no-out-link", "-E", expr} }

// forEachClient runs f with every client on a store of its own.
func forEachClient(t *testing.T, f func(t *testing.T, s scratch, c client)) {
	for _, c := range requireClients(t) {
		t.Run(c.version, func(t *testing.T) {
			t.Parallel()
			s := newScratch(t)
			s.configureClient(t, c)
			f(t, s, c)
		})
	}
}

func mustStop(t testing.TB, d *daemon) {
	t.Helper()
	if err := d.stop(); err != nil {
		t.Error(err)
	}
	if err := d.scratch.awaitQuiet(); err != nil {
		t.Error(err)
	}
}

func TestStartAndStop(t *testing.T) {
	requireClients(t)
	s := newScratch(t)
	d := startDaemon(t, s, shared.daemon, daemonOptions{})
	info, err := os.Stat(s.socket())
	if err != nil {
		t.Fatal(err)
	}
	if want := os.ModeSocket | 0o666; info.Mode() != want {
		t.Errorf("socket mode %v, want %v", info.Mode(), want)
	}
	mustStop(t, d)

	// A socket file that is still there is no hindrance.
	d = startDaemon(t, s, shared.daemon, daemonOptions{})
	mustStop(t, d)
}

// TestStopWithClient ends the main process while a client builds: the build
// and its client go on, as with upstream's daemon.
func TestStopWithClient(t *testing.T) {
	forEachClient(t, func(t *testing.T, s scratch, c client) {
		d := startDaemon(t, s, shared.daemon, daemonOptions{})
		cmd, begun, proceed := s.startWaiting(t, c, "stopped")
		begun()
		if err := d.stop(); err != nil {
			t.Error(err)
		}
		proceed()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the client: %v", err)
		}
		if err := s.awaitQuiet(); err != nil {
			t.Error(err)
		}
	})
}

// TestStopWhatIsLeft ends the main process while a client builds, and then asks the server for its end, once, as systemd
// does with whatever is left when the machine goes down: nothing may keep it waiting.
func TestStopWhatIsLeft(t *testing.T) {
	forEachClient(t, func(t *testing.T, s scratch, c client) {
		d := startDaemon(t, s, shared.daemon, daemonOptions{})
		cmd, begun, proceed := s.startWaiting(t, c, "left")
		begun()
		servers := childrenOf(d.cmd.Process.Pid)
		if err := d.stop(); err != nil {
			t.Error(err)
		}
		for _, pid := range servers {
			if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
				t.Errorf("end server %d: %v", pid, err)
			}
		}
		if err := s.awaitQuiet(); err != nil {
			t.Error(err)
		}
		proceed()
		if err := cmd.Wait(); err == nil {
			t.Error("the client has not noticed")
		}
	})
}

// TestReload replaces the server, and the program, under a client that builds, on demand of somebody impatient.
func TestReload(t *testing.T) {
	forEachClient(t, func(t *testing.T, s scratch, c client) {
		own := s.path("tmp/nix-daemon")
		install := func() {
			t.Helper()
			// Not by this process: another of its tests may fork meanwhile, and the program would be busy.
			out, err := exec.Command("cp", shared.daemon.path, own+".new").CombinedOutput()
			if err := errors.Join(err, os.Rename(own+".new", own)); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
		}
		install()
		p := shared.daemon
		p.path = own
		d := startDaemon(t, s, p, daemonOptions{args: []string{"-v"}})
		cmd, begun, proceed := s.startWaiting(t, c, "reloaded")
		begun()
		install()
		if err := poll(waitLimit, func() error {
			// Before it says so it does not listen, but must not end either.
			d.cmd.Process.Signal(syscall.SIGHUP)
			if !strings.Contains(d.log.String(), "this is the new program") {
				return errors.New("no new program:\n" + d.log.String())
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		// The new server serves, the old one still does.
		s.must(t, c, nil, "nix-build", build(shell("after", "echo > $out"))...)
		proceed()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the client of the old server: %v", err)
		}
		mustStop(t, d)
	})
}

// TestServerKilled kills the server, not the supervisor: the next client finds
// another one.
func TestServerKilled(t *testing.T) {
	forEachClient(t, func(t *testing.T, s scratch, c client) {
		d := startDaemon(t, s, shared.daemon, daemonOptions{})
		cmd, begun, proceed := s.startWaiting(t, c, "killed")
		begun()
		for _, pid := range childrenOf(d.cmd.Process.Pid) {
			syscall.Kill(pid, syscall.SIGKILL)
		}
		if err := cmd.Wait(); err == nil {
			t.Error("the client has not noticed")
		}
		proceed()
		s.must(t, c, nil, "nix-build", build(shell("after", "echo > $out"))...)
		s.must(t, c, nil, "nix-store", "--verify", "--check-contents")
		mustStop(t, d)
	})
}

// startWaiting starts a client that builds something, which waits until it may
// proceed. begun waits until it does.
func (s scratch) startWaiting(t *testing.T, c client, name string) (cmd *exec.Cmd, begun, proceed func()) {
	t.Helper()
	started, free := s.path("tmp/"+name+".started"), s.path("tmp/"+name+".free")
	script := fmt.Sprintf("echo > %s; until [ -e %s ]; do sleep 0.05; done; echo > $out", started, free)
	cmd = exec.Command(filepath.Join(c.bin, "nix-build"), build(shell(name, script))...)
	cmd.Env, cmd.Dir = s.clientEnv(c), s.path("home")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	begun = func() {
		t.Helper()
		if err := poll(waitLimit, func() error {
			_, err := os.Stat(started)
			return err
		}); err != nil {
			cmd.Process.Kill()
			t.Fatal(err)
		}
	}
	proceed = func() {
		if err := os.WriteFile(free, nil, 0o644); err != nil {
			t.Error(err)
		}
	}
	return cmd, begun, proceed
}

func TestSocketPathFromEnvironment(t *testing.T) {
	clients := requireClients(t)
	// Longer than a socket's address may be; clients since 2.4 manage.
	c := clients[len(clients)-1]
	s := newScratch(t)
	s.configureClient(t, c)
	socket := s.path(strings.Repeat("long/", 30), "socket")
	env := []string{"NIX_DAEMON_SOCKET_PATH=" + socket}
	d := launchDaemon(t, s, shared.daemon, daemonOptions{env: env})
	err := poll(startLimit, func() error {
		_, err := os.Stat(socket)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	s.must(t, c, env, "nix-build", build(shell("far", "echo > $out"))...)
	mustStop(t, d)
}

// TestSocketActivation hands a listening socket over as systemd does.
func TestSocketActivation(t *testing.T) {
	activated(t, func(file *os.File) daemonOptions { return daemonOptions{inherit: file} })
}

// TestStandardInputActivation hands a listening socket over as inetd and launchd do.
func TestStandardInputActivation(t *testing.T) {
	activated(t, func(file *os.File) daemonOptions { return daemonOptions{stdin: file} })
}

func activated(t *testing.T, options func(*os.File) daemonOptions) {
	t.Helper()
	forEachClient(t, func(t *testing.T, s scratch, c client) {
		if err := os.MkdirAll(filepath.Dir(s.socket()), 0o755); err != nil {
			t.Fatal(err)
		}
		listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: s.socket(), Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		file, err := listener.File()
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		d := launchDaemon(t, s, shared.daemon, options(file))
		// Who connects before the daemon is up waits.
		out := s.must(t, c, nil, "nix-build", build(shell("activated", "echo > $out"))...)
		if _, err := os.Stat(out); err != nil {
			t.Error(err)
		}
		mustStop(t, d)
		if _, err := os.Stat(s.socket()); err != nil {
			t.Errorf("the service manager's socket is gone: %v", err)
		}
	})
}

// TestStdio talks through a pipe, as clients do over ssh.
func TestStdio(t *testing.T) {
	requireClients(t)
	s := newScratch(t)
	cmd := exec.Command(shared.daemon.path, "--stdio")
	cmd.Env = s.daemonEnv(shared.daemon)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// The client's magic number; the answer begins with the server's.
	if _, err := stdin.Write([]byte{0x63, 0x78, 0x69, 0x6e, 0, 0, 0, 0}); err != nil {
		t.Fatal(err)
	}
	var answer [8]byte
	if _, err := io.ReadFull(stdout, answer[:]); err != nil {
		t.Fatal(err)
	}
	if want := [8]byte{0x6f, 0x69, 0x78, 0x64}; answer != want {
		t.Errorf("answer % x, want % x", answer, want)
	}
	stdin.Close()
	io.Copy(io.Discard, stdout)
	var exit *exec.ExitError
	if err := cmd.Wait(); err != nil && !errors.As(err, &exit) {
		t.Error(err)
	}
}

// TestStateCleared removes everything beneath a running daemon, as an
// administrator or upstream's tests do, and expects it to notice.
func TestStateCleared(t *testing.T) {
	forEachClient(t, func(t *testing.T, s scratch, c client) {
		d := startDaemon(t, s, shared.daemon, daemonOptions{})
		expr := shell("cleared", "echo > $out")
		first := s.must(t, c, nil, "nix-build", build(expr)...)
		for _, dir := range []string{"store", "var/nix/db", "var/nix/gcroots", "var/nix/temproots", "var/nix/profiles", "var/log"} {
			removeTree(t, s.path(dir))
		}
		if err := os.Mkdir(s.path("store"), 0o755); err != nil {
			t.Fatal(err)
		}
		if out, err := s.run(t, c, nil, "nix-store", "--query", "--hash", first); err == nil {
			t.Errorf("a path of the cleared store is still valid: %s", out)
		}
		if again := s.must(t, c, nil, "nix-build", build(expr)...); again != first {
			t.Errorf("built %s, want %s", again, first)
		}
		if _, err := os.Stat(first); err != nil {
			t.Error(err)
		}
		s.must(t, c, nil, "nix-store", "--verify", "--check-contents")
		mustStop(t, d)
		s.verify(t, shared.clients[referenceVersion])
	})
}

// TestClientGone kills a client in mid-build and expects its builder, with all
// that it started, to go too, though it ignores what it can.
func TestClientGone(t *testing.T) {
	forEachClient(t, func(t *testing.T, s scratch, c client) {
		d := startDaemon(t, s, shared.daemon, daemonOptions{})
		pids := s.path("tmp/pids")
		script := fmt.Sprintf("trap '' TERM INT HUP; sleep 1000 & echo $$ $! > %[1]s.new; mv %[1]s.new %[1]s; wait; sleep 1000", pids)
		cmd := exec.Command(filepath.Join(c.bin, "nix-build"), build(shell("endless", script))...)
		cmd.Env, cmd.Dir = s.clientEnv(c), s.path("home")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var builder, child int
		err := poll(waitLimit, func() error {
			data, err := os.ReadFile(pids)
			if err != nil {
				return err
			}
			_, err = fmt.Sscan(string(data), &builder, &child)
			return err
		})
		cmd.Process.Kill()
		cmd.Wait()
		if err != nil {
			t.Fatal(err)
		}
		for _, pid := range []int{builder, child} {
			if err := poll(stopLimit, func() error {
				if runs(pid) {
					return fmt.Errorf("process %d goes on", pid)
				}
				return nil
			}); err != nil {
				t.Error(err)
			}
		}
		// The daemon is none the worse for it.
		s.must(t, c, nil, "nix-build", build(shell("after", "echo > $out"))...)
		mustStop(t, d)
	})
}

// A daemon that was killed, in whatever it was doing, is replaced by the next.
func TestKilled(t *testing.T) {
	clients := requireClients(t)
	c := clients[len(clients)-1]
	s := newScratch(t)
	s.configureClient(t, c)
	d := startDaemon(t, s, shared.daemon, daemonOptions{})
	out := s.must(t, c, nil, "nix-build", build(shell("lasting", "echo > $out"))...)
	d.cmd.Process.Signal(syscall.SIGKILL)
	<-d.exited
	for _, pid := range s.processes() {
		syscall.Kill(pid, syscall.SIGKILL)
	}
	d = startDaemon(t, s, shared.daemon, daemonOptions{})
	s.must(t, c, nil, "nix-store", "--check-validity", out)
	s.must(t, c, nil, "nix-store", "--verify", "--check-contents")
	mustStop(t, d)
}

// TestOtherAskerGoesOn kills one of two clients that wait for the same build;
// the other gets it.
func TestOtherAskerGoesOn(t *testing.T) {
	forEachClient(t, func(t *testing.T, s scratch, c client) {
		d := startDaemon(t, s, shared.daemon, daemonOptions{})
		begun, proceed := s.path("tmp/begun"), s.path("tmp/proceed")
		script := fmt.Sprintf("echo > %s; until [ -e %s ]; do sleep 0.05; done; echo > $out", begun, proceed)
		first := exec.Command(filepath.Join(c.bin, "nix-build"), build(shell("wanted", script))...)
		first.Env, first.Dir = s.clientEnv(c), s.path("home")
		if err := first.Start(); err != nil {
			t.Fatal(err)
		}
		err := poll(waitLimit, func() error {
			_, err := os.Stat(begun)
			return err
		})
		if err != nil {
			first.Process.Kill()
			first.Wait()
			t.Fatal(err)
		}
		type result struct {
			out string
			err error
		}
		second := make(chan result, 1)
		go func() {
			out, err := s.run(t, c, nil, "nix-build", build(shell("wanted", script))...)
			second <- result{out, err}
		}()
		first.Process.Kill()
		first.Wait()
		if err := os.WriteFile(proceed, nil, 0o644); err != nil {
			t.Error(err)
		}
		got := <-second
		if got.err != nil {
			t.Error(got.err)
		} else if _, err := os.Stat(got.out); err != nil {
			t.Error(err)
		}
		mustStop(t, d)
		s.verify(t, shared.clients[referenceVersion])
	})
}
