package fstree

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"nixdaemon/protocol/nar"
	"nixdaemon/protocol/nixhash"
)

var ctx = context.Background()

// tempDir gives a directory that can be removed whatever the test leaves in it.
func tempDir(t testing.TB) *Dir {
	t.Helper()
	path := t.TempDir()
	d, err := OpenDir(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		names, _ := d.Names()
		for _, name := range names {
			d.Delete(ctx, name)
		}
		d.Close()
	})
	return d
}

// archive makes an archive with calls of a writer.
func archive(t testing.TB, f func(w *nar.Writer)) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := nar.NewWriter(&buf)
	f(w)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func file(w *nar.Writer, name, text string, executable bool) {
	w.Regular(name, executable, uint64(len(text)), strings.NewReader(text))
}

func sample(t testing.TB) []byte {
	return archive(t, func(w *nar.Writer) {
		w.Directory("")
		w.Directory("dir")
		w.Directory("empty")
		w.EndDirectory()
		file(w, "file", "contents", false)
		file(w, "nothing", "", false)
		w.Symlink("up", "../../../etc/passwd")
		w.EndDirectory()
		w.Symlink("link", "/nonexistent")
		file(w, "prog", strings.Repeat("#!/bin/sh\n", 20000), true)
		w.EndDirectory()
	})
}

