package compat

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestServeRecovering has clients ask programs that serve the store without a daemon after the machine went down: what
// was written shortly before is verified first, and who waits for that is told at once.
func TestServeRecovering(t *testing.T) {
	clients := requireClients(t)
	c := clients[len(clients)-1]
	s := newScratch(t)
	s.configureClient(t, c)
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
	path, _ := add("second")
	before = regexp.MustCompile(`(?m)^boot .*$`).ReplaceAllString(before, "boot 00000000-0000-0000-0000-000000000000")
	bin := s.path("tmp/bin")
	err := os.Mkdir(bin, 0o755)
	for _, name := range []string{"nix-store", "nix-daemon"} {
		err = errors.Join(err, os.Symlink(shared.daemon.path, filepath.Join(bin, name)))
	}
	if err != nil {
		t.Fatal(err)
	}
	const told = "still checking what was written before the machine went down: "
	for _, store := range []string{"ssh://localhost?remote-program=" + bin + "/nix-store", "ssh-ng://localhost?remote-program=" + bin + "/nix-daemon"} {
		if err := os.WriteFile(mark, []byte(before), 0o600); err != nil {
			t.Fatal(err)
		}
		for turn := range 2 {
			cmd := exec.Command(filepath.Join(c.bin, "nix"), "path-info", "--store", store, path)
			cmd.Env = append(s.clientEnv(c), "NIX_CONF_DIR="+s.path("etc"), "NIX_CONFIG=experimental-features = nix-command", "NIX_REMOTE=")
			var stderr strings.Builder
			cmd.Stderr = &stderr
			out, err := cmd.Output()
			if err != nil || strings.TrimSpace(string(out)) != path {
				t.Errorf("%s: %q, %v\n%s", store, out, err, stderr.String())
			}
			if got := strings.Contains(stderr.String(), told); got != (turn == 0) {
				t.Errorf("%s, turn %d: told %v\n%s", store, turn, got, stderr.String())
			}
			if err := s.awaitQuiet(); err != nil { // its mark is written at the end
				t.Fatal(err)
			}
		}
	}
}
