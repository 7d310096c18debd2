package compat

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// readOnlyChild marks the child of TestReadOnlyStore.
const readOnlyChild = "NIXDAEMON_TEST_READ_ONLY_CHILD"

// TestReadOnlyStore has the store on a read-only mount, as NixOS does: the
// daemon adds to it, and nobody else can.
func TestReadOnlyStore(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount")
	}
	if os.Getenv(readOnlyChild) == "" {
		requireClients(t, referenceVersion)
		inNamespace(t, "TestReadOnlyStore", readOnlyChild+"=1")
		return
	}
	c := requireClients(t, referenceVersion)[0]
	s := newScratch(t)
	s.configureClient(t, c)
	store := s.path("store")
	if err := errors.Join(unix.Mount(store, store, "", unix.MS_BIND, ""),
		unix.Mount("", store, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, "")); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Unmount(store, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}()
	d := startDaemon(t, s, shared.daemon, daemonOptions{})
	out := s.must(t, c, nil, "nix-build", build(shell("made", "echo made > $out"))...)
	if text, err := os.ReadFile(out); strings.TrimSpace(string(text)) != "made" {
		t.Errorf("%q, %v", text, err)
	}
	if err := os.WriteFile(filepath.Join(store, "x"), nil, 0o644); !errors.Is(err, unix.EROFS) {
		t.Errorf("others can write to the store: %v", err)
	}
	mustStop(t, d)
}
