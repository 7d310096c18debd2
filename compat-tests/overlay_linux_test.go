package compat

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// overlayChild marks the child of TestOverlay.
const overlayChild = "NIXDAEMON_TEST_OVERLAY_CHILD"

// TestOverlay runs scripts as TestScripts does, in a mount namespace of its own, where they mount an overlay over the store
// directory: its layers are on a tmpfs, since not every file system can be an upper layer.
func TestOverlay(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount")
	}
	if os.Getenv(overlayChild) == "" {
		requireClients(t, referenceVersion)
		if out, err := exec.Command("unshare", "-m", "sh", "-ec", tryOverlay).CombinedOutput(); err != nil {
			t.Skipf("no overlay can be mounted here: %v: %s", err, out)
		}
		inNamespace(t, "TestOverlay", overlayChild+"=1")
		return
	}
	files, err := filepath.Glob("testdata/overlay/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, c := range requireClients(t, "2.3.7", referenceVersion) {
		for _, file := range files {
			t.Run(c.version+"/"+filepath.Base(file), func(t *testing.T) { compareOverlay(t, c, file) })
		}
	}
}

const tryOverlay = `d=$(mktemp -d); mount -t tmpfs tmpfs $d; cd $d; mkdir lower upper work merged
mount -t overlay overlay -o lowerdir=$d/lower,upperdir=$d/upper,workdir=$d/work $d/merged
LIBMOUNT_FORCE_MOUNT2=always mount -o remount $d/merged`

func compareOverlay(t *testing.T, c client, file string) {
	s := newScratch(t)
	reference := shared.clients[referenceVersion].program("nix-daemon")
	unmount := func() {
		for _, dir := range []string{"store", "layers"} {
			for unix.Unmount(s.path(dir), unix.MNT_DETACH) == nil {
			}
		}
	}
	t.Cleanup(unmount)
	run := func(name string, p program) *scenario {
		sc := &scenario{scratch: s, client: c, program: p, damaged: true} // its rows alone are no store
		t.Run(name, func(t *testing.T) {
			if err := os.MkdirAll(s.path("layers"), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := unix.Mount("tmpfs", s.path("layers"), "tmpfs", 0, ""); err != nil {
				t.Fatal(err)
			}
			sc.run(file)(t)
		})
		unmount()
		// Which rows of the lower store's paths upstream's collector leaves is an accident of the order in which it goes.
		sc.transcript.state = nil
		return sc
	}
	want := run("reference", reference)
	if t.Failed() {
		t.Fatalf("the scenario fails with upstream's own daemon")
	}
	s.empty(t)
	s.create(t)
	got := run("daemon", shared.daemon)
	if !t.Failed() || len(got.transcript.steps) > 0 {
		got.transcript.compare(t, &want.transcript)
	}
}
