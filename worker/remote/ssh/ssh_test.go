package ssh

import (
	"context"
	"encoding/base64"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// fakeSSH stands in for ssh: it notes how it was called and what file holds
// the host key, answers "-O check" with failure, stays for "-N", and else runs
// the command behind "--".
const fakeSSH = `#!/bin/sh
printf '%s\n' call "$@" "SHELL=$SHELL" >> "$FAKE_LOG" # at once: calls overlap
case " $* " in
*" -O check "*) exit "${FAKE_CHECK:-255}";;
esac
for a; do case $a in -oUserKnownHostsFile=*) cp "${a#*=}" "$FAKE_LOG.hosts"; stat -c %a "${a#*=}" > "$FAKE_LOG.mode";; esac; done
echo "fake ssh speaks" >&2
echo "${FAKE_SAYS-started}"
case " $* " in *" -N "*) exec sleep 1000;; esac
while [ "$1" != -- ]; do shift; done
shift
exec "$@"
`

// fake gives an environment with a fake ssh, and what reads how that was
// called.
func fake(t *testing.T, vars ...string) (env []string, calls func() [][]string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/ssh", []byte(fakeSSH), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH")) // where we look for ssh
	log := dir + "/log"
	env = append(append(os.Environ(), "FAKE_LOG="+log, "SHELL=/bin/odd"), vars...)
	return env, func() [][]string {
		data, err := os.ReadFile(log)
		if err != nil {
			t.Fatal(err)
		}
		var calls [][]string
		for _, call := range strings.Split(string(data), "call\n")[1:] {
			calls = append(calls, strings.Split(strings.TrimSuffix(call, "\n"), "\n"))
		}
		return calls
	}
}

func open(t *testing.T, o Options, authority string) *Master {
	t.Helper()
	a, err := ParseAuthority(authority)
	if err != nil {
		t.Fatal(err)
	}
	o.Authority = a
	if o.Log == nil {
		o.Log = func(string) {}
	}
	m, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// echo checks that what is written comes back.
func echo(t *testing.T, c *Conn) {
	t.Helper()
	if _, err := io.WriteString(c, "hello\n"); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 6)
	if _, err := io.ReadFull(c, buf); err != nil || string(buf) != "hello\n" {
		t.Fatalf("read %q, %v", buf, err)
	}
}

