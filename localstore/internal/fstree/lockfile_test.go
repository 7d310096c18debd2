package fstree

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nixdaemon/localstore/pathlock"
)

func newLockFile(t *testing.T, d *Dir) *LockFile {
	t.Helper()
	f, err := d.CreateLockFile("own")
	if err != nil || f == nil {
		t.Fatal(f, err)
	}
	return f
}

func openWaiter(t *testing.T, d *Dir, name string) *os.File {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(d.Path(), name), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func absent(t *testing.T, d *Dir, names ...string) {
	t.Helper()
	for _, name := range names {
		if exists, err := d.Exists(name); exists || err != nil {
			t.Errorf("%s is still there (%v)", name, err)
		}
	}
}

// TestLockFileGoesRound: one file locks several paths in turn, and others who wait for it learn that it is gone.
func TestLockFileGoesRound(t *testing.T) {
	home, d := tempDir(t), tempDir(t)
	f := newLockFile(t, home)
	if second, err := home.CreateLockFile("own"); second != nil || err != nil {
		t.Error("locked twice", err)
	}
	os.WriteFile(filepath.Join(d.Path(), "taken.lock"), nil, 0o600)
	if err := f.Link(d, "taken.lock"); !errors.Is(err, fs.ErrExist) || f.Linked() != "" {
		t.Error(err)
	}
	if err := f.Link(d, "../x.lock"); !errors.Is(err, fs.ErrInvalid) {
		t.Error(err)
	}
	var waiters []*os.File
	for _, name := range []string{"a.lock", "b.lock", "a.lock"} {
		if err := f.Link(d, name); err != nil || f.Linked() != name {
			t.Fatal(err)
		}
		waiter := openWaiter(t, d, name)
		if err := unix.Flock(int(waiter.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != unix.EWOULDBLOCK {
			t.Error("is not locked", err)
		}
		waiters = append(waiters, waiter)
		if err := f.Unlink(); err != nil || f.Linked() != "" || f.Gone() {
			t.Error(err)
		}
		absent(t, d, name)
	}
	if time.Since(f.Born()) < 0 || f.Born().IsZero() || f.Home() != home {
		t.Error("has no age or home")
	}
	if err := f.Link(d, "b.lock"); err != nil {
		t.Fatal(err)
	}
	if err := f.Delete(); err != nil {
		t.Fatal(err)
	}
	absent(t, d, "b.lock")
	absent(t, home, "own")
	for _, waiter := range waiters {
		if err := unix.Flock(int(waiter.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			t.Error("is still locked", err)
		}
		unix.Flock(int(waiter.Fd()), unix.LOCK_UN)
		if stale, err := pathlock.IsStale(waiter); !stale || err != nil {
			t.Error("a waiter does not learn that the file is stale", err)
		}
	}
}

func TestLockFileIsRelinked(t *testing.T) {
	home, d := tempDir(t), tempDir(t)
	f := newLockFile(t, home)
	if err := f.Link(d, "a.lock"); err != nil {
		t.Fatal(err)
	}
	os.WriteFile(filepath.Join(d.Path(), "taken.lock"), nil, 0o600)
	if err := f.Relink("taken.lock"); !errors.Is(err, fs.ErrExist) || f.Linked() != "a.lock" {
		t.Error(err, f.Linked())
	}
	if err := f.Relink("b.lock"); err != nil || f.Linked() != "b.lock" {
		t.Error(err, f.Linked())
	}
	absent(t, d, "a.lock")
	// Its other name is gone, but it can be told by its inode still.
	os.Remove(filepath.Join(home.Path(), "own"))
	if err := f.Relink("c.lock"); err != nil {
		t.Error(err)
	}
	os.Remove(filepath.Join(d.Path(), "c.lock"))
	os.WriteFile(filepath.Join(d.Path(), "c.lock"), []byte("theirs"), 0o600)
	if err := f.Relink("d.lock"); !errors.Is(err, ErrReplaced) || f.Linked() != "" {
		t.Error(err, f.Linked())
	}
	absent(t, d, "d.lock")
	if err := f.Delete(); err != nil {
		t.Error(err)
	}
	if text, err := os.ReadFile(filepath.Join(d.Path(), "c.lock")); string(text) != "theirs" {
		t.Error(string(text), err)
	}
}

// TestLockFileTakenForGarbage: somebody deletes the names, and makes other files of those names.
func TestLockFileTakenForGarbage(t *testing.T) {
	home, d := tempDir(t), tempDir(t)
	f := newLockFile(t, home)
	if err := f.Link(d, "a.lock"); err != nil {
		t.Fatal(err)
	}
	os.Remove(filepath.Join(home.Path(), "own"))
	if f.Gone() {
		t.Error("is gone while it locks")
	}
	os.Remove(filepath.Join(d.Path(), "a.lock"))
	if !f.Gone() {
		t.Error("is not gone")
	}
	if err := f.Link(d, "b.lock"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	theirs := []string{filepath.Join(d.Path(), "a.lock"), filepath.Join(home.Path(), "own")}
	for _, path := range theirs {
		os.WriteFile(path, []byte("theirs"), 0o600)
	}
	if err := f.Delete(); err != nil {
		t.Error(err)
	}
	for _, path := range theirs {
		if text, err := os.ReadFile(path); string(text) != "theirs" {
			t.Error(string(text), err)
		}
	}
}

// TestDeleteUnlocked deletes what a killed process has left, and nothing else; what waits for it is not told.
func TestDeleteUnlocked(t *testing.T) {
	d := tempDir(t)
	f := newLockFile(t, d)
	if err := d.DeleteUnlocked("own"); err != nil || f.Gone() {
		t.Error("deleted what is locked", err)
	}
	if err := f.Link(d, "a.lock"); err != nil {
		t.Fatal(err)
	}
	unix.Close(f.fd) // as by being killed
	if err := d.DeleteUnlocked("own"); err != nil {
		t.Error(err)
	}
	absent(t, d, "own")
	if stale, err := pathlock.IsStale(openWaiter(t, d, "a.lock")); stale || err != nil {
		t.Error("was marked", err)
	}
	for _, name := range []string{"missing", "../x"} {
		if err := d.DeleteUnlocked(name); err == nil {
			t.Error("no error for ", name)
		}
	}
}
