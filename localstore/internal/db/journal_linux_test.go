package db

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// On a small file system the log must not take the space that there is.
func TestJournalLeavesSpace(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64m"); err != nil {
		t.Skipf("cannot mount a small file system: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	j := journal{path: filepath.Join(dir, "x-wal"), most: maxJournal}
	if got := j.limit(); got < 12<<20 || got > 16<<20 {
		t.Errorf("limit of 64 MiB: %d", got)
	}
	if err := os.WriteFile(filepath.Join(dir, "full"), make([]byte, 60<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := j.limit(); got != minJournal {
		t.Errorf("limit of 4 MiB: %d", got)
	}
}
