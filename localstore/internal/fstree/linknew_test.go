package fstree

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"nixdaemon/protocol/nar"
	"nixdaemon/protocol/nixhash"
)

// restoreLinked restores a tree that is linked as it is written.
func (o *optimiserTest) restoreLinked(t *testing.T, name string, data []byte) (linked uint64) {
	t.Helper()
	opt := NewOptimiser(o.Dir, o.links, OptimiseOptions{Linked: func(size, _ uint64) { linked += size }})
	if _, err := o.Restore(name, bytes.NewReader(data), nil, RestoreOptions{Link: opt}); err != nil {
		t.Fatal(err)
	}
	if err := opt.Root(ctx, name, nixhash.Of(nixhash.SHA256, string(data))); err != nil {
		t.Fatal(err)
	}
	return linked
}

func variedTree(t *testing.T) []byte {
	return archive(t, func(w *nar.Writer) {
		w.Directory("")
		file(w, "a", "same contents", false)
		file(w, "big", strings.Repeat("large contents", 20_000), false)
		w.Directory("d")
		file(w, "b", "same contents", false)
		file(w, "empty", "", false)
		w.Symlink("l", "target")
		file(w, "x", "same contents", true)
		w.EndDirectory()
		file(w, "hole", strings.Repeat("\x00", 3*minHole), true)
		w.Symlink("l", "target")
		w.EndDirectory()
	})
}

// TestLinkWhileRestoring: what is linked while it is written is what would be linked afterwards, and called the same.
func TestLinkWhileRestoring(t *testing.T) { testLinkWhileRestoring(t, variedTree(t)) }

func testLinkWhileRestoring(t *testing.T, data []byte) {
	o := newOptimiserTest(t)
	first := o.restoreLinked(t, "one", data)
	again := o.restoreLinked(t, "two", data)
	single := archive(t, func(w *nar.Writer) { file(w, "", "same contents", false) })
	alone := o.restoreLinked(t, "alone", single)

	later := newOptimiserTest(t)
	for _, name := range []string{"one", "two"} {
		if _, err := later.Restore(name, bytes.NewReader(data), nil, RestoreOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := later.Restore("alone", bytes.NewReader(single), nil, RestoreOptions{}); err != nil {
		t.Fatal(err)
	}
	later.run(t, false, "one", "two", "alone")
	if first+again+alone != later.linked {
		t.Errorf("linked %d, %d and %d bytes, and %d afterwards", first, again, alone, later.linked)
	}
	if got, want := o.shape(t), later.shape(t); got != want {
		t.Errorf("linked while it was written:\n%s\nand afterwards:\n%s", got, want)
	}
	for _, name := range []string{"one", "two", "alone"} {
		checkCanonical(t, filepath.Join(o.Path(), name))
		var out bytes.Buffer
		if err := o.Dump(ctx, name, &out, DumpOptions{}); err != nil {
			t.Fatal(err)
		}
		want := data
		if name == "alone" {
			want = single
		}
		if !bytes.Equal(out.Bytes(), want) {
			t.Errorf("%s is not what it was", name)
		}
	}
}

// shape says which names are the same file.
func (o *optimiserTest) shape(t *testing.T) string {
	t.Helper()
	first := make(map[uint64]string)
	var out strings.Builder
	filepath.WalkDir(o.Path(), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		name, _ := filepath.Rel(o.Path(), path)
		if first[st.Ino] == "" {
			first[st.Ino] = name
		}
		out.WriteString(name + " is " + first[st.Ino] + "\n")
		return nil
	})
	return out.String()
}

// TestLinkWhileRestoringMeetsCorruption: a link that is not what its name says is replaced.
func TestLinkWhileRestoringMeetsCorruption(t *testing.T) {
	o := newOptimiserTest(t)
	data := variedTree(t)
	o.restoreLinked(t, "one", data)
	link := o.linkOf(t, "one/a")
	if _, err := o.links.Delete(ctx, link); err != nil {
		t.Fatal(err)
	}
	if _, err := o.links.RestoreFile(link, strings.NewReader("longer than it was"), RestoreOptions{}); err != nil {
		t.Fatal(err)
	}
	o.restoreLinked(t, "two", data)
	var out bytes.Buffer
	if err := o.Dump(ctx, "two", &out, DumpOptions{}); err != nil || !bytes.Equal(out.Bytes(), data) {
		t.Errorf("the tree was damaged: %v", err)
	}
}

// TestLinkSmallAndLarge: files that are looked for before they are made, and those that are not, are linked alike, also
// where a name that is no file of that size stands in the way.
func TestLinkSmallAndLarge(t *testing.T) {
	o := newOptimiserTest(t)
	sizes := []int{0, 1, smallFile - 1, smallFile, smallFile + 1, 3 * smallFile}
	data := archive(t, func(w *nar.Writer) {
		w.Directory("")
		for i, size := range sizes {
			file(w, string(rune('a'+i)), strings.Repeat("y", size), i%2 == 0)
		}
		w.EndDirectory()
	})
	o.restoreLinked(t, "one", data)
	var want uint64
	for _, size := range sizes {
		want += uint64(size)
	}
	if got := o.restoreLinked(t, "two", data); got != want {
		t.Errorf("linked %d bytes, want %d", got, want)
	}
	for i := range sizes {
		name := "/" + string(rune('a'+i))
		var one, two unix.Stat_t
		if err := errors.Join(unix.Lstat(o.Path()+"/one"+name, &one), unix.Lstat(o.Path()+"/two"+name, &two)); err != nil || one.Ino != two.Ino || one.Nlink != 3 {
			t.Errorf("%d bytes: inodes %d and %d of %d names, %v", sizes[i], one.Ino, two.Ino, one.Nlink, err)
		}
	}
	// Somebody has made a link writable: what is added keeps its own metadata, or shares the link's, as upstream has it,
	// but never fails.
	if err := os.Chmod(o.links.Path()+"/"+o.linkOf(t, "one/b"), 0o644); err != nil {
		t.Fatal(err)
	}
	o.restoreLinked(t, "three", data)
	var out bytes.Buffer
	if err := o.Dump(ctx, "three", &out, DumpOptions{}); err != nil || !bytes.Equal(out.Bytes(), data) {
		t.Errorf("the tree was damaged: %v", err)
	}
}
