package compat

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
)

// asking is a client's program that runs as one of the accounts.
type asking struct {
	cmd    *exec.Cmd
	stdout strings.Builder
	stderr lockedBuffer
	done   chan struct{} // closed once err is set
	err    error
}

// ask starts it. No user is the test's own.
func (s scratch) ask(t testing.TB, c client, user, name string, args ...string) *asking {
	t.Helper()
	argv := append([]string{filepath.Join(c.bin, name)}, args...)
	home := s.path("home")
	if user != "" {
		home = s.path("home-" + user)
		uid, gid, err := account(user)
		if err == nil {
			argv, err = asUser(user, argv)
		}
		if err := errors.Join(err, os.MkdirAll(home, 0o700), os.Chown(home, uid, gid)); err != nil {
			t.Fatal(err)
		}
	}
	a := &asking{cmd: exec.Command(argv[0], argv[1:]...), done: make(chan struct{})}
	a.cmd.Env = append(s.clientEnv(c), "HOME="+home, "USER="+user)
	a.cmd.Dir = home
	a.cmd.Stdout, a.cmd.Stderr = &a.stdout, &a.stderr
	if err := a.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		a.err = a.cmd.Wait()
		close(a.done)
	}()
	t.Cleanup(a.stop)
	return a
}

// stop ends it if it still runs.
func (a *asking) stop() {
	a.cmd.Process.Kill()
	<-a.done
}

// must waits for its success and returns what it printed.
func (a *asking) must(t testing.TB) string {
	t.Helper()
	<-a.done
	if a.err != nil {
		t.Fatalf("%v\n%s", a.err, a.stderr.String())
	}
	return strings.TrimSpace(a.stdout.String())
}

// forUsers runs f with every client on a store of its own, that several users may use.
func forUsers(t *testing.T, f func(t *testing.T, s scratch, c client)) {
	if err := otherUsers(); err != nil {
		t.Skip(err)
	}
	forEachClient(t, f)
}

// lines counts those of a file.
func lines(t testing.TB, file string) int {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return strings.Count(string(text), "\n")
}

