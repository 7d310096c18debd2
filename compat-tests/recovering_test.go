package compat

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// recoveringTold begins what those are told who wait for the verification of what was written before the machine went down.
const recoveringTold = "still checking what was written before the machine went down: "

// beforeRestart builds something, and gives what makes the store look as if the machine had gone down right after that.
func (s scratch) beforeRestart(t *testing.T, c client) (path string, restart func()) {
	t.Helper()
	mark := s.path("var/nix/nixdaemon-durable")
	add := func(name string) (path, known string) {
		t.Helper()
		d := startDaemon(t, s, shared.daemon, daemonOptions{})
		path = s.must(t, c, nil, "nix-build", build(shell(name, "echo > $out"))...)
		mustStop(t, d)
		if err := s.awaitQuiet(); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(mark)
		if err != nil {
			t.Fatal(err)
		}
		return path, string(text)
	}
	_, before := add("first")
	path, _ = add("second")
	before = regexp.MustCompile(`(?m)^boot .*$`).ReplaceAllString(before, "boot 00000000-0000-0000-0000-000000000000")
	return path, func() {
		t.Helper()
		if err := os.WriteFile(mark, []byte(before), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestServeRecovering has clients ask programs that serve the store without a daemon after the machine went down: what
// was written shortly before is verified first, and who waits for that is told at once.
func TestServeRecovering(t *testing.T) {
	clients := requireClients(t)
	c := clients[len(clients)-1]
	s := newScratch(t)
	s.configureClient(t, c)
	path, restart := s.beforeRestart(t, c)
	bin := s.path("tmp/bin")
	err := os.Mkdir(bin, 0o755)
	for _, name := range []string{"nix-store", "nix-daemon"} {
		err = errors.Join(err, os.Symlink(shared.daemon.path, filepath.Join(bin, name)))
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, store := range []string{"ssh://localhost?remote-program=" + bin + "/nix-store", "ssh-ng://localhost?remote-program=" + bin + "/nix-daemon"} {
		restart()
		for turn := range 2 {
			cmd := exec.Command(filepath.Join(c.bin, "nix"), "path-info", "--store", store, path)
			cmd.Env = append(s.clientEnv(c), "NIX_CONF_DIR="+s.path("etc"), "NIX_CONFIG=experimental-features = nix-command", "NIX_REMOTE=")
			var stderr strings.Builder
			cmd.Stderr = &stderr
			out, err := cmd.Output()
			if err != nil || strings.TrimSpace(string(out)) != path {
				t.Errorf("%s: %q, %v\n%s", store, out, err, stderr.String())
			}
			if got := strings.Contains(stderr.String(), recoveringTold); got != (turn == 0) {
				t.Errorf("%s, turn %d: told %v\n%s", store, turn, got, stderr.String())
			}
			if err := s.awaitQuiet(); err != nil { // its mark is written at the end
				t.Fatal(err)
			}
		}
	}
}

// TestReloadRecovering has a server verify what was written before the machine went down while another one serves in whose
// place it will come: its log tells.
func TestReloadRecovering(t *testing.T) {
	clients := requireClients(t)
	c := clients[len(clients)-1]
	s := newScratch(t)
	s.configureClient(t, c)
	path, restart := s.beforeRestart(t, c)
	d := startDaemon(t, s, shared.daemon, daemonOptions{})
	s.must(t, c, nil, "nix-store", "--query", "--hash", path)
	if strings.Contains(d.log.String(), recoveringTold) {
		t.Error("the first server had something to verify")
	}
	restart()
	if err := d.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if err := poll(waitLimit, func() error {
		for _, wanted := range []string{recoveringTold, "a new server has taken over"} {
			if !strings.Contains(d.log.String(), wanted) {
				return fmt.Errorf("no line %q:\n%s", wanted, d.log.String())
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	s.must(t, c, nil, "nix-store", "--query", "--hash", path)
	mustStop(t, d)
}
