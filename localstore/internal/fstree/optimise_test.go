package fstree

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"nixdaemon/protocol/nar"
)

type optimiserTest struct {
	*Dir
	links  *Dir
	linked uint64
	warned []string
}

func newOptimiserTest(t *testing.T) *optimiserTest {
	t.Helper()
	d := tempDir(t)
	if err := d.Mkdir(".links", 0o755); err != nil {
		t.Fatal(err)
	}
	links, err := d.Open(".links")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { links.Close() })
	return &optimiserTest{Dir: d, links: links}
}

func (o *optimiserTest) run(t *testing.T, repair bool, names ...string) {
	t.Helper()
	opt := NewOptimiser(o.Dir, o.links, OptimiseOptions{
		Repair: repair,
		Linked: func(size, _ uint64) { o.linked += size },
		Warn:   func(text string) { o.warned = append(o.warned, text) },
	})
	if _, err := opt.Load(); err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if err := opt.Tree(ctx, name); err != nil {
			t.Fatal(err)
		}
	}
}

func (o *optimiserTest) inode(t *testing.T, name string) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(filepath.Join(o.Path(), name), &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

func (o *optimiserTest) add(t *testing.T, name string) {
	t.Helper()
	data := archive(t, func(w *nar.Writer) {
		w.Directory("")
		file(w, "a", "same contents", false)
		w.Directory("d")
		file(w, "b", "same contents", false)
		file(w, "x", "same contents", true)
		w.EndDirectory()
		w.Symlink("l", "target")
		w.EndDirectory()
	})
	if _, err := o.Restore(name, bytes.NewReader(data), nil, RestoreOptions{}); err != nil {
		t.Fatal(err)
	}
}

func TestOptimise(t *testing.T) {
	o := newOptimiserTest(t)
	o.add(t, "one")
	o.add(t, "two")
	o.run(t, false, "one", "two")
	a := o.inode(t, "one/a")
	for _, name := range []string{"one/d/b", "two/a", "two/d/b"} {
		if o.inode(t, name) != a {
			t.Errorf("%s was not linked", name)
		}
	}
	if o.inode(t, "one/d/x") == a || o.inode(t, "one/d/x") != o.inode(t, "two/d/x") {
		t.Error("the executable bit does not count")
	}
	if canLinkSymlinks && o.inode(t, "one/l") != o.inode(t, "two/l") {
		t.Error("links were not linked")
	}
	if want := uint64(3*13 + 13 + len("target")); o.linked != want {
		t.Errorf("freed %d, want %d", o.linked, want)
	}
	for _, name := range []string{"one", "two"} {
		checkCanonical(t, filepath.Join(o.Path(), name))
	}
	names, _ := o.links.Names()
	for _, name := range names {
		if hash, err := o.links.NameOfFile(ctx, name); hash != name {
			t.Errorf("link %s has hash %s, %v", name, hash, err)
		}
	}
	left, _ := o.Names()
	if len(left) != 3 {
		t.Errorf("left %v", left)
	}
	o.linked = 0
	if o.run(t, false, "one", "two"); o.linked != 0 {
		t.Errorf("linked %d bytes a second time", o.linked)
	}
}

func TestOptimiseOfFileInTheStore(t *testing.T) {
	o := newOptimiserTest(t)
	for _, name := range []string{"one", "two"} {
		if _, err := o.RestoreFile(name, strings.NewReader("text"), RestoreOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	os.Chmod(o.Path(), 0o755)
	o.run(t, false, "one", "two")
	if o.inode(t, "one") != o.inode(t, "two") {
		t.Error("was not linked")
	}
	if st, _ := os.Stat(o.Path()); st.Mode().Perm() != 0o755 {
		t.Errorf("the store has mode %v", st.Mode())
	}
}

// Names of temporary links can be foreseen, and builders can make files beside the trees.
func TestOptimiseWithNamesTaken(t *testing.T) {
	o := newOptimiserTest(t)
	for i := range 5 {
		taken := filepath.Join(o.Path(), fmt.Sprintf(".tmp-link-%d-%d", os.Getpid(), i))
		if err := os.WriteFile(taken, []byte("mine"), 0o600); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if text, err := os.ReadFile(taken); err != nil || string(text) != "mine" {
				t.Errorf("somebody else's file now has %q, %v", text, err)
			}
		}()
	}
	for _, name := range []string{"one", "two"} {
		o.add(t, name)
	}
	o.run(t, false, "one", "two")
	if o.inode(t, "one/a") != o.inode(t, "two/a") {
		t.Error("was not linked")
	}
}

func TestOptimiseMeetsCorruption(t *testing.T) {
	o := newOptimiserTest(t)
	o.add(t, "one")
	o.run(t, false, "one")
	name, err := o.NameOfFile(ctx, "one")
	if err != nil || name == "" {
		t.Fatal(err)
	}
	link := o.linkOf(t, "one/a")
	// Another size is noticed always.
	os.Remove(filepath.Join(o.links.Path(), link))
	os.WriteFile(filepath.Join(o.links.Path(), link), []byte("longer than it was"), 0o444)
	o.add(t, "two")
	o.run(t, false, "two")
	if len(o.warned) != 2 || !strings.HasPrefix(o.warned[0], "removing corrupted link ") {
		t.Errorf("warned of %q", o.warned)
	}
	// The same size only when repairing.
	o.warned = nil
	os.Remove(filepath.Join(o.links.Path(), link))
	os.WriteFile(filepath.Join(o.links.Path(), link), []byte("same CONTENTS"), 0o444)
	o.add(t, "three")
	o.run(t, true, "three")
	if len(o.warned) != 2 {
		t.Errorf("warned of %q", o.warned)
	}
	if text, _ := os.ReadFile(filepath.Join(o.Path(), "three/a")); string(text) != "same contents" {
		t.Errorf("now holds %q", text)
	}
}

func (o *optimiserTest) linkOf(t *testing.T, name string) string {
	t.Helper()
	ino := o.inode(t, name)
	names, _ := o.links.Names()
	for _, link := range names {
		if o.inode(t, ".links/"+link) == ino {
			return link
		}
	}
	t.Fatalf("%s is not linked", name)
	return ""
}

func TestOptimiseLeavesWritableFiles(t *testing.T) {
	o := newOptimiserTest(t)
	o.add(t, "one")
	os.Chmod(filepath.Join(o.Path(), "one/a"), 0o644)
	before := o.inode(t, "one/a")
	o.run(t, false, "one")
	if o.inode(t, "one/a") != before || len(o.warned) != 1 || !strings.HasPrefix(o.warned[0], "skipping suspicious writable file ") {
		t.Errorf("warned of %q", o.warned)
	}
}

// TestOptimiseBesideCollector: a collector removes links that no tree has yet, and temporary names.
func TestOptimiseBesideCollector(t *testing.T) {
	o := newOptimiserTest(t)
	const trees = 150
	for i := range trees {
		o.add(t, fmt.Sprint("tree-", i))
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				o.sweep(t)
			}
		}
	}()
	var group sync.WaitGroup
	opt := NewOptimiser(o.Dir, o.links, OptimiseOptions{})
	for worker := range 3 {
		group.Go(func() {
			for i := range trees {
				if err := opt.Tree(ctx, fmt.Sprint("tree-", (i+worker)%trees)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	close(stop)
	<-stopped
	for i := range trees {
		name := fmt.Sprint("tree-", i)
		checkCanonical(t, filepath.Join(o.Path(), name))
		if text, err := os.ReadFile(filepath.Join(o.Path(), name, "a")); string(text) != "same contents" || err != nil {
			t.Error(name, string(text), err)
		}
	}
}

// sweep does what upstream's collector does in the end, without the care of looking again.
func (o *optimiserTest) sweep(t *testing.T) {
	names, err := o.links.Names()
	if err != nil {
		t.Error(err)
	}
	for _, name := range names {
		var st unix.Stat_t
		path := filepath.Join(o.links.Path(), name)
		if unix.Lstat(path, &st) == nil && st.Nlink == 1 {
			os.Remove(path)
		}
	}
	if names, err = o.Names(); err != nil {
		t.Error(err)
	}
	for _, name := range names {
		if strings.HasPrefix(name, ".tmp-link-") {
			os.Remove(filepath.Join(o.Path(), name))
		}
	}
}

// TestOptimiseWarnsOfLinkedFiles: one in the store itself that somebody has made writable is told of, linked or not.
func TestOptimiseWarnsOfLinkedFiles(t *testing.T) {
	o := newOptimiserTest(t)
	for _, name := range []string{"one", "two"} {
		if _, err := o.RestoreFile(name, strings.NewReader("text"), RestoreOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	o.run(t, false, "one", "two")
	if err := os.Chmod(filepath.Join(o.Path(), "one"), 0o644); err != nil {
		t.Fatal(err)
	}
	o.run(t, false, "one", "two")
	if len(o.warned) != 2 || !strings.HasPrefix(o.warned[0], "skipping suspicious writable file ") {
		t.Errorf("warned %q", o.warned)
	}
}

// TestOptimiseMaximumOfNames: a file that equals one which can have no more names stays as it is.
func TestOptimiseMaximumOfNames(t *testing.T) {
	o := newOptimiserTest(t)
	if _, err := o.RestoreFile("one", strings.NewReader("text"), RestoreOptions{}); err != nil {
		t.Fatal(err)
	}
	o.run(t, false, "one")
	if err := o.Mkdir("names", 0o755); err != nil {
		t.Fatal(err)
	}
	const most = 70_000 // more than ext4 has
	for i := 0; ; i++ {
		err := unix.Link(filepath.Join(o.Path(), "one"), filepath.Join(o.Path(), "names", fmt.Sprint(i)))
		if err == unix.EMLINK {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if i == most {
			t.Skipf("a file can have more than %d names on the file system of %s", most, o.Path())
		}
	}
	for _, name := range []string{"two", "three"} {
		if _, err := o.RestoreFile(name, strings.NewReader("text"), RestoreOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	var told []string
	opt := NewOptimiser(o.Dir, o.links, OptimiseOptions{
		Linked: func(uint64, uint64) { t.Error("linked") }, Info: func(text string) { told = append(told, text) },
		Warn: func(text string) { t.Error("warned:", text) },
	})
	for _, name := range []string{"two", "three"} {
		if err := opt.Tree(ctx, name); err != nil {
			t.Error(err)
		}
	}
	want := fmt.Sprintf("\"%s/.links/%s\" has maximum number of links", o.Path(), o.linkOf(t, "one"))
	if len(told) != 2 || told[0] != want || told[1] != want {
		t.Errorf("told %q, want %q twice", told, want)
	}
	if left, err := filepath.Glob(o.Path() + "/.tmp-link*"); len(left) > 0 || err != nil {
		t.Errorf("left %v, %v", left, err)
	}
}