func awaitLines(t testing.TB, file string, n int) {
	t.Helper()
	if err := poll(waitLimit, func() error {
		if got := lines(t, file); got < n {
			return fmt.Errorf("%s has %d lines, want %d", file, got, n)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// TestFairBetweenUsers: somebody who comes with one derivation, after another user has come with 500, is done long
// before them, although the other's fill all slots.
func TestFairBetweenUsers(t *testing.T) {
	forUsers(t, func(t *testing.T, s scratch, c client) {
		s.configure(t, "max-jobs = 2\nmax-total-jobs = 2\n")
		d := startDaemon(t, s, shared.daemon, daemonOptions{users: true})
		count := s.path("tmp/count")
		if err := os.WriteFile(count, nil, 0o666); err != nil {
			t.Fatal(err)
		}
		many := s.ask(t, c, "alice", "nix-build", "--no-out-link", "-E",
			fmt.Sprintf("map (i: %s) (builtins.genList (i: toString i) 500)",
				strings.Replace(shell("many", "echo run >> "+count+"; sleep 0.02; echo > $out"), `"many"`, `"many-${i}"`, 1)))
		awaitLines(t, count, 4)
		one := s.ask(t, c, "bob", "nix-build", build(shell("one", "echo > $out"))...)
		before := lines(t, count)
		if out := one.must(t); out == "" {
			t.Error("no output")
		}
		// What begins while a client starts and ends is its own time, not that of its waiting.
		if after := lines(t, count); after > 250 {
			t.Errorf("%d of the other's 500 were begun when the one came, %d when it was done", before, after)
		}
		select {
		case <-many.done:
			t.Errorf("the 500 are over: %v\n%s", many.err, many.stderr.String())
		default:
		}
		many.stop()
		mustStop(t, d)
	})
}

// TestJoinedAcrossUsers: what two users want is built once. Who comes later sees the log from its beginning.
func TestJoinedAcrossUsers(t *testing.T) {
	forUsers(t, func(t *testing.T, s scratch, c client) {
		d := startDaemon(t, s, shared.daemon, daemonOptions{users: true})
		begun, proceed := s.path("tmp/begun"), s.path("tmp/proceed")
		expr := shell("both", fmt.Sprintf("echo first words; echo run >> %s; until [ -e %s ]; do sleep 0.02; done; echo last words; echo > $out", begun, proceed))
		first := s.ask(t, c, "alice", "nix-build", build(expr)...)
		awaitLines(t, begun, 1)
		second := s.ask(t, c, "bob", "nix-build", build(expr)...)
		// It has been told what was said before it came. Clients before 2.4 show no log of builds through a daemon.
		shows := compareVersions(c.version, "2.4") >= 0
		if err := poll(waitLimit, func() error {
			if shows && !strings.Contains(second.stderr.String(), "first words") {
				return fmt.Errorf("the second has seen %q", second.stderr.String())
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
		if err := os.WriteFile(proceed, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		a, b := first.must(t), second.must(t)
		if a != b || a == "" || lines(t, begun) != 1 {
			t.Errorf("outputs %q and %q, built %d times", a, b, lines(t, begun))
		}
		for _, asking := range []*asking{first, second} {
			if got := asking.stderr.String(); shows && (strings.Count(got, "first words") != 1 || strings.Count(got, "last words") != 1) {
				t.Errorf("log\n%s", got)
			}
		}
		mustStop(t, d)
		s.verify(t, shared.clients[referenceVersion])
	})
}

// storeHash is what depends on where the store is.
var storeHash = regexp.MustCompile(`'/[^']*/[0-9a-z]{32}-`)

var lockWait = regexp.MustCompile(`(?m)^.*waiting for lock on.*$`)

// TestForeignBuilderIsWaitedFor: a process of upstream's that uses the store directly builds what a client wants. The
// client is told what it waits for, in the reference's words, and nothing is built twice.
func TestForeignBuilderIsWaitedFor(t *testing.T) {
	clients := requireClients(t)
	c, reference := clients[len(clients)-1], shared.clients[referenceVersion]
	told := make(map[string]string)
	var mu sync.Mutex
	t.Run("daemons", func(t *testing.T) {
		for name, p := range map[string]program{"reference": reference.program("nix-daemon"), "ours": shared.daemon} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				s := newScratch(t)
				s.configureClient(t, c)
				d := startDaemon(t, s, p, daemonOptions{})
				s.initialise(t, c)
				begun, proceed := s.path("tmp/begun"), s.path("tmp/proceed")
				expr := shell("foreign", fmt.Sprintf("echo run >> %s; until [ -e %s ]; do sleep 0.02; done; echo > $out", begun, proceed))
				foreign := make(chan string, 1)
				go func() {
					out, err := s.run(t, reference, directEnv, "nix-build", build(expr)...)
					if err != nil {
						t.Error(err)
					}
					foreign <- out
				}()
				awaitLines(t, begun, 1)
				asking := s.ask(t, c, "", "nix-build", build(expr)...)
				if err := poll(waitLimit, func() error {
					if !lockWait.MatchString(asking.stderr.String()) {
						return fmt.Errorf("told %q", asking.stderr.String())
					}
					return nil
				}); err != nil {
					t.Error(err)
				}
				if err := os.WriteFile(proceed, nil, 0o644); err != nil {
					t.Fatal(err)
				}
				if a, b := asking.must(t), <-foreign; a != b || lines(t, begun) != 1 {
					t.Errorf("outputs %q and %q, built %d times", a, b, lines(t, begun))
				}
				mu.Lock()
				told[name] = storeHash.ReplaceAllString(lockWait.FindString(asking.stderr.String()), "'HASH-")
				mu.Unlock()
				mustStop(t, d)
				s.verify(t, reference)
			})
		}
	})
	if told["ours"] != told["reference"] || told["ours"] == "" {
		t.Errorf("told %q", told)
	}
}