func TestRestoreThenDump(t *testing.T) {
	d := tempDir(t)
	data := sample(t)
	var copied bytes.Buffer
	size, err := d.Restore("x", bytes.NewReader(data), &copied, RestoreOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if size != int64(len(data)) || !bytes.Equal(copied.Bytes(), data) {
		t.Error("what was passed on is not the archive")
	}
	var back bytes.Buffer
	if err := d.Dump(ctx, "x", &back, DumpOptions{}); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(back.Bytes(), data) {
		t.Error("dump differs from what was restored")
	}
	checkCanonical(t, filepath.Join(d.Path(), "x"))
}

func checkCanonical(t *testing.T, root string) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		mode := st.Mode & 0o7777
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			if mode != 0o555 {
				t.Errorf("%s has mode %o", path, mode)
			}
		case unix.S_IFREG:
			if mode != 0o444 && mode != 0o555 {
				t.Errorf("%s has mode %o", path, mode)
			}
		}
		if st.Mtim.Sec != 1 || st.Mtim.Nsec != 0 {
			t.Errorf("%s has modification time %v", path, st.Mtim)
		}
		if int(st.Uid) != os.Geteuid() {
			t.Errorf("%s has owner %d", path, st.Uid)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestRestoreUnderStrangeUmask(t *testing.T) {
	old := unix.Umask(0o077)
	defer unix.Umask(old)
	d := tempDir(t)
	if _, err := d.Restore("x", bytes.NewReader(sample(t)), nil, RestoreOptions{}); err != nil {
		t.Fatal(err)
	}
	checkCanonical(t, filepath.Join(d.Path(), "x"))
}

// rawArchive joins strings as an archive does, without checking anything.
func rawArchive(parts ...string) []byte {
	var b []byte
	for _, p := range parts {
		b = append(b, byte(len(p)), byte(len(p)>>8), 0, 0, 0, 0, 0, 0)
		b = append(b, p...)
		b = append(b, make([]byte, -len(p)&7)...)
	}
	return b
}

func TestRestoreRefusesHostileArchives(t *testing.T) {
	entryOf := func(name string) []byte {
		return rawArchive("nix-archive-1", "(", "type", "directory", "entry", "(", "name", name, "node",
			"(", "type", "regular", "contents", "evil", ")", ")", ")")
	}
	linkThenThrough := rawArchive("nix-archive-1", "(", "type", "directory",
		"entry", "(", "name", "a", "node", "(", "type", "symlink", "target", "..", ")", ")",
		"entry", "(", "name", "a", "node", "(", "type", "directory",
		"entry", "(", "name", "evil", "node", "(", "type", "regular", "contents", "x", ")", ")", ")", ")", ")")
	deep := []string{"nix-archive-1"}
	for range 80 {
		deep = append(deep, "(", "type", "directory", "entry", "(", "name", "d", "node")
	}
	whole := sample(t)
	for name, data := range map[string][]byte{
		"parent":       entryOf(".."),
		"self":         entryOf("."),
		"slash":        entryOf("../evil"),
		"absolute":     entryOf("/tmp/evil"),
		"nul":          entryOf("a\x00b"),
		"empty name":   entryOf(""),
		"long name":    entryOf(strings.Repeat("n", 256)),
		"link reused":  linkThenThrough,
		"deep":         rawArchive(deep...),
		"empty target": rawArchive("nix-archive-1", "(", "type", "symlink", "target", "", ")"),
		"truncated":    whole[:len(whole)-100],
		"garbage":      []byte("garbage that is no archive"),
		"nothing":      nil,
	} {
		t.Run(name, func(t *testing.T) {
			d := tempDir(t)
			if _, err := d.Restore("x", bytes.NewReader(data), nil, RestoreOptions{}); err == nil {
				t.Error("was accepted")
			}
			names, err := d.Names()
			if err != nil || len(names) != 0 {
				t.Errorf("left %v, %v", names, err)
			}
		})
	}
}

func TestRestoreLeavesWhatIsThere(t *testing.T) {
	for _, kind := range []string{"file", "link", "dir"} {
		d := tempDir(t)
		outside := filepath.Join(t.TempDir(), "victim")
		path := filepath.Join(d.Path(), "x")
		switch kind {
		case "file":
			os.WriteFile(path, []byte("old"), 0o644)
		case "link":
			os.Symlink(outside, path)
		case "dir":
			os.Mkdir(path, 0o755)
		}
		for _, data := range [][]byte{sample(t), archive(t, func(w *nar.Writer) { file(w, "", "new", false) })} {
			if _, err := d.Restore("x", bytes.NewReader(data), nil, RestoreOptions{}); !errors.Is(err, fs.ErrExist) {
				t.Errorf("%s: %v", kind, err)
			}
		}
		if _, err := os.Lstat(path); err != nil {
			t.Errorf("%s is gone", kind)
		}
		if _, err := os.Lstat(outside); err == nil {
			t.Errorf("%s was followed", kind)
		}
	}
	d := tempDir(t)
	for _, name := range []string{"", ".", "..", "a/b", "a\x00"} {
		if _, err := d.Restore(name, bytes.NewReader(sample(t)), nil, RestoreOptions{}); err == nil {
			t.Errorf("name %q was accepted", name)
		}
	}
}

func TestRestoreLeavesHoles(t *testing.T) {
	d := tempDir(t)
	content := append(make([]byte, 1<<20), append([]byte("middle"), make([]byte, 3<<20)...)...)
	data := archive(t, func(w *nar.Writer) { w.Regular("", false, uint64(len(content)), bytes.NewReader(content)) })
	if _, err := d.Restore("x", bytes.NewReader(data), nil, RestoreOptions{}); err != nil {
		t.Fatal(err)
	}
	var back bytes.Buffer
	if err := d.Dump(ctx, "x", &back, DumpOptions{}); err != nil || !bytes.Equal(back.Bytes(), data) {
		t.Fatal("contents differ", err)
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(d.Path(), "x"), &st); err != nil || st.Size != int64(len(content)) {
		t.Fatal(st.Size, err)
	}
	if st.Blocks*512 > 1<<20 {
		t.Errorf("takes %d bytes on disk", st.Blocks*512)
	}
}

func TestCaseHack(t *testing.T) {
	d := tempDir(t)
	data := archive(t, func(w *nar.Writer) {
		w.Directory("")
		file(w, "README", "1", false)
		file(w, "ReadMe", "2", false)
		w.Directory("readme")
		file(w, "x", "3", false)
		w.EndDirectory()
		w.EndDirectory()
	})
	if _, err := d.Restore("x", bytes.NewReader(data), nil, RestoreOptions{CaseHack: true}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"README", "ReadMe~nix~case~hack~1", "readme~nix~case~hack~2/x"} {
		if _, err := os.Stat(filepath.Join(d.Path(), "x", name)); err != nil {
			t.Error(err)
		}
	}
	var back bytes.Buffer
	if err := d.Dump(ctx, "x", &back, DumpOptions{CaseHack: true}); err != nil || !bytes.Equal(back.Bytes(), data) {
		t.Fatal("did not come back", err)
	}
	os.Chmod(filepath.Join(d.Path(), "x"), 0o755)
	os.WriteFile(filepath.Join(d.Path(), "x", "ReadMe~nix~case~hack~7"), nil, 0o444)
	if err := d.Dump(ctx, "x", io.Discard, DumpOptions{CaseHack: true}); err == nil || !strings.HasPrefix(err.Error(), "file name collision between") {
		t.Error(err)
	}
}

// TestDumpOfRoots: a root whose kind nobody knows before is written as what it is beneath a directory.
func TestDumpOfRoots(t *testing.T) {
	for _, unread := range []bool{false, true} {
		d := tempDir(t)
		at := func(name string) string { return filepath.Join(d.Path(), name) }
		err := errors.Join(os.WriteFile(at("file"), []byte("text"), 0o444), os.WriteFile(at("program"), nil, 0o555), os.Mkdir(at("empty"), 0o755),
			os.Symlink("file", at("link")), os.Symlink("empty", at("dir-link")), os.Symlink("nowhere", at("dangling")), unix.Mkfifo(at("pipe"), 0o444))
		if err != nil {
			t.Fatal(err)
		}
		symlink := func(target string) func(*nar.Writer) {
			return func(w *nar.Writer) { w.Symlink("", target) }
		}
		for name, want := range map[string]func(*nar.Writer){
			"file":    func(w *nar.Writer) { file(w, "", "text", false) },
			"program": func(w *nar.Writer) { file(w, "", "", true) },
			"empty":   func(w *nar.Writer) { w.Directory(""); w.EndDirectory() },
			"link":    symlink("file"), "dir-link": symlink("empty"), "dangling": symlink("nowhere"),
		} {
			var got bytes.Buffer
			if err := d.Dump(t.Context(), name, &got, DumpOptions{Unread: unread}); err != nil || !bytes.Equal(got.Bytes(), archive(t, want)) {
				t.Errorf("%s: %q, %v", name, got.Bytes(), err)
			}
		}
		for name, want := range map[string]string{
			"pipe": fmt.Sprintf("file '%s' has an unsupported type", at("pipe")),
			"gone": fmt.Sprintf("getting status of \"%s\": no such file or directory", at("gone")),
		} {
			if err := d.Dump(t.Context(), name, io.Discard, DumpOptions{Unread: unread}); err == nil || err.Error() != want {
				t.Errorf("%s: %v, want %s", name, err, want)
			}
		}
	}
}

func TestDumpRefuses(t *testing.T) {
	d := tempDir(t)
	os.Mkdir(filepath.Join(d.Path(), "x"), 0o755)
	if err := unix.Mkfifo(filepath.Join(d.Path(), "x", "pipe"), 0o644); err != nil {
		t.Fatal(err)
	}
	err := d.Dump(ctx, "x", io.Discard, DumpOptions{})
	if want := fmt.Sprintf("file '%s/x/pipe' has an unsupported type", d.Path()); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	deep := filepath.Join(d.Path(), "deep", strings.Repeat("d/", 64))
	os.MkdirAll(deep, 0o755)
	err = d.Dump(ctx, "deep", io.Discard, DumpOptions{})
	if err == nil || !strings.HasSuffix(err.Error(), "/d' exceeds maximum NAR directory depth of 64") {
		t.Error(err)
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if err := d.Dump(cancelled, "deep", io.Discard, DumpOptions{}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestDelete(t *testing.T) {
	d := tempDir(t)
	if freed, err := d.Delete(ctx, "missing"); freed != 0 || err != nil {
		t.Error(freed, err)
	}
	if _, err := d.Restore("x", bytes.NewReader(sample(t)), nil, RestoreOptions{}); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(d.Path(), "x")
	os.Chmod(path, 0o755)
	// Two names count, three do not.
	for _, name := range []string{"two", "three"} {
		os.WriteFile(filepath.Join(path, name), []byte(strings.Repeat("x", 1000)), 0o444)
		os.Link(filepath.Join(path, name), filepath.Join(d.Path(), name+"-a"))
	}
	os.Link(filepath.Join(path, "three"), filepath.Join(d.Path(), "three-b"))
	os.Chmod(path, 0o000)
	freed, err := d.Delete(ctx, "x")
	if err != nil {
		t.Fatal(err)
	}
	links := uint64(len("../../../etc/passwd") + len("/nonexistent"))
	if want := uint64(len("contents")+200000+1000) + links; freed != want {
		t.Errorf("freed %d, want %d", freed, want)
	}
	if exists, err := d.Exists("x"); exists || err != nil {
		t.Error(exists, err)
	}
}

// TestDeletedMeanwhile: a directory that somebody else deletes after it was opened has no contents.
func TestDeletedMeanwhile(t *testing.T) {
	dir := t.TempDir() + "/dir"
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := (&deleter{ctx: t.Context(), lists: new(listers)}).contents(new(lister), fd, dir, 0); err != nil {
		t.Error(err)
	}
}

func TestDeleteFollowsNothing(t *testing.T) {
	d := tempDir(t)
	victim := t.TempDir()
	os.WriteFile(filepath.Join(victim, "keep"), nil, 0o644)
	os.Mkdir(filepath.Join(d.Path(), "x"), 0o755)
	os.Symlink(victim, filepath.Join(d.Path(), "x", "link"))
	os.Symlink(victim, filepath.Join(d.Path(), "top"))
	for _, name := range []string{"x", "top"} {
		if _, err := d.Delete(ctx, name); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(filepath.Join(victim, "keep")); err != nil {
		t.Error(err)
	}
}

// TestDeleteDeep: a builder can nest directories deeper than a path can name.
func TestDeleteDeep(t *testing.T) {
	d := tempDir(t)
	if err := d.Mkdir("x", 0o755); err != nil {
		t.Fatal(err)
	}
	fd, err := openat(d.fd, "x", openDirFlags, 0)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3000 {
		if err := unix.Mkdirat(fd, "dir", 0o755); err != nil {
			t.Fatal(i, err)
		}
		next, err := openat(fd, "dir", openDirFlags, 0)
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(fd)
		fd = next
	}
	unix.Close(fd)
	var limit unix.Rlimit
	unix.Getrlimit(unix.RLIMIT_NOFILE, &limit)
	low := unix.Rlimit{Cur: 300, Max: limit.Max}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
	if _, err := d.Delete(ctx, "x"); err != nil {
		t.Fatal(err)
	}
	if exists, _ := d.Exists("x"); exists {
		t.Error("is still there")
	}
}

func TestMove(t *testing.T) {
	d := tempDir(t)
	if _, err := d.Restore("x", bytes.NewReader(sample(t)), nil, RestoreOptions{}); err != nil {
		t.Fatal(err)
	}
	d.Mkdir("sub", 0o755)
	sub, err := d.Open("sub")
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	if err := d.Move("x", sub, "y"); err != nil {
		t.Fatal(err)
	}
	checkCanonical(t, filepath.Join(d.Path(), "sub", "y"))
	d.Mkdir("x", 0o755)
	if err := sub.Move("y", d, "x"); !errors.Is(err, fs.ErrExist) {
		t.Error(err)
	}
}

func TestExchange(t *testing.T) {
	d := tempDir(t)
	for _, name := range []string{"x", "y"} {
		data := archive(t, func(w *nar.Writer) { w.Directory(""); file(w, "name", name, false); w.EndDirectory() })
		if _, err := d.Restore(name, bytes.NewReader(data), nil, RestoreOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Exchange("x", d, "y"); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(filepath.Join(d.Path(), "x", "name")); string(text) != "y" {
		t.Error(string(text), err)
	}
	checkCanonical(t, filepath.Join(d.Path(), "y"))
	if err := d.Exchange("x", d, "missing"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

func TestHashGit(t *testing.T) {
	d := tempDir(t)
	os.WriteFile(filepath.Join(d.Path(), "hello"), []byte("hello\n"), 0o644)
	os.MkdirAll(filepath.Join(d.Path(), "empty"), 0o755)
	os.MkdirAll(filepath.Join(d.Path(), "tree", "a"), 0o755)
	os.WriteFile(filepath.Join(d.Path(), "tree", "a", "f"), []byte("hello\n"), 0o755)
	os.WriteFile(filepath.Join(d.Path(), "tree", "a.b"), []byte("hello\n"), 0o644)
	os.Symlink("hello", filepath.Join(d.Path(), "tree", "link"))
	// As printed by git itself.
	for name, want := range map[string]string{
		"hello": "ce013625030ba8dba906f756967f9e9ca394464a",
		"empty": "4b825dc642cb6eb9a060e54bf8d69288fbee4904",
		"tree":  "34747acc679fe40fe64b609536107ca45e6d8cfe",
	} {
		hash, err := d.HashGit(ctx, name, nixhash.SHA1)
		if err != nil || hash.Base16() != want {
			t.Errorf("%s: %s, %v", name, hash.Base16(), err)
		}
	}
}

func FuzzRestore(f *testing.F) {
	f.Add(sample(f))
	f.Add(rawArchive("nix-archive-1", "(", "type", "symlink", "target", "../x", ")"))
	f.Add(rawArchive("nix-archive-1", "(", "type", "directory", "entry", "(", "name", "../x", "node"))
	f.Fuzz(func(t *testing.T, data []byte) {
		d := tempDir(t)
		_, err := d.Restore("x", bytes.NewReader(data), nil, RestoreOptions{CaseHack: true})
		names, _ := d.Names()
		if err != nil && len(names) != 0 {
			t.Fatalf("left %v after %v", names, err)
		}
		if err != nil {
			return
		}
		if len(names) != 1 || names[0] != "x" {
			t.Fatalf("made %v", names)
		}
		var back bytes.Buffer
		if err := d.Dump(ctx, "x", &back, DumpOptions{CaseHack: true}); err == nil && !bytes.HasPrefix(data, back.Bytes()) {
			t.Fatal("dump differs from what was restored")
		}
	})
}
