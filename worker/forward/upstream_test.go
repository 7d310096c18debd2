package forward_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"nixdaemon/protocol/client"
	"nixdaemon/protocol/storepath"
)

// upstream starts the nix-daemon of the directory that NIXDAEMON_UPSTREAM
// names on a store of its own.
func upstream(t testing.TB) (socket, root string, dir storepath.Dir) {
	t.Helper()
	bin := os.Getenv("NIXDAEMON_UPSTREAM")
	if bin == "" {
		t.Skip("NIXDAEMON_UPSTREAM does not name a directory with upstream's nix-daemon")
	}
	root, err := os.MkdirTemp("", "up")
	if err != nil {
		t.Fatal(err)
	}
	os.Chmod(root, 0o755)
	socket = root + "/var/daemon-socket/socket"
	conf := "sandbox = false\nbuild-users-group =\nsubstitute = false\nsubstituters =\nexperimental-features = nix-command ca-derivations\ntrusted-users = *\nrequire-sigs = false\n"
	// Without a state directory old daemons take themselves for the store.
	for _, name := range []string{"/etc", "/var"} {
		if err := os.Mkdir(root+name, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(root+"/etc/nix.conf", []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(bin, "nix-daemon"), "--daemon")
	cmd.Env = append(os.Environ(), "NIX_STORE_DIR="+root+"/store", "NIX_STATE_DIR="+root+"/var", "NIX_LOG_DIR="+root+"/log",
		"NIX_LOCALSTATE_DIR="+root+"/localstate", "NIX_CONF_DIR="+root+"/etc", "NIX_DAEMON_SOCKET_PATH="+socket, "HOME="+root, "NIX_REMOTE=")
	var log logFile
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
		filepath.WalkDir(root, func(p string, e os.DirEntry, err error) error {
			if err == nil && e.IsDir() {
				os.Chmod(p, 0o700)
			}
			return nil
		})
		os.RemoveAll(root)
		if t.Failed() {
			t.Logf("upstream's log:\n%s", log)
		}
	})
	dir = storepath.Dir(root + "/store")
	for end := time.Now().Add(time.Minute); ; {
		// One whole conversation: upstream's processes may fail when two of them create the database.
		probe := connect(t, socket, dir, 0, nil)
		_, err := probe.AllValidPaths(t.Context())
		probe.Close()
		if err == nil {
			return socket, root, dir
		}
		if time.Now().After(end) {
			t.Fatalf("upstream's daemon does not listen:\n%s", log)
		}
	}
}

// logFile is written by one goroutine and read when that has ended.
type logFile []byte

func (l *logFile) Write(p []byte) (int, error) {
	*l = append(*l, p...)
	return len(p), nil
}

// TestOperationsUpstream runs every request through to upstream's daemon.
func TestOperationsUpstream(t *testing.T) {
	socket, root, dir := upstream(t)
	version, err := exec.Command(filepath.Join(os.Getenv("NIXDAEMON_UPSTREAM"), "nix-daemon"), "--version").Output()
	if err != nil {
		t.Fatal(err)
	}
	old := !strings.Contains(string(version), " 2.34.")
	spoken, err := connect(t, socket, dir, 0, nil).Negotiated(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, inner := range minors {
		if inner > uint8(spoken.Number) {
			break
		}
		front := outer{socket: socket, dir: dir, version: inner}.serve(t)
		for _, minor := range minors {
			t.Run(fmt.Sprintf("1.%d over 1.%d", minor, inner), func(t *testing.T) {
				again := func() *client.Client { return connect(t, front, dir, minor, nil) }
				exercise(&trip{TB: t, ctx: t.Context(), c: again(), again: again, dir: dir, root: root,
					old: old, minor: minor, inner: inner, tag: fmt.Sprintf("%d-%d", minor, inner)})
			})
		}
	}
}
