package compat

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// scratch is a store's directories and everything around it, beneath one
// short directory of its own: socket names are limited, and what the clients
// print contains these paths.
type scratch struct {
	root string
}

// newScratch makes an empty one, removed when the test ends.
func newScratch(t testing.TB) scratch {
	t.Helper()
	return newScratchIn(t, os.Getenv("NIXDAEMON_COMPAT_TMP"))
}

// newScratchIn makes one in a folder of the caller's choice; none is the
// system's for temporary files.
func newScratchIn(t testing.TB, base string) scratch {
	t.Helper()
	root, err := os.MkdirTemp(base, "nc")
	if err != nil {
		t.Fatal(err)
	}
	root, err = filepath.EvalSymlinks(root)
	if err != nil {
		t.Fatal(err)
	}
	s := scratch{root: root}
	t.Cleanup(func() { s.remove(t) })
	s.create(t)
	return s
}

func (s scratch) path(elem ...string) string {
	return filepath.Join(append([]string{s.root}, elem...)...)
}

func (s scratch) socket() string { return s.path("var/nix/daemon-socket/socket") }

// daemonConf is what every daemon starts from: no sandbox, no network, and one
// build at a time, so that messages come in one order.
const daemonConf = `sandbox = false
build-users-group =
substituters =
max-jobs = 1
cores = 1
fsync-metadata = false
builders =
`

// create makes the directories, as empty as an installation would.
func (s scratch) create(t testing.TB) {
	t.Helper()
	for _, dir := range []string{"store", "var/nix", "var/log", "etc", "client-etc", "home", "tmp"} {
		if err := os.MkdirAll(s.path(dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// Other users' clients and builders write here, whatever the umask is.
	for dir, mode := range map[string]fs.FileMode{"": 0o755, "tmp": 0o777 | fs.ModeSticky} {
		if err := os.Chmod(s.path(dir), mode); err != nil {
			t.Fatal(err)
		}
	}
	s.configure(t, "")
}

// configure writes the daemon's nix.conf: the usual lines, then these.
func (s scratch) configure(t testing.TB, more string) {
	t.Helper()
	if err := os.WriteFile(s.path("etc/nix.conf"), []byte(daemonConf+more), 0o644); err != nil {
		t.Fatal(err)
	}
}

// empty removes everything beneath the root, but not the root.
func (s scratch) empty(t testing.TB) {
	t.Helper()
	entries, err := os.ReadDir(s.root)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		removeTree(t, s.path(e.Name()))
	}
}

func (s scratch) remove(t testing.TB) {
	if t.Failed() && os.Getenv("NIXDAEMON_COMPAT_KEEP") == "1" {
		t.Logf("kept %s", s.root)
		return
	}
	removeTree(t, s.root)
}

// removeTree removes a directory even if, as in a store, those in it are
// read-only and we are not root.
func removeTree(t testing.TB, dir string) {
	t.Helper()
	filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && os.Getuid() != 0 {
			os.Chmod(path, 0o755)
		}
		return nil
	})
	if err := os.RemoveAll(dir); err != nil {
		t.Error(err)
	}
}

// storeEnv names the store's directories, for daemon and clients alike.
func (s scratch) storeEnv() []string {
	return []string{
		"NIX_STORE_DIR=" + s.path("store"),
		"NIX_STATE_DIR=" + s.path("var/nix"),
		"NIX_LOG_DIR=" + s.path("var/log"),
		"NIX_LOCALSTATE_DIR=" + s.path("var"),
		"TMPDIR=" + s.path("tmp"),
		"LANG=C.UTF-8",
		"PATH=" + os.Getenv("PATH"),
	}
}

// daemonEnv is the environment of a daemon.
func (s scratch) daemonEnv(p program) []string {
	return append(append(s.storeEnv(),
		"NIX_CONF_DIR="+s.path("etc"),
		"HOME="+s.path("home"),
		"NIX_REMOTE="), p.env...)
}

// clientEnv is the environment of a client that goes through the daemon.
func (s scratch) clientEnv(c client) []string {
	env := append(s.storeEnv(),
		"NIX_CONF_DIR="+s.path("client-etc"),
		"HOME="+s.path("home"),
		"USER=root",
		"NO_COLOR=1",
		"NIX_REMOTE=daemon")
	for i, kv := range env {
		if path, ok := strings.CutPrefix(kv, "PATH="); ok {
			env[i] = "PATH=" + c.bin + string(os.PathListSeparator) + path
		}
	}
	return append(env, c.env...)
}

// configureClient writes the client's nix.conf. It is the system's file, whose
// settings a client does not send to the daemon.
func (s scratch) configureClient(t testing.TB, c client) {
	t.Helper()
	conf := "substituters =\n"
	if compareVersions(c.version, "2.4") >= 0 {
		conf += "experimental-features = nix-command\n"
	}
	// Clients without a daemon use it too.
	conf += "sandbox = false\nbuild-users-group =\nfsync-metadata = false\nmax-jobs = 1\ncores = 1\n"
	if err := os.WriteFile(s.path("client-etc/nix.conf"), []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
}
