package fstree

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// fillTree makes a tree of so many directories, each of which has a directory, that have so many files each.
func fillTree(t testing.TB, root string, dirs, files int) {
	t.Helper()
	for i := range dirs {
		dir := filepath.Join(root, fmt.Sprintf("dir-%03d", i))
		if err := os.MkdirAll(filepath.Join(dir, "nested"), 0o755); err != nil {
			t.Fatal(err)
		}
		for j := range files {
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("file-with-a-long-name-%05d", j)), []byte("12345678"), 0o444); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestDeleteLarge: directories take several reads, and files go between these.
func TestDeleteLarge(t *testing.T) {
	d := tempDir(t)
	fillTree(t, filepath.Join(d.Path(), "x"), 4, 3000)
	freed, err := d.Delete(ctx, "x")
	if want := uint64(4 * 3000 * 8); freed != want || err != nil {
		t.Errorf("freed %d, %v; want %d", freed, err, want)
	}
	if exists, err := d.Exists("x"); exists || err != nil {
		t.Error(exists, err)
	}
}

// TestDeleteBecameDirectory: what is listed as a file is a directory when it is looked at, and the entries that were read
// along with it are deleted all the same.
func TestDeleteBecameDirectory(t *testing.T) {
	d := tempDir(t)
	path := filepath.Join(d.Path(), "x")
	fillTree(t, path, 1, 3)
	fd, err := openat(d.fd, "x", openDirFlags, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	del := &deleter{ctx: ctx, lists: &d.lists, slots: make(chan struct{})}
	l := d.lists.borrow()
	held, err := l.some(fd)
	if err != nil || len(held) != 1 {
		t.Fatal(held, err)
	}
	gone, err := del.entry(l, fd, path, &entry{name: held[0].name, kind: unix.S_IFREG}, 1)
	if !gone || err != nil {
		t.Error(gone, err)
	}
	if held[0].name != "dir-000" {
		t.Errorf("the list that was being worked on now has '%s'", held[0].name)
	}
	if _, err := d.Delete(ctx, "x"); err != nil {
		t.Error(err)
	}
}

// BenchmarkDelete deletes a tree of 3,000 small files.
func BenchmarkDelete(b *testing.B) {
	d := tempDir(b)
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		fillTree(b, filepath.Join(d.Path(), "x"), 30, 100)
		b.StartTimer()
		if _, err := d.Delete(ctx, "x"); err != nil {
			b.Fatal(err)
		}
	}
}

// TestDeleteNested: directories that hold nothing but directories are divided among goroutines down to the last.
func TestDeleteNested(t *testing.T) {
	for _, others := range []int{0, 1, 3} {
		d := tempDir(t)
		for i := range 7 {
			for j := range 5 {
				fillTree(t, fmt.Sprintf("%s/x/a%d/b%d", d.Path(), i, j), 3, 2)
			}
		}
		del := &deleter{ctx: ctx, lists: &d.lists, slots: make(chan struct{}, others)}
		gone, err := del.entry(d.lists.borrow(), d.fd, d.Path(), &entry{name: "x", kind: unix.S_IFDIR}, 0)
		if want := uint64(7 * 5 * 3 * 2 * 8); !gone || err != nil || del.freed.Load() != want {
			t.Errorf("with %d others: gone %t, %v, freed %d, not %d", others, gone, err, del.freed.Load(), want)
		}
		if exists, err := d.Exists("x"); exists || err != nil {
			t.Error(exists, err)
		}
	}
}
