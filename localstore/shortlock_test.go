package localstore

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"nixdaemon/localstore/internal/fstree"
	"nixdaemon/localstore/pathlock"
)

// lockDirs is a store directory and one for the lock files.
func lockDirs(t *testing.T) (root *fstree.Dir, state string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "store"), 0o755); err != nil {
		t.Fatal(err)
	}
	root, err := fstree.OpenRoot(filepath.Join(dir, "store"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root, filepath.Join(dir, "locks")
}

func listed(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func mustLock(t *testing.T, l *shortLocks, path string) *fstree.LockFile {
	t.Helper()
	f, err := l.lock(ctx, path, true)
	if f == nil || err != nil {
		t.Fatal("not locked: ", err)
	}
	return f
}

// TestShortLockLeavesNothing: what locks a path is in the store for as long as that and no longer.
func TestShortLockLeavesNothing(t *testing.T) {
	root, state := lockDirs(t)
	l := newShortLocks(root, state)
	for _, path := range []string{"a", "b", "a"} {
		f := mustLock(t, l, path)
		if got := listed(t, root.Path()); len(got) != 1 || got[0] != path+lockSuffix {
			t.Errorf("while %s is locked there are %v", path, got)
		}
		if again, err := l.lock(ctx, path, false); again != nil || err != nil {
			t.Error("locked twice", err)
		}
		if err := l.unlock(path, f); err != nil {
			t.Error(err)
		}
		if got := listed(t, root.Path()); len(got) != 0 {
			t.Error("left: ", got)
		}
	}
	if err := l.close(); err != nil {
		t.Error(err)
	}
	if got := listed(t, state); len(got) != 0 {
		t.Error("left after the end: ", got)
	}
}

// TestShortLockReleased: within a request files are renamed from path to path, and none is left at its end.
func TestShortLockReleased(t *testing.T) {
	root, state := lockDirs(t)
	l := newShortLocks(root, state)
	release := func(path string) {
		t.Helper()
		if err := l.release(path, mustLock(t, l, path)); err != nil {
			t.Error(err)
		}
	}
	for _, path := range []string{"a", "b", "b"} {
		release(path)
		if got := listed(t, root.Path()); len(got) != 1 || got[0] != path+lockSuffix {
			t.Errorf("after %s there are %v", path, got)
		}
	}
	// Somebody takes the file for garbage, or makes another.
	name := filepath.Join(root.Path(), "b.lock")
	os.Remove(name)
	release("c")
	os.Remove(filepath.Join(root.Path(), "c.lock"))
	if err := os.WriteFile(filepath.Join(root.Path(), "c.lock"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	release("d")
	if f, err := l.lock(ctx, "c", true); f != nil || err != nil {
		t.Error("took another's lock file", err)
	}
	f := mustLock(t, l, "e")
	if err := l.settle(); err != nil {
		t.Error(err)
	}
	if got := listed(t, root.Path()); len(got) != 2 || got[0] != "c.lock" || got[1] != "e.lock" {
		t.Error("left: ", got)
	}
	if err := l.unlock("e", f); err != nil {
		t.Error(err)
	}
	release("f")
	if err := l.close(); err != nil {
		t.Error(err)
	}
	if got := listed(t, root.Path()); len(got) != 1 {
		t.Error("left after the end: ", got)
	}
}

// TestShortLockWaiters: who waits for a path's file is told at the latest when the file has been put aside for long.
func TestShortLockWaiters(t *testing.T) {
	root, state := lockDirs(t)
	l := newShortLocks(root, state)
	f := mustLock(t, l, "a")
	table := pathlock.New()
	path := filepath.Join(root.Path(), "a")
	waiting := make(chan struct{})
	got := make(chan error, 1)
	go func() {
		held, err := table.Lock(ctx, []string{path}, pathlock.Options{OnWait: func(string) { close(waiting) }})
		if err == nil {
			err = held.Unlock()
		}
		got <- err
	}()
	<-waiting
	if err := l.unlock("a", f); err != nil {
		t.Error(err)
	}
	if err := <-got; err != nil {
		t.Error(err)
	}
	// That one left its file, with which the path can be locked.
	f, err := l.lock(ctx, "a", true)
	if f != nil || err != nil {
		t.Error("took another's lock file", err)
	}
	if err := l.close(); err != nil {
		t.Error(err)
	}
}

// TestShortLockKilled: a process that is killed leaves a file with two names. Whoever comes next locks the path, at
// most one at a time, and the other name goes away.
func TestShortLockKilled(t *testing.T) {
	root, state := lockDirs(t)
	killed := newShortLocks(root, state)
	f := mustLock(t, killed, "a")
	// A duplicate of what it left; closing the locked description would need the death of this process.
	for _, name := range listed(t, state) {
		if err := os.Rename(filepath.Join(state, name), filepath.Join(state, "away")); err != nil {
			t.Fatal(err)
		}
	}
	left := filepath.Join(state, pathlock.OwnPrefix+"left")
	if err := os.WriteFile(left, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(left, pathlock.LinkedMode); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(left, filepath.Join(root.Path(), "b.lock")); err != nil {
		t.Fatal(err)
	}
	l := newShortLocks(root, state)
	if f, err := l.lock(ctx, "b", true); f != nil || err != nil {
		t.Fatal("took another's lock file", err)
	}
	table := pathlock.New()
	held, err := table.Lock(ctx, []string{filepath.Join(root.Path(), "b")}, pathlock.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pathlock.New().Lock(ctx, []string{filepath.Join(root.Path(), "b")}, pathlock.Options{TryOnly: true}); err == nil {
		t.Error("locked twice")
	}
	if f, err := l.lock(ctx, "b", false); f != nil || err != nil {
		t.Error("locked twice", err)
	}
	held.SetDeletion(true)
	if err := held.Unlock(); err != nil {
		t.Error(err)
	}
	if err := l.unlock("b", mustLock(t, l, "b")); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(left); !os.IsNotExist(err) {
		t.Error("was not swept: ", err)
	}
	if _, err := os.Lstat(filepath.Join(state, "away")); err != nil {
		t.Error("what is in use was swept: ", err)
	}
	killed.unlock("a", f)
	if err := l.close(); err != nil {
		t.Error(err)
	}
}

// TestShortLockSwept: the files survive that others take them for garbage.
func TestShortLockSwept(t *testing.T) {
	for _, inState := range []bool{true, false} {
		root, state := lockDirs(t)
		dir := state
		if !inState {
			dir, state = root.Path(), ""
		}
		l := newShortLocks(root, state)
		for range 3 {
			f := mustLock(t, l, "a")
			if err := l.unlock("a", f); err != nil {
				t.Error(err)
			}
			for _, name := range listed(t, dir) {
				if !strings.HasPrefix(name, pathlock.OwnPrefix) {
					t.Error("visible in the store: ", name)
				}
				os.Remove(filepath.Join(dir, name))
			}
		}
		f := mustLock(t, l, "a")
		os.RemoveAll(dir + "/a.lock")
		if err := l.unlock("a", f); err != nil {
			t.Error(err)
		}
		if inState {
			os.RemoveAll(state)
			l.expire()
			if err := l.unlock("a", mustLock(t, l, "a")); err != nil {
				t.Error(err)
			}
		}
		if err := l.close(); err != nil {
			t.Error(err)
		}
		if got := listed(t, root.Path()); len(got) != 0 {
			t.Error("left: ", got)
		}
	}
}

// TestShortLockElsewhere: where the state directory is on another mount than the store the files are in the store, under
// names that are nobody's; and where there are no links at all, each path has its own.
func TestShortLockElsewhere(t *testing.T) {
	root, state := lockDirs(t)
	for _, c := range []struct {
		what string
		err  error
		own  int // names besides the path's, while it is locked
	}{{"other mount", unix.EXDEV, 1}, {"no links", unix.EPERM, 0}} {
		l := newShortLocks(root, state)
		f := mustLock(t, l, "x")
		if !l.elsewhere(f.Home(), c.err) {
			t.Fatal(c.what)
		}
		if c.own == 0 {
			l.elsewhere(l.findHome(), c.err)
		}
		l.unlock("x", f)
		l.expire()
		f = mustLock(t, l, "a")
		if got := listed(t, root.Path()); len(got) != 1+c.own {
			t.Errorf("%s: %v", c.what, got)
		}
		if err := l.unlock("a", f); err != nil {
			t.Error(err)
		}
		if got := listed(t, root.Path()); len(got) != c.own {
			t.Errorf("%s: unlocked: %v", c.what, got)
		}
		if err := l.close(); err != nil {
			t.Error(err)
		}
		if got := listed(t, root.Path()); len(got) != 0 {
			t.Errorf("%s: left: %v", c.what, got)
		}
	}
}

// TestShortLockExclusion has goroutines of several processes, as it were, count without any other protection.
func TestShortLockExclusion(t *testing.T) {
	root, state := lockDirs(t)
	shorts := []*shortLocks{newShortLocks(root, state), newShortLocks(root, "")}
	table := pathlock.New()
	var inside atomic.Int32
	count := 0
	enter := func() {
		if inside.Add(1) != 1 {
			t.Error("two inside")
		}
		count++
		inside.Add(-1)
	}
	var wg sync.WaitGroup
	const workers, rounds = 4, 20
	for w := range workers {
		wg.Go(func() {
			l := shorts[w%2]
			for range rounds {
				f, err := l.lock(ctx, "a", true)
				if err != nil {
					t.Error(err)
					return
				}
				if f != nil {
					enter()
					if err := l.unlock("a", f); err != nil {
						t.Error(err)
					}
					continue
				}
				held, err := table.Lock(ctx, []string{filepath.Join(root.Path(), "a")}, pathlock.Options{})
				if err != nil {
					t.Error(err)
					return
				}
				enter()
				held.SetDeletion(w%2 == 0)
				if err := held.Unlock(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if count != workers*rounds {
		t.Errorf("count = %d, want %d", count, workers*rounds)
	}
	for _, l := range shorts {
		if err := l.close(); err != nil {
			t.Error(err)
		}
	}
}
