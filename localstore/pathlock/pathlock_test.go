package pathlock

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// childPaths holds the paths, one a line, that this test binary locks when it is started again as a foreign process.
const childPaths = "NIXDAEMON_TEST_LOCK_PATHS"

func TestMain(m *testing.M) {
	if paths := os.Getenv(childPaths); paths != "" {
		if err := child(strings.Split(paths, "\n")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// child locks, says so, and unlocks with deletion when its input ends.
func child(paths []string) error {
	held, err := New().Lock(context.Background(), paths, Options{OnWait: func(string) { fmt.Println("waiting") }})
	if err != nil {
		return err
	}
	fmt.Println("locked")
	_, err = io.Copy(io.Discard, os.Stdin)
	held.SetDeletion(true)
	return errors.Join(err, held.Unlock())
}

type process struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

func startChild(t *testing.T, paths ...string) *process {
	t.Helper()
	p := &process{t: t, cmd: exec.Command(os.Args[0])}
	p.cmd.Env = append(os.Environ(), childPaths+"="+strings.Join(paths, "\n"))
	p.cmd.Stderr = os.Stderr
	var err error
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.out = bufio.NewScanner(out)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *process) expect(want string) {
	p.t.Helper()
	if !p.out.Scan() || p.out.Text() != want {
		p.t.Fatalf("child said %q, want %q (%v)", p.out.Text(), want, p.out.Err())
	}
}

func (p *process) release() {
	p.t.Helper()
	if err := errors.Join(p.in.Close(), p.cmd.Wait()); err != nil {
		p.t.Error(err)
	}
}

func lock(t *testing.T, table *Table, opts Options, paths ...string) *Held {
	t.Helper()
	held, err := table.Lock(t.Context(), paths, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unlock(t, held) })
	return held
}

func unlock(t *testing.T, held *Held) {
	t.Helper()
	if err := held.Unlock(); err != nil {
		t.Error(err)
	}
}

func TestForeignProcessHolds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	other := startChild(t, path)
	other.expect("locked")
	table := New()
	if _, err := table.Lock(t.Context(), []string{path}, Options{TryOnly: true}); !errors.Is(err, ErrLocked) {
		t.Errorf("TryOnly = %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	_, err := table.Lock(ctx, []string{path}, Options{OnWait: func(string) { cancel() }})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled = %v", err)
	}
	var waited []string
	lock(t, table, Options{OnWait: func(path string) {
		waited = append(waited, path)
		other.release()
	}}, path)
	if len(waited) != 1 || waited[0] != path {
		t.Errorf("waited for %v", waited)
	}
}

func TestForeignProcessWaits(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	for _, deletion := range []bool{false, true} {
		held := lock(t, New(), Options{}, b, a, b)
		other := startChild(t, a, b)
		other.expect("waiting")
		held.SetDeletion(deletion)
		unlock(t, held)
		// b may have been free already when the child came to it, or not.
		for other.out.Scan() && other.out.Text() != "locked" {
		}
		if other.out.Text() != "locked" {
			t.Fatalf("child said %q", other.out.Text())
		}
		for _, path := range []string{a, b} {
			if _, err := os.Stat(path + ".lock"); err != nil {
				t.Errorf("the child must have a lock file of its own: %v", err)
			}
		}
		other.release()
		if left, err := os.ReadDir(dir); len(left) != 0 || err != nil {
			t.Errorf("left after deletion: %v, %v", left, err)
		}
	}
}

func TestUnlockLeavesEmptyFileOrNone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	held := lock(t, New(), Options{}, path)
	file, err := os.Open(path + ".lock")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if st, err := file.Stat(); err != nil || st.Mode() != 0o600 || st.Size() != 0 {
		t.Errorf("while held: %v, %v", st, err)
	}
	unlock(t, held)
	if st, err := os.Stat(path + ".lock"); err != nil || st.Size() != 0 {
		t.Errorf("after unlocking: %v, %v; want an empty file", st, err)
	}
	held = lock(t, New(), Options{}, path)
	held.SetDeletion(true)
	unlock(t, held)
	unlock(t, held)
	if _, err := os.Stat(path + ".lock"); !os.IsNotExist(err) {
		t.Errorf("after deletion: %v", err)
	}
	if mark, err := io.ReadAll(file); string(mark) != "d" || err != nil {
		t.Errorf("the deleted file holds %q, %v; want d", mark, err)
	}
	if stale, err := IsStale(file); !stale || err != nil {
		t.Errorf("IsStale = %v, %v", stale, err)
	}
}

func TestStaleFileThatKeptItsName(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	if err := os.WriteFile(path+".lock", []byte("d"), 0o600); err != nil {
		t.Fatal(err)
	}
	lock(t, New(), Options{}, path)
	if st, err := os.Stat(path + ".lock"); err != nil || st.Size() != 0 {
		t.Errorf("lock file: %v, %v; want a new, empty one", st, err)
	}
}

