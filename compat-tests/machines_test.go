package compat

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// elsewhere prepares a scratch for builds on another machine, whose store lies
// beneath far and whose builders see the directory busy.
func elsewhere(t *testing.T) (s scratch, busy string) {
	t.Helper()
	if err := namespaces(); err != nil {
		t.Skip(err)
	}
	s = newScratch(t)
	busy = s.path("busy")
	if err := os.Mkdir(busy, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(busy, 0o777); err != nil {
		t.Fatal(err)
	}
	s.configure(t, "sandbox = true\nsandbox-fallback = false\nsandbox-paths = /bin? /lib? /lib64? /usr "+busy+"\n"+
		"build-poll-interval = 1\nbuilders = @"+s.path("etc/machines")+"\n")
	return s, busy
}

// alone is a script that notices when it does not run alone, and ends when the
// file that is called go, or as it does, is there.
func alone(busy, name string) string {
	return fmt.Sprintf("cd %s; mkdir running || echo > two-at-once; echo > began-%[2]s; "+
		"until [ -e go ] || [ -e go-%[2]s ]; do sleep 0.02; done; rmdir running; echo %[2]s > $out", busy, name)
}

// asker is a client that has something built.
type asker struct {
	cmd  *exec.Cmd
	said lockedBuffer
	done chan error
}

func ask(t *testing.T, s scratch, c client, socket string, args ...string) *asker {
	t.Helper()
	a := &asker{cmd: exec.Command(c.program("nix-build").path, append([]string{"--max-jobs", "0"}, args...)...), done: make(chan error, 1)}
	a.cmd.Env = append(s.clientEnv(c), "NIX_REMOTE=unix://"+socket)
	a.cmd.Dir = s.path("home")
	a.cmd.Stdout, a.cmd.Stderr = &a.said, &a.said
	if err := a.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { a.done <- a.cmd.Wait() }()
	t.Cleanup(func() {
		_ = a.cmd.Process.Kill() // if it has not ended, it shall
	})
	return a
}

// wait waits for the client's success.
func (a *asker) wait(t *testing.T) {
	t.Helper()
	if err := <-a.done; err != nil {
		t.Errorf("%v\n%s", err, a.said.String())
	}
}

// hears waits until the client says something.
func (a *asker) hears(t *testing.T, text string) {
	t.Helper()
	if err := poll(waitLimit, func() error {
		if !strings.Contains(a.said.String(), text) {
			return fmt.Errorf("no %q in %q", text, a.said.String())
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// begins waits until what it has built has made a file.
func (a *asker) begins(t *testing.T, file string) {
	t.Helper()
	if err := poll(waitLimit, func() error { _, err := os.Stat(file); return err }); err != nil {
		t.Fatalf("%v: %s", err, a.said.String())
	}
}

func touch(t *testing.T, file string) {
	t.Helper()
	if err := os.WriteFile(file, nil, 0o666); err != nil {
		t.Fatal(err)
	}
}

// TestMachineShared has our daemon and upstream's, with its build hook, use one
// machine that takes one build at a time. Each sees the other's build in the
// directory current-load, waits, and builds when that has ended.
func TestMachineShared(t *testing.T) {
	clients := requireClients(t)
	c := clients[len(clients)-1]
	s, busy := elsewhere(t)
	s.configureClient(t, c)
	line := fmt.Sprintf("ssh-ng://localhost?remote-program=%s&remote-store=%s - - 1 1\n", c.program("nix-daemon").path, s.path("far"))
	if err := os.WriteFile(s.path("etc/machines"), []byte(line), 0o644); err != nil {
		t.Fatal(err)
	}
	theirs := s.path("theirs.socket")
	startDaemon(t, s, shared.daemon, daemonOptions{})
	s.initialise(t, c)
	startDaemon(t, s, c.program("nix-daemon"), daemonOptions{socket: theirs, env: []string{"NIX_DAEMON_SOCKET_PATH=" + theirs}})

	for _, turn := range []struct{ name, first, second string }{{"ours-first", s.socket(), theirs}, {"theirs-first", theirs, s.socket()}} {
		a := ask(t, s, c, turn.first, build(shell(turn.name, alone(busy, turn.name)))...)
		a.begins(t, filepath.Join(busy, "began-"+turn.name))
		late := turn.name + "-late"
		b := ask(t, s, c, turn.second, build(shell(late, alone(busy, late)))...)
		b.hears(t, "waiting for a machine to build")
		touch(t, filepath.Join(busy, "go-"+turn.name))
		a.wait(t)
		b.begins(t, filepath.Join(busy, "began-"+late))
		touch(t, filepath.Join(busy, "go-"+late))
		b.wait(t)
	}
	touch(t, filepath.Join(busy, "go"))
	var all sync.WaitGroup
	for i, socket := range []string{s.socket(), theirs, s.socket(), theirs} {
		name := fmt.Sprint("crowd-", i)
		a := ask(t, s, c, socket, build(shell(name, alone(busy, name)))...)
		all.Go(func() { a.wait(t) })
	}
	all.Wait()
	if _, err := os.Stat(filepath.Join(busy, "two-at-once")); err == nil {
		t.Error("the machine had two builds at once")
	}
	slots, err := filepath.Glob(s.path("var/nix/current-load/*-0"))
	if err != nil || len(slots) != 1 {
		t.Errorf("slots %q, %v", slots, err)
	}
}

// TestLogins builds one thing after the other on a machine behind an OpenSSH
// server: one login serves them all, in both protocols, and each build has its
// whole log. That is so, too, for people whose own configuration shares
// connections: one that is there is used, and outlives the daemon.
func TestLogins(t *testing.T) {
	if err := noSSH(); err != nil {
		t.Skip(err)
	}
	clients := requireClients(t)
	c := clients[len(clients)-1]
	for _, scheme := range []string{"ssh", "ssh-ng"} {
		for _, own := range []string{"", "shared", "shared already"} {
			t.Run(strings.TrimSpace(scheme+" "+own), func(t *testing.T) { loginOnce(t, c, scheme, own) })
		}
	}
}

func loginOnce(t *testing.T, c client, scheme, own string) {
	s, _ := elsewhere(t)
	s.configureClient(t, c)
	if err := os.WriteFile(s.path("etc/machines"), []byte(scheme+"://far - - 1 1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	m := startMachine(t, s, c.program("nix-daemon"), "local?root="+s.path("far"), false)
	if own != "" {
		shareOwn(t, s)
	}
	switch own {
	case "shared": // there may be a connection at the end: that of who has none of our own
		defer exec.Command("ssh", "-F", s.path("ssh/config"), "-O", "exit", "far").Run()
	case "shared already":
		mustSSH(t, s, "-fN", "far")
		defer mustSSH(t, s, "-O", "exit", "far")
	}
	d := startDaemon(t, s, shared.daemon, daemonOptions{env: []string{"NIX_SSHOPTS=-F " + s.path("ssh/config")}})
	for i := range 4 {
		buildLogged(t, s, c, fmt.Sprint("logged-", i))
	}
	if n := strings.Count(m.log.String(), "Accepted publickey"); n != 1 {
		t.Errorf("%d logins:\n%s", n, m.log.String())
	}
	mustStop(t, d)
	switch own {
	case "":
		m.stop()
	case "shared already":
		mustSSH(t, s, "-O", "check", "far")
	}
}

// shareOwn has ssh share connections without being asked to.
func shareOwn(t *testing.T, s scratch) {
	t.Helper()
	config, err := os.OpenFile(s.path("ssh/config"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = fmt.Fprintf(config, "\nHost *\n  ControlMaster auto\n  ControlPath %s\n  ControlPersist yes\n", s.path("ssh/own"))
	if err := errors.Join(err, config.Close()); err != nil {
		t.Fatal(err)
	}
}

func mustSSH(t *testing.T, s scratch, args ...string) {
	t.Helper()
	cmd := exec.Command("ssh", append([]string{"-F", s.path("ssh/config")}, args...)...)
	// One that stays holds on to what it has.
	if err := cmd.Run(); err != nil {
		t.Fatalf("ssh %s: %v", strings.Join(args, " "), err)
	}
}

// buildLogged builds something that says much, and wants to hear all of it in its order.
func buildLogged(t *testing.T, s scratch, c client, name string) {
	t.Helper()
	const lines = 500
	a := ask(t, s, c, s.socket(), build(shell(name, fmt.Sprintf("seq -f '%s says %%g' %d >&2; echo > $out", name, lines)))...)
	a.wait(t)
	n := 0
	for line := range strings.Lines(a.said.String()) {
		if !strings.Contains(line, " says ") {
			continue
		}
		if n++; !strings.HasSuffix(line, fmt.Sprintf("%s says %d\n", name, n)) {
			t.Fatalf("line %d of %s is %q", n, name, line)
		}
	}
	if n != lines {
		t.Errorf("%s has %d lines", name, n)
	}
}
