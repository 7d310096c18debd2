package compat

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// sightLimit is for what a test of this file waits for.
const sightLimit = 4 * time.Minute

// sighted is what these tests look at of the JSON form.
type sighted struct {
	Version int
	Servers []struct {
		State  string
		Builds []struct {
			ID, Derivation, State, Reason, Phase, LastLine string
			Users                                          []string
			Others                                         int
		}
		Waiting []struct {
			Kind, What, Reason string
			Open               int
			For                []struct{ Kind, What, State string }
			Users              []string
		}
		MoreWaiting int
		Connections []struct {
			User, Operation string
		}
		OtherConnections int
		Substitutions    []struct {
			Path, Cache, User string
			Done, Size        uint64
		}
		Collection *struct{ Action, Step, For string }
		Recent     []struct{ Kind, What, Outcome, Error string }
	}
}

// build finds a build by the derivation's name.
func (v *sighted) build(name string) (state, reason, phase, line, users string, others int, ok bool) {
	for _, s := range v.Servers {
		for _, b := range s.Builds {
			if strings.HasSuffix(b.Derivation, "-"+name+".drv") {
				return b.State, b.Reason, b.Phase, b.LastLine, strings.Join(b.Users, ","), b.Others, true
			}
		}
	}
	return
}

// program is where every account may run the daemon's program from.
func (s scratch) program(t testing.TB) string {
	t.Helper()
	own := s.path("sight/nix-daemon")
	if _, err := os.Stat(own); err == nil {
		return own
	}
	if err := os.MkdirAll(filepath.Dir(own), 0o755); err != nil {
		t.Fatal(err)
	}
	// By another process: what one of ours has open for writing when another test forks cannot be executed.
	out, err := exec.Command("cp", shared.daemon.path, own).CombinedOutput()
	if err := errors.Join(err, os.Chmod(own, 0o755)); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return own
}

