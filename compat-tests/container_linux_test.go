package compat

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// containerScript is what happens in a container: the check, a daemon, and clients that build without and with a
// sandbox. FORBID names kinds of namespaces that the container gives no more of.
const containerScript = `
for kind in $FORBID; do echo 0 > /proc/sys/user/max_${kind}_namespaces; done
$DAEMON --check-installation > $OUT/check || echo $? > $OUT/check.status
NIX_REMOTE= $DAEMON --daemon 2> $OUT/log &
until [ -S $NIX_STATE_DIR/daemon-socket/socket ]; do kill -0 $!; sleep 0.05; done
build() { name=$1; shift; nix-build --no-out-link "$@" -E "derivation { name = \"$name\"; system = builtins.currentSystem; builder = \"/bin/sh\"; args = [ \"-ec\" \"echo $name > \$out\" ]; }" > $OUT/$name 2>&1 || echo $? > $OUT/$name.status; }
build plain
build isolated --option sandbox true
build fallen --option sandbox true --option sandbox-fallback true
kill $!
wait $! || :
`

// TestUnprivilegedContainer runs the daemon in a container that somebody without any privilege has made, where it is
// root over nothing but itself: it does what the kernel lets it, and says what is missing.
func TestUnprivilegedContainer(t *testing.T) {
	t.Parallel()
	c := requireClients(t, referenceVersion)[0]
	for _, program := range []string{"unshare", "setpriv"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("no %s here", program)
		}
	}
	enter := []string{"unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"}
	if os.Getuid() == 0 {
		enter = append([]string{"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"}, enter...)
	}
	if out, err := exec.Command(enter[0], append(enter[1:], "true")...).CombinedOutput(); err != nil {
		t.Skipf("who has no privileges can make no container here: %v: %s", err, out)
	}
	inContainer := func(t *testing.T, forbid string) func(name string) string {
		t.Helper()
		s := newScratch(t)
		s.configureClient(t, c)
		s.configure(t, "sandbox-paths = /bin? /lib? /lib64? /usr\nsandbox-fallback = false\nrequire-drop-supplementary-groups = false\n")
		data, err := os.ReadFile(shared.daemon.path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(s.path("nix-daemon"), data, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(s.path("out"), 0o755); err != nil {
			t.Fatal(err)
		}
		if os.Getuid() == 0 {
			if out, err := exec.Command("chown", "-R", "65534:65534", s.root).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
		}
		cmd := exec.Command(enter[0], append(enter[1:], "/bin/sh", "-euc", containerScript)...)
		cmd.Env = append(append(s.clientEnv(c), shared.daemon.env...), "NIX_CONF_DIR="+s.path("etc"),
			"DAEMON="+s.path("nix-daemon"), "OUT="+s.path("out"), "FORBID="+forbid)
		if out, err := cmd.CombinedOutput(); err != nil {
			log, _ := os.ReadFile(s.path("out/log"))
			t.Fatalf("%v: %s\n%s", err, out, log)
		}
		return func(name string) string {
			text, err := os.ReadFile(filepath.Join(s.root, "out", name))
			if err != nil && !os.IsNotExist(err) {
				t.Error(err)
			}
			return string(text)
		}
	}
	t.Run("namespaces", func(t *testing.T) {
		out := inContainer(t, "")
		if report := out("check"); !strings.Contains(report, "ok    store: ") || !strings.Contains(report, "sandbox: off: builders see the whole system") ||
			!strings.Contains(report, "require-drop-supplementary-groups = false") {
			t.Errorf("the check says\n%s", report)
		}
		if out("plain.status") != "" || !strings.Contains(out("plain"), "-plain") {
			t.Errorf("without a sandbox: %s", out("plain"))
		}
		// A container within another may not be allowed a /proc of its own; then that is what is said.
		if text := out("isolated"); out("isolated.status") != "" && !strings.Contains(text, "Operation not permitted") {
			t.Errorf("with a sandbox: %s", text)
		}
	})
	t.Run("none", func(t *testing.T) {
		out := inContainer(t, "user mnt pid net ipc uts")
		if out("plain.status") != "" {
			t.Errorf("without a sandbox: %s", out("plain"))
		}
		if text := out("isolated"); out("isolated.status") == "" || !strings.Contains(text, "namespace") {
			t.Errorf("with a sandbox, which cannot be: %s", text)
		}
		if out("fallen.status") != "" {
			t.Errorf("with sandbox-fallback: %s", out("fallen"))
		}
	})
}
