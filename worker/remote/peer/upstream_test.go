package peer_test

import (
	"os"
	"path/filepath"
	"testing"

	"nixdaemon/worker/remote/peer"
	"nixdaemon/worker/workertest"
)

// TestUpstream has upstream's programs at the other end.
func TestUpstream(t *testing.T) {
	bin := os.Getenv("NIXDAEMON_UPSTREAM")
	if bin == "" {
		t.Skip("NIXDAEMON_UPSTREAM does not name a directory with upstream's nix-daemon")
	}
	root := workertest.Root(t)
	for _, dir := range []string{"/etc", "/var"} {
		if err := os.Mkdir(root+dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	conf := "sandbox = false\nbuild-users-group =\nsubstituters =\nexperimental-features = nix-command ca-derivations\nrequire-sigs = false\n"
	if err := os.WriteFile(root+"/etc/nix.conf", []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{
		"NIX_STORE_DIR": root + "/store", "NIX_STATE_DIR": root + "/var", "NIX_LOG_DIR": root + "/log",
		"NIX_LOCALSTATE_DIR": root + "/localstate", "NIX_CONF_DIR": root + "/etc", "HOME": root, "NIX_REMOTE": "",
	} {
		t.Setenv(name, value)
	}
	t.Run("ssh-ng", func(t *testing.T) {
		s := openStore(t, "ssh-ng://localhost?max-connections=2&remote-program="+filepath.Join(bin, "nix-daemon")+"&store="+root+"/store", peer.Options{})
		exercise(trip{TB: t, s: s, tag: "ng", byHash: true})
	})
	t.Run("ssh", func(t *testing.T) {
		s := openStore(t, "ssh://localhost?max-connections=2&remote-program="+filepath.Join(bin, "nix-store")+"&store="+root+"/store", peer.Options{})
		exerciseServed(trip{TB: t, s: s, tag: "served"})
	})
}
