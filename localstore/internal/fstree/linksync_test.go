package fstree

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func lstat(t *testing.T, path string) *unix.Stat_t {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatal(err)
	}
	return &st
}

// TestLinksAreDurable: what replaces files is synced first, once, unless it was before.
func TestLinksAreDurable(t *testing.T) {
	o := newOptimiserTest(t)
	for _, name := range []string{"a", "b", "c"} {
		if err := os.WriteFile(filepath.Join(o.Path(), name), []byte("same"), 0o444); err != nil {
			t.Fatal(err)
		}
	}
	o.run(t, false, "a") // makes a link before the sync of the next
	opt := NewOptimiser(o.Dir, o.links, OptimiseOptions{Sync: true})
	if _, err := opt.Load(); err != nil {
		t.Fatal(err)
	}
	if !opt.inodes.isDurable(o.inode(t, "a")) {
		t.Error("what was a link before the sync is not taken for durable")
	}
	for _, name := range []string{"d", "e", "f"} {
		if err := os.WriteFile(filepath.Join(o.Path(), name), []byte("other"), 0o444); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"b", "c", "d"} {
		if err := opt.Tree(ctx, name); err != nil {
			t.Fatal(err)
		}
	}
	if opt.inodes.isDurable(o.inode(t, "d")) {
		t.Error("a file that was just made is taken for durable")
	}
	for _, name := range []string{"e", "f"} {
		if err := opt.Tree(ctx, name); err != nil {
			t.Fatal(err)
		}
	}
	if !opt.inodes.isDurable(o.inode(t, "d")) {
		t.Error("was not synced before others were replaced")
	}
	for name, like := range map[string]string{"b": "a", "c": "a", "e": "d", "f": "d"} {
		if o.inode(t, name) != o.inode(t, like) {
			t.Errorf("%s is not linked to %s", name, like)
		}
	}
}

func TestUnchangedFilesNeedNoSync(t *testing.T) {
	d := tempDir(t)
	path := filepath.Join(d.Path(), "file")
	if err := os.WriteFile(path, nil, 0o444); err != nil {
		t.Fatal(err)
	}
	var l linkSync
	if l.unchanged(lstat(t, path)) {
		t.Error("nothing was synced")
	}
	l.synced = time.Now().Add(time.Minute)
	if !l.unchanged(lstat(t, path)) {
		t.Error("was changed before the sync")
	}
	if err := d.syncFile("missing"); err == nil {
		t.Error("synced what is not there")
	}
}
