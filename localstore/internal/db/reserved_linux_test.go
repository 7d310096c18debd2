package db

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// On a full disk no file is left that only looks as if it reserved something.
func TestReserveOnFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("cannot mount a small file system: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	path := filepath.Join(dir, "reserved")
	reserve(path, 2<<20)
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file was left: %v", err)
	}
	reserve(path, 1<<19)
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil || st.Size != 1<<19 || st.Blocks*512 < 1<<19 {
		t.Errorf("got size %d, %d blocks: %v", st.Size, st.Blocks, err)
	}
	reserve(path, 2<<20) // a larger one does not fit
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file was left: %v", err)
	}
}
