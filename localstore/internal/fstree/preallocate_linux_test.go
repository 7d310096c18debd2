package fstree

import (
	"bytes"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// during is a reader that has something done when it is first asked.
type during struct {
	do   func()
	rest io.Reader
}

func (d *during) Read(p []byte) (int, error) {
	if d.do != nil {
		d.do()
		d.do = nil
	}
	return d.rest.Read(p)
}

// TestPreallocate looks at a file's blocks before the first byte of its contents has come.
func TestPreallocate(t *testing.T) {
	const size = 1 << 20
	for _, set := range []bool{true, false} {
		d := tempDir(t)
		head := append(rawArchive("nix-archive-1", "(", "type", "regular", "contents"), 0, 0, size>>16, 0, 0, 0, 0, 0)
		var before unix.Stat_t
		look := &during{do: func() {
			if err := unix.Stat(filepath.Join(d.Path(), "x"), &before); err != nil {
				t.Error(err)
			}
		}, rest: bytes.NewReader(append(bytes.Repeat([]byte("x"), size), rawArchive(")")...))}
		if _, err := d.Restore("x", io.MultiReader(bytes.NewReader(head), look), nil, RestoreOptions{Preallocate: set}); err != nil {
			t.Fatal(err)
		}
		if set && unix.Fallocate(tempFile(t), 0, 0, size) != nil {
			t.Skip("this file system sets nothing aside")
		}
		if aside := before.Blocks*512 >= size; aside != set {
			t.Errorf("with %v: %d blocks and %d bytes set aside", set, before.Blocks, before.Size)
		}
		if text, err := os.ReadFile(filepath.Join(d.Path(), "x")); err != nil || string(text) != strings.Repeat("x", size) {
			t.Errorf("read back %d bytes: %v", len(text), err)
		}
	}
}

func tempFile(t *testing.T) int {
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return int(f.Fd())
}

// TestPreallocateTooMuch refuses a file that no disk has room for, whatever its size claims to be, and leaves nothing.
func TestPreallocateTooMuch(t *testing.T) {
	for _, size := range [][]byte{{0, 0, 0, 0, 0, 0, 0, 0x10}, {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f}} {
		d := tempDir(t)
		head := append(rawArchive("nix-archive-1", "(", "type", "regular", "contents"), size...)
		_, err := d.Restore("x", bytes.NewReader(append(head, "some bytes"...)), nil, RestoreOptions{Preallocate: true})
		if !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EFBIG) {
			t.Errorf("error %v", err)
		}
		if entries, err := os.ReadDir(d.Path()); err != nil || len(entries) != 0 {
			t.Errorf("left %v: %v", entries, err)
		}
	}
	if err := preallocate(tempFile(t), math.MaxUint64); err == nil {
		t.Error("a size beyond any file was set aside")
	}
}