// looking is the command of somebody who looks; no user is the test's own.
func (s scratch) looking(t testing.TB, c client, user string, args ...string) *exec.Cmd {
	t.Helper()
	argv := append([]string{s.program(t)}, args...)
	if user != "" {
		var err error
		if argv, err = asUser(user, argv); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env, cmd.Dir = append(s.clientEnv(c), "USER="+user), "/"
	return cmd
}

// look runs it and gives everything that it printed.
func (s scratch) look(t testing.TB, c client, user string, args ...string) (string, error) {
	t.Helper()
	out, err := s.looking(t, c, user, args...).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// sight is the status as somebody sees it.
func (s scratch) sight(t testing.TB, c client, user string) sighted {
	t.Helper()
	out, err := s.look(t, c, user, "status", "--json")
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var v sighted
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return v
}

// await looks until it sees what it wants.
func (s scratch) await(t testing.TB, c client, what string, want func(v *sighted) bool) {
	t.Helper()
	var v sighted
	if err := poll(sightLimit, func() error {
		if v = s.sight(t, c, ""); !want(&v) {
			return fmt.Errorf("never seen: %s; last: %+v", what, v)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// wantRefused wants that somebody may not.
func wantRefused(t testing.TB, out string, err error, text string) {
	t.Helper()
	if err == nil || !strings.Contains(out, text) {
		t.Errorf("got %q, %v; want a refusal with %q", out, err, text)
	}
}

// talker is a build that prints, waits for a file, and prints again.
func talker(name, free string) string {
	return shell(name, fmt.Sprintf(`echo say one; echo '@nix {"action":"setPhase","phase":"buildPhase"}'; printf 'say over\rsay two\n'; echo say three
until [ -e %s ]; do sleep 0.05; done; for i in $(seq 2000); do echo say $i; done; printf 'say last'; echo > $out`, free))
}

// said are the lines of a talker.
func said(text string) string {
	var lines []string
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "say ") {
			lines = append(lines, strings.TrimRight(line, "\r\n"))
		}
	}
	return strings.Join(lines, "\n")
}

// TestSight has several users look at what each other builds: they see it all, but their own in full; only the trusted
// see everything.
func TestSight(t *testing.T) {
	forUsers(t, func(t *testing.T, s scratch, c client) {
		s.configure(t, "max-jobs = 1\nmax-total-jobs = 1\ntrusted-users = root carol\n")
		d := startDaemon(t, s, shared.daemon, daemonOptions{users: true})
		free := s.path("tmp/free")
		alice := s.ask(t, c, "alice", "nix-build", build(talker("talks", free))...)
		s.await(t, c, "alice's build", func(v *sighted) bool {
			state, _, phase, line, users, _, ok := v.build("talks")
			return ok && state == "running" && phase == "buildPhase" && line == "say three" && users == "alice"
		})
		bob := s.ask(t, c, "bob", "nix-build", build(shell("waits", "echo > $out"))...)
		s.await(t, c, "bob's build", func(v *sighted) bool {
			state, _, _, _, users, _, ok := v.build("waits")
			return ok && state == "queued" && users == "bob"
		})
		for user, want := range map[string]string{
			"alice": "running buildPhase say three alice 0, queued   1, 1 of alice",
			"bob":   "running buildPhase   1, queued  bob 0, 1 of bob",
			"carol": "running buildPhase say three alice 0, queued  bob 0, 2 of alice",
		} {
			v := s.sight(t, c, user)
			state, _, phase, line, users, others, _ := v.build("talks")
			got := fmt.Sprintf("%s %s %s %s %d", state, phase, line, users, others)
			state, _, _, line, users, others, _ = v.build("waits")
			got += fmt.Sprintf(", %s %s %s %d", state, line, users, others)
			conns := v.Servers[0].Connections
			got += fmt.Sprintf(", %d of %s", len(conns), conns[0].User)
			if got != want || v.Version != 1 {
				t.Errorf("%s sees %q, want %q", user, got, want)
			}
			if n := len(conns) + v.Servers[0].OtherConnections; n != 2 {
				t.Errorf("%s sees %d clients", user, n)
			}
		}
		text, err := s.look(t, c, "bob", "status")
		if err != nil || !strings.Contains(text, "talks") || !strings.Contains(text, "buildPhase") || strings.Contains(text, "say three") {
			t.Errorf("bob sees %v\n%s", err, text)
		}

		out, err := s.look(t, c, "bob", "log", "--follow", "talks")
		wantRefused(t, out, err, "not allowed to see the log of")
		out, err = s.look(t, c, "bob", "cancel", "talks")
		wantRefused(t, out, err, "not allowed to cancel the build of")
		out, err = s.look(t, c, "bob", "cancel", "nothing")
		wantRefused(t, out, err, "there is no such build as 'nothing'")

		out, err = s.look(t, c, "alice", "log", "talks")
		wantRefused(t, out, err, "is not built yet; --follow reads its log along")

		// What somebody reads along is what the client shows.
		follow := s.looking(t, c, "alice", "log", "--follow", "talks")
		var followed strings.Builder
		follow.Stdout = &followed
		if err := follow.Start(); err != nil {
			t.Fatal(err)
		}
		if out, err := s.look(t, c, "bob", "cancel", "waits"); err != nil || !strings.HasSuffix(out, "-waits.drv'") {
			t.Errorf("bob cancels: %q, %v", out, err)
		}
		if <-bob.done; bob.err == nil || !strings.Contains(bob.stderr.String(), "was cancelled by user 'bob'") {
			t.Errorf("bob was told %q", bob.stderr.String())
		}
		if err := os.WriteFile(free, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		made := alice.must(t)
		if err := follow.Wait(); err != nil {
			t.Error(err)
		}
		shown := said(alice.stderr.String())
		if compareVersions(c.version, "2.4") < 0 {
			shown = strings.TrimSuffix(followed.String(), "\n") // these show nothing but on a terminal
		}
		if followed.String() != shown+"\n" || strings.Count(shown, "\n") != 2003 {
			t.Errorf("alice's client has shown %d lines, who read along saw %d, both beginning with\n%.200s\n%.200s",
				strings.Count(shown, "\n")+1, strings.Count(followed.String(), "\n"), shown, followed.String())
		}
		// Afterwards the log is everybody's, as the file is.
		if out, err := s.look(t, c, "bob", "log", made); err != nil || out+"\n" != followed.String() {
			t.Errorf("stored log: %v, %d bytes, want %d", err, len(out), followed.Len())
		}
		s.await(t, c, "both as ended", func(v *sighted) bool { return len(v.Servers[0].Recent) == 2 && len(v.Servers[0].Connections) == 0 })
		if out, err := s.look(t, c, "bob", "log", "talks"); err != nil || out+"\n" != followed.String() {
			t.Errorf("stored log, by name: %v, %.200s", err, out)
		}
		mustStop(t, d)
		if left, err := os.ReadDir(s.path("var/nix/status-socket")); err != nil || len(left) != 0 {
			t.Errorf("left behind: %v, %v", left, err)
		}
		if out, err := s.look(t, c, "", "status"); err == nil || !strings.HasPrefix(out, "error: no daemon tells its status in '") {
			t.Errorf("without a daemon: %q, %v", out, err)
		}
	})
}

// TestSightCancel ends a build that two want: for one of them, then by somebody trusted for everybody.
func TestSightCancel(t *testing.T) {
	forUsers(t, func(t *testing.T, s scratch, c client) {
		s.configure(t, "max-jobs = 1\ntrusted-users = root carol\n")
		d := startDaemon(t, s, shared.daemon, daemonOptions{users: true})
		pid := s.path("tmp/pid")
		expr := shell("shared", "echo $$ > "+pid+"; sleep 100000")
		wanted := func(users string) {
			t.Helper()
			s.await(t, c, "a build of "+users, func(v *sighted) bool {
				state, _, _, _, got, _, ok := v.build("shared")
				return ok && state == "running" && got == users
			})
		}
		alice := s.ask(t, c, "alice", "nix-build", build(expr)...)
		wanted("alice")
		bob := s.ask(t, c, "bob", "nix-build", build(expr)...)
		wanted("alice,bob")
		if out, err := s.look(t, c, "alice", "cancel", "shared"); err != nil {
			t.Errorf("alice cancels: %q, %v", out, err)
		}
		if <-alice.done; alice.err == nil || !strings.Contains(alice.stderr.String(), "was cancelled by user 'alice'") {
			t.Errorf("alice was told %q", alice.stderr.String())
		}
		wanted("bob")
		if out, err := s.look(t, c, "carol", "cancel", "shared"); err != nil {
			t.Errorf("carol cancels: %q, %v", out, err)
		}
		if <-bob.done; bob.err == nil || !strings.Contains(bob.stderr.String(), "was cancelled by user 'carol'") {
			t.Errorf("bob was told %q", bob.stderr.String())
		}
		text, err := os.ReadFile(pid)
		if err != nil {
			t.Fatal(err)
		}
		if err := poll(sightLimit, func() error {
			if _, err := os.Stat("/proc/" + strings.TrimSpace(string(text))); err == nil {
				return errors.New("the builder lives")
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
		mustStop(t, d)
	})
}

// TestSightOfTwo sees a server that finishes what it has begun beside the one that has taken over, and can still read
// its logs and cancel there.
func TestSightOfTwo(t *testing.T) {
	c := requireClients(t)[0]
	s := newScratch(t)
	s.configureClient(t, c)
	s.configure(t, "max-total-jobs = 2\n")
	d := startDaemon(t, s, shared.daemon, daemonOptions{})
	cmd, begun, proceed := s.startWaiting(t, c, "first")
	begun()
	doomed, begun, _ := s.startWaiting(t, c, "second")
	begun()
	d.cmd.Process.Signal(syscall.SIGHUP)
	s.await(t, c, "both servers", func(v *sighted) bool {
		if len(v.Servers) != 2 {
			return false
		}
		_, _, _, _, _, _, ok := v.build("first")
		return ok && v.Servers[0].State == "serving" && v.Servers[1].State == "draining" && len(v.Servers[1].Builds) == 2
	})
	if out, err := s.look(t, c, "", "cancel", "second"); err != nil {
		t.Errorf("cancel: %q, %v", out, err)
	}
	if err := doomed.Wait(); err == nil {
		t.Error("what was cancelled has succeeded")
	}
	proceed()
	if err := cmd.Wait(); err != nil {
		t.Errorf("the client of the old server: %v", err)
	}
	s.await(t, c, "one server", func(v *sighted) bool { return len(v.Servers) == 1 && v.Servers[0].State == "serving" })
	mustStop(t, d)
}

// TestSightWatch is shown again and again until it is interrupted.
func TestSightWatch(t *testing.T) {
	c := requireClients(t)[0]
	s := newScratch(t)
	s.configureClient(t, c)
	d := startDaemon(t, s, shared.daemon, daemonOptions{})
	for _, args := range [][]string{{"status", "--watch"}, {"status", "--watch", "--json"}} {
		cmd := s.looking(t, c, "", args...)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var text strings.Builder
		buf := make([]byte, 4096)
		for strings.Count(text.String(), `"version":1`)+strings.Count(text.String(), "nix-daemon ") < 2 {
			n, err := out.Read(buf)
			text.Write(buf[:n])
			if err != nil {
				t.Fatalf("%v after %q", err, text.String())
			}
		}
		cmd.Process.Signal(os.Interrupt)
		io.Copy(io.Discard, out)
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v: %v", args, err)
		}
	}
	mustStop(t, d)
}