func TestCommandLine(t *testing.T) {
	env, calls := fake(t, "NIX_SSHOPTS=-F '/a b' -4")
	var mu sync.Mutex
	var said []string
	m := open(t, Options{
		KeyFile: "/key", HostKey: base64.StdEncoding.EncodeToString([]byte("ssh-ed25519 AAAA")), Compress: true, Verbose: true, Env: env,
		Log: func(line string) { mu.Lock(); defer mu.Unlock(); said = append(said, line) },
	}, "me@example.org:2222")
	c, err := m.Start(t.Context(), []string{"cat", "-u"})
	if err != nil {
		t.Fatal(err)
	}
	echo(t, c)
	c.Close()
	hosts := m.tempDir + "/host-key"
	common := []string{"-F", "/a b", "-4", "-i", "/key", "-oUserKnownHostsFile=" + hosts, "-C", "-p2222",
		"-oPermitLocalCommand=yes", "-oLocalCommand=echo started"}
	want := append(append([]string{"me@example.org", "-x"}, common...), "-v", "--", "cat", "-u", "SHELL=/bin/sh")
	var got, check []string
	for _, call := range calls() {
		if call[0] == "-O" {
			check = call
		} else {
			got = call
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("command line (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(append(append([]string{"-O", "check", "me@example.org"}, common...), "SHELL=/bin/sh"), check); diff != "" {
		t.Errorf("check (-want +got):\n%s", diff)
	}
	for file, want := range map[string]string{".hosts": "example.org ssh-ed25519 AAAA\n", ".mode": "600\n"} {
		data, err := os.ReadFile(filepath.Dir(strings.TrimPrefix(logOf(env), "FAKE_LOG=")) + "/log" + file)
		if err != nil || string(data) != want {
			t.Errorf("%s is %q, %v, want %q", file, data, err, want)
		}
	}
	mu.Lock()
	if diff := cmp.Diff([]string{"fake ssh speaks"}, said); diff != "" {
		t.Errorf("said (-want +got):\n%s", diff)
	}
	mu.Unlock()
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(hosts); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the host key is still there: %v", err)
	}
}

func logOf(env []string) string {
	for _, v := range env {
		if strings.HasPrefix(v, "FAKE_LOG=") {
			return v
		}
	}
	return ""
}

func TestShared(t *testing.T) {
	// A connection that was not shared after all begins with what ssh prints,
	// as the fake one does.
	env, calls := fake(t)
	m := open(t, Options{Share: true, Env: env}, "example.org")
	var conns []*Conn
	for range 2 {
		c, err := m.Start(t.Context(), []string{"cat"})
		if err != nil {
			t.Fatal(err)
		}
		echo(t, c)
		conns = append(conns, c)
	}
	for _, c := range conns {
		c.Close()
	}
	socket := m.tempDir + "/ssh.sock"
	rest := []string{"-oPermitLocalCommand=yes", "-oLocalCommand=echo started"}
	command := append(append([]string{"example.org", "-x"}, rest...), "-S", socket, "-oControlMaster=no", "--", "cat", "SHELL=/bin/sh")
	want := [][]string{
		append(append([]string{"-O", "check", "example.org"}, rest...), "SHELL=/bin/sh"),
		append(append([]string{"example.org", "-M", "-N", "-S", socket, "-oControlPersist=no"}, rest...), "SHELL=/bin/sh"),
		command, command,
	}
	if diff := cmp.Diff(want, calls()); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
	holder := m.shared
	if holder.ended() {
		t.Fatal("the shared connection has ended")
	}
	// A shared connection that went away is opened anew.
	syscall.Kill(holder.pid, syscall.SIGKILL)
	<-holder.done
	c, err := m.Start(t.Context(), []string{"cat"})
	if err != nil {
		t.Fatal(err)
	}
	echo(t, c)
	c.Close()
	again := m.shared
	if again == holder {
		t.Error("the dead connection is still in use")
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	if !again.ended() {
		t.Error("the shared connection outlives its master")
	}
	if _, err := os.Stat(socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("directory is still there: %v", err)
	}
}

// TestKept has one command after the other over one connection; what goes wrong is told as if each had its own.
func TestKept(t *testing.T) {
	env, calls := fake(t)
	m := open(t, Options{Keep: true, Env: env}, "example.org")
	for range 3 {
		c, err := m.Start(t.Context(), []string{"cat"})
		if err != nil {
			t.Fatal(err)
		}
		echo(t, c)
		c.Close()
	}
	logins, commands := 0, 0
	for _, call := range calls() {
		line := strings.Join(call, " ")
		logins += strings.Count(line, " -N ")
		commands += strings.Count(line, " -S "+m.tempDir+"/ssh.sock -oControlMaster=no -- cat ")
	}
	if logins != 1 || commands != 3 {
		t.Errorf("%d logins, %d commands: %q", logins, commands, calls())
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	env, _ = fake(t, "FAKE_SAYS=no")
	m = open(t, Options{Keep: true, Env: env}, "example.org")
	if _, err := m.Start(t.Context(), []string{"cat"}); err == nil || err.Error() != "failed to start SSH connection to 'example.org'" {
		t.Errorf("error %v", err)
	}
	long := t.TempDir() + "/" + strings.Repeat("x", maxSocketName)
	if err := os.Mkdir(long, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", long)
	env, calls = fake(t)
	m = open(t, Options{Keep: true, Env: env}, "example.org")
	c, err := m.Start(t.Context(), []string{"cat"})
	if err != nil {
		t.Fatal(err)
	}
	echo(t, c)
	c.Close()
	for _, call := range calls() {
		if slices.Contains(call, "-S") {
			t.Errorf("called with a socket whose name is too long: %q", call)
		}
	}
}

// TestUsersShared uses a connection that the user's configuration shares: ssh
// then prints nothing.
func TestUsersShared(t *testing.T) {
	for _, share := range []bool{false, true} {
		env, calls := fake(t, "FAKE_CHECK=0", "FAKE_SAYS=hi")
		m := open(t, Options{Share: share, Env: env}, "example.org")
		c, err := m.Start(t.Context(), []string{"cat"})
		if err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 3)
		if _, err := io.ReadFull(c, buf); err != nil || string(buf) != "hi\n" {
			t.Errorf("read %q, %v", buf, err)
		}
		c.Close()
		for _, call := range calls() {
			if strings.Contains(strings.Join(call, " "), " -S ") {
				t.Errorf("called with a socket: %q", call)
			}
		}
	}
}

func TestFailures(t *testing.T) {
	for _, tt := range []struct {
		says  string
		share bool
		want  string
	}{
		{"Permission denied", false, "failed to start SSH connection to 'example.org'"},
		{strings.Repeat("x", 2*maxFirstLine), false, "failed to start SSH connection to 'example.org'"},
		{"no", true, "failed to start SSH master connection to 'example.org'"},
	} {
		env, _ := fake(t, "FAKE_SAYS="+tt.says)
		m := open(t, Options{Share: tt.share, Env: env}, "me@example.org")
		_, err := m.Start(t.Context(), []string{"cat"})
		if err == nil || err.Error() != tt.want {
			t.Errorf("error %v, want %q", err, tt.want)
		}
		m.Close()
	}
	if _, err := New(Options{Authority: Authority{Host: "h"}, HostKey: "#"}); err == nil ||
		!strings.HasPrefix(err.Error(), "while decoding ssh public host key for host 'h': ") {
		t.Errorf("bad key: %v", err)
	}
	if _, err := New(Options{Authority: Authority{Host: "h"}, Env: []string{"NIX_SSHOPTS='"}}); err == nil ||
		err.Error() != "while splitting NIX_SSHOPTS ''': unterminated single quote" {
		t.Errorf("bad options: %v", err)
	}
	m := open(t, Options{}, "localhost")
	if _, err := m.Start(t.Context(), []string{"/no/such/program"}); err == nil ||
		err.Error() != "unable to execute '/no/such/program': No such file or directory" {
		t.Errorf("no program: %v", err)
	}
}

// TestDirect runs a command on this machine, and ends those that do not end by
// themselves, with what they have started.
func TestDirect(t *testing.T) {
	m := open(t, Options{Share: true}, "localhost")
	c, err := m.Start(t.Context(), []string{"cat"})
	if err != nil {
		t.Fatal(err)
	}
	echo(t, c)
	if c.Ended() {
		t.Error("ended too early")
	}
	begun := time.Now()
	if err := c.Close(); err != nil || !c.Ended() {
		t.Errorf("closed: %v, ended %v", err, c.Ended())
	}
	if took := time.Since(begun); took > time.Minute {
		t.Errorf("a command that ends by itself took %v", took)
	}
	if err := c.Close(); err != nil {
		t.Errorf("closed again: %v", err)
	}

	c, err = m.Start(t.Context(), []string{"sh", "-c", `trap "" TERM HUP PIPE; sleep 1000 & echo $!; while :; do wait; done`})
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	for b := make([]byte, 1); b[0] != '\n'; {
		if _, err := c.Read(b); err != nil {
			t.Fatal(err)
		}
		if b[0] != '\n' {
			pid = pid*10 + int(b[0]-'0')
		}
	}
	begun = time.Now()
	c.Close()
	if took := time.Since(begun); took > time.Minute || !c.Ended() {
		t.Errorf("took %v to end a stubborn command", took)
	}
	// What it has started is dead or about to be: it is in the group.
	for end := time.Now().Add(time.Minute); syscall.Kill(pid, 0) == nil && !zombie(pid); {
		if time.Now().After(end) {
			t.Fatalf("process %d lives on", pid)
		}
	}
}

func zombie(pid int) bool {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err != nil || strings.Contains(string(data), ") Z ")
}

// TestCancel ends a connection that never begins.
func TestCancel(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/ssh", []byte("#!/bin/sh\ncase $1 in -O) exit 255;; esac\necho waiting >&2\nexec sleep 1000\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	for _, share := range []bool{false, true} {
		ctx, cancel := context.WithCancel(t.Context())
		m := open(t, Options{Share: share, Log: func(string) { cancel() }}, "example.org")
		if _, err := m.Start(ctx, []string{"cat"}); !errors.Is(err, context.Canceled) {
			t.Errorf("share %v: %v", share, err)
		}
		m.Close()
	}
}

func TestLines(t *testing.T) {
	var got []string
	l := &lineWriter{emit: func(s string) { got = append(got, s) }}
	for _, s := range []string{"a\r\nb", "c\n\n", strings.Repeat("x", maxLine+1), "\nend"} {
		l.Write([]byte(s))
	}
	l.flush()
	want := []string{"a", "bc", "", strings.Repeat("x", maxLine), "x", "end"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("lines (-want +got):\n%s", diff)
	}
}
