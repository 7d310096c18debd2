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
	expect := func(want int64) {
		t.Helper()
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil || st.Size != want || st.Blocks*512 < want {
			t.Errorf("got size %d, %d blocks: %v", st.Size, st.Blocks, err)
		}
	}
	reserve(path, 1<<18)
	expect(1 << 18)
	reserve(path, 3<<19) // does not fit
	expect(3 << 18)
	other := filepath.Join(dir, "other")
	if err := os.WriteFile(other, make([]byte, 1<<18), 0o600); err != nil {
		t.Fatal(err)
	}
	reserve(path, 1<<20)
	expect(1 << 19)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(other, make([]byte, 1<<20-1<<16), 0o600); err != nil {
		t.Fatal(err)
	}
	reserve(path, 1<<20)
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file was left: %v", err)
	}
}
