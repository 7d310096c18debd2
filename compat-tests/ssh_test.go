package compat

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// machine is an OpenSSH server of our own on loopback. Who logs in there finds
// the far daemon's programs in the PATH and a store beneath the scratch.
type machine struct {
	cmd    *exec.Cmd
	exited chan struct{}
	log    lockedBuffer
}

// findSSHD gives the server, which Debian keeps out of the PATH.
func findSSHD() (string, error) {
	for _, path := range []string{"/usr/sbin/sshd", "/usr/local/sbin/sshd"} {
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return exec.LookPath("sshd")
}

// noSSH tells what keeps tests with other machines from running.
func noSSH() error {
	if _, err := findSSHD(); err != nil {
		return fmt.Errorf("no OpenSSH server (Debian's openssh-server): %v", err)
	}
	for _, tool := range []string{"ssh", "ssh-keygen"} {
		if _, err := exec.LookPath(tool); err != nil {
			return err
		}
	}
	return nil
}

// cmdMachine is "machine [users] [reference] REMOTE": starts a server, at which
// ssh's host "far" gets, and with users "far-alice" and so on, whose programs
// are those of the daemon under test or the reference's, with NIX_REMOTE as
// given. $NIX_SSHOPTS leads there.
func (sc *scenario) cmdMachine(t *testing.T) command {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		users, far := false, sc.program
		for len(args) > 1 {
			switch args[0] {
			case "users":
				users = true
			case "reference":
				far = shared.clients[referenceVersion].program("nix-daemon")
			default:
				ts.Fatalf("usage: machine [users] [reference] REMOTE")
			}
			args = args[1:]
		}
		if neg || len(args) != 1 {
			ts.Fatalf("usage: machine [users] [reference] REMOTE")
		}
		sc.machine = startMachine(t, sc.scratch, far, args[0], users)
		ts.Setenv("NIX_SSHOPTS", "-F "+sc.scratch.path("ssh/config"))
	}
}

func startMachine(t testing.TB, s scratch, far program, remote string, users bool) *machine {
	t.Helper()
	dir := s.path("ssh")
	if err := os.MkdirAll(filepath.Join(dir, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	farPrograms(t, s, far)
	for _, name := range []string{"host", "user"} {
		out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", filepath.Join(dir, name)).CombinedOutput()
		if err != nil {
			t.Fatalf("ssh-keygen: %v: %s", err, out)
		}
	}
	port := freePort(t)
	writeSSHConfig(t, s, far, remote, port)
	if os.Getuid() == 0 {
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil { // where it locks itself in
			t.Fatal(err)
		}
	}
	sshd, err := findSSHD()
	if err != nil {
		t.Fatal(err)
	}
	argv := []string{sshd, "-D", "-e", "-f", filepath.Join(dir, "sshd_config")}
	if users {
		argv = withAccounts(t, s, argv)
	}
	m := &machine{cmd: exec.Command(argv[0], argv[1:]...), exited: make(chan struct{})}
	m.cmd.Stdout, m.cmd.Stderr = &m.log, &m.log
	m.cmd.Env = s.storeEnv()
	m.cmd.WaitDelay = time.Second // those who are logged in share its log
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := m.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		m.cmd.Wait()
		close(m.exited)
	}()
	t.Cleanup(func() {
		m.stop()
		if t.Failed() {
			t.Logf("log of sshd:\n%s", m.log.String())
		}
	})
	if err := poll(startLimit, func() error {
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			return fmt.Errorf("%w\n%s", err, m.log.String())
		}
		return conn.Close()
	}); err != nil {
		t.Fatal(err)
	}
	return m
}

// farPrograms fills the directory that is first in the PATH there: nix-store is
// the daemon's own program, or stands beside it.
func farPrograms(t testing.TB, s scratch, far program) {
	t.Helper()
	store := far.path
	if far.path == shared.clients[referenceVersion].program("nix-daemon").path {
		store = shared.clients[referenceVersion].program("nix-store").path
	}
	for name, target := range map[string]string{"nix-daemon": far.path, "nix-store": store} {
		if err := os.Symlink(target, s.path("ssh/bin", name)); err != nil {
			t.Fatal(err)
		}
	}
}

func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func writeSSHConfig(t testing.TB, s scratch, far program, remote string, port int) {
	t.Helper()
	dir := s.path("ssh")
	env := append(s.daemonEnv(far), "NIX_REMOTE="+remote)
	vars := make(map[string]string)
	for _, kv := range env {
		name, value, _ := strings.Cut(kv, "=")
		vars[name] = value // the last counts
	}
	vars["PATH"] = filepath.Join(dir, "bin") + ":" + vars["PATH"]
	setEnv := "SetEnv"
	for name, value := range vars {
		setEnv += fmt.Sprintf(" \"%s=%s\"", name, value)
	}
	server := fmt.Sprintf(`Port %d
ListenAddress 127.0.0.1
HostKey %[2]s/host
AuthorizedKeysFile %[2]s/user.pub
PidFile none
StrictModes no
UsePAM no
PermitRootLogin yes
MaxStartups 100
%[3]s
`, port, dir, setEnv)
	client := ""
	for _, a := range accounts {
		client += fmt.Sprintf("Host far-%s\n  User %s\n", a.name, a.name)
	}
	client += fmt.Sprintf(`Host *
  HostName 127.0.0.1
  HostKeyAlias far
  Port %d
  IdentityFile %[2]s/user
  IdentitiesOnly yes
  UserKnownHostsFile %[2]s/known_hosts
  StrictHostKeyChecking yes
  BatchMode yes
  LogLevel ERROR
`, port, dir)
	public, err := os.ReadFile(filepath.Join(dir, "host.pub"))
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"sshd_config": server, "config": client, "known_hosts": "far " + string(public),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// stop ends the server; its children end with their clients.
func (m *machine) stop() {
	m.cmd.Process.Signal(syscall.SIGTERM)
	<-m.exited
}