// A lock file that is another file, too, would have that one marked when it is deleted.
func TestLockFileThatIsAnotherFile(t *testing.T) {
	dir := t.TempDir()
	path, victim := filepath.Join(dir, "a"), filepath.Join(dir, "victim")
	if err := os.WriteFile(victim, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(victim, path+".lock"); err != nil {
		t.Fatal(err)
	}
	held, err := New().Lock(t.Context(), []string{path}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	held.SetDeletion(true)
	if err := held.Unlock(); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(victim); err != nil || len(text) != 0 {
		t.Errorf("the other file has %q, %v", text, err)
	}
}

// A lock file of this daemon with two names, which a killed process has left, is adopted: it cannot be replaced without
// either a mark, which it would keep under the other name, or two holders.
func TestLockFileWithTwoNames(t *testing.T) {
	dir := t.TempDir()
	path, own := filepath.Join(dir, "a"), filepath.Join(dir, OwnPrefix+"x")
	if err := os.WriteFile(own, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Chmod(own, LinkedMode), os.Link(own, path+".lock")); err != nil {
		t.Fatal(err)
	}
	waiting, err := OpenLockFile(path+".lock", false)
	if err != nil {
		t.Fatal(err)
	}
	defer waiting.Close()
	held := lock(t, New(), Options{}, path)
	if ok, err := TryFlock(waiting, Exclusive); ok || err != nil {
		t.Errorf("two have the lock: %v, %v", ok, err)
	}
	held.SetDeletion(true)
	unlock(t, held)
	if stale, err := IsStale(waiting); !stale || err != nil {
		t.Errorf("a waiter does not learn that it was deleted: %v, %v", stale, err)
	}
}

func TestRefusesWhatIsNoLockFile(t *testing.T) {
	dir := t.TempDir()
	victim := filepath.Join(dir, "victim")
	if err := os.Symlink(victim, filepath.Join(dir, "link.lock")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "dir.lock"), 0o700); err != nil {
		t.Fatal(err)
	}
	table := New()
	causes := map[string]string{
		"link": "Too many levels of symbolic links", "dir": "Is a directory", "missing/x": "No such file or directory",
	}
	for name, cause := range causes {
		_, err := table.Lock(t.Context(), []string{filepath.Join(dir, "ok"), filepath.Join(dir, name)}, Options{})
		if want := "opening lock file \"" + filepath.Join(dir, name) + ".lock\": " + cause; err == nil || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
	if _, err := os.Lstat(victim); !os.IsNotExist(err) {
		t.Errorf("a link was followed: %v", err)
	}
	if len(table.entries) != 0 {
		t.Errorf("%d paths are still locked", len(table.entries))
	}
}

// TestExclusion has goroutines of two tables (as it were two processes) count without any other protection.
func TestExclusion(t *testing.T) {
	dir := t.TempDir()
	tables := []*Table{New(), New()}
	var inside atomic.Int32
	count := 0
	var wg sync.WaitGroup
	const workers, rounds = 8, 30
	for w := range workers {
		wg.Go(func() {
			paths := []string{filepath.Join(dir, "a"), filepath.Join(dir, "b")}
			if w%2 == 0 {
				paths[0], paths[1] = paths[1], paths[0]
			}
			for range rounds {
				held, err := tables[w%2].Lock(t.Context(), paths, Options{})
				if err != nil {
					t.Error(err)
					return
				}
				if inside.Add(1) != 1 {
					t.Error("two inside")
				}
				count++
				inside.Add(-1)
				held.SetDeletion(w%3 == 0)
				unlock(t, held)
			}
		})
	}
	wg.Wait()
	if count != workers*rounds {
		t.Errorf("count = %d, want %d", count, workers*rounds)
	}
	for _, table := range tables {
		if len(table.entries) != 0 {
			t.Errorf("%d paths are still locked", len(table.entries))
		}
	}
}

func TestGoroutineWaits(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	table := New()
	held := lock(t, table, Options{}, path)
	if _, err := table.Lock(t.Context(), []string{path}, Options{TryOnly: true}); !errors.Is(err, ErrLocked) {
		t.Errorf("TryOnly = %v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	errGone := errors.New("client gone")
	_, err := table.Lock(ctx, []string{path}, Options{OnWait: func(string) { cancel(errGone) }})
	if !errors.Is(err, errGone) {
		t.Errorf("cancelled = %v", err)
	}
	lock(t, table, Options{OnWait: func(string) { unlock(t, held) }}, path)
}

func TestFlock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gc.lock")
	if _, err := OpenLockFile(path, false); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("OpenLockFile without creation = %v", err)
	}
	var files [2]*os.File
	for i := range files {
		f, err := OpenLockFile(path, true)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files[i] = f
	}
	try := func(i int, kind Kind, want bool) {
		t.Helper()
		if ok, err := TryFlock(files[i], kind); ok != want || err != nil {
			t.Errorf("TryFlock(%d, %d) = %v, %v; want %v", i, kind, ok, err, want)
		}
	}
	try(0, Shared, true)
	try(1, Shared, true)
	try(1, Exclusive, false)
	waits := 0
	err := Flock(t.Context(), files[1], Exclusive, func() {
		waits++
		try(0, Unlocked, true)
	})
	if err != nil || waits != 1 {
		t.Errorf("Flock = %v after %d announcements", err, waits)
	}
	try(0, Shared, false)
	if err := DeleteLockFile(path, files[1]); err != nil {
		t.Error(err)
	}
	if stale, err := IsStale(files[0]); !stale || err != nil {
		t.Errorf("IsStale = %v, %v", stale, err)
	}
}

func BenchmarkLock(b *testing.B) {
	path := filepath.Join(b.TempDir(), "a")
	table := New()
	for b.Loop() {
		held, err := table.Lock(b.Context(), []string{path}, Options{})
		if err != nil {
			b.Fatal(err)
		}
		held.SetDeletion(true)
		if err := held.Unlock(); err != nil {
			b.Fatal(err)
		}
	}
}
