package gc

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nixdaemon/localstore/pathlock"
	"nixdaemon/localstore/roots"
	"nixdaemon/protocol/storepath"
)

// tower: 4 refers to 2, 2 to 1; 5 to 3; 0 is alone.
func tower() *shape {
	return &shape{n: 6, refs: map[int][]int{4: {2, 4}, 2: {1}, 5: {3}}}
}

func (f *fixture) printed(ns ...int) []string {
	var out []string
	for _, n := range ns {
		out = append(out, f.dir.Print(testPath(n)))
	}
	return out
}

func sorted(all []string) []string {
	slices.Sort(all)
	return all
}

func TestDeleteDead(t *testing.T) {
	f := newFixture(t, tower())
	f.root("r", 2)
	log := new(messages)
	req := wholeStore(DeleteDead)
	req.Log = log
	res := f.collect(req)
	if diff := cmp.Diff(f.printed(0, 3, 4, 5), sorted(res.Paths)); diff != "" {
		t.Errorf("deleted (-want +got):\n%s", diff)
	}
	if want := sizeOf(0) + sizeOf(3) + sizeOf(4) + sizeOf(5); res.BytesFreed != want {
		t.Errorf("freed %d, want %d", res.BytesFreed, want)
	}
	f.check(1, 2)

	got := log.all()
	for i, want := range []string{"3 finding garbage collector roots...", "3 deleting garbage..."} {
		if got[i] != want {
			t.Errorf("message %d is %q, want %q", i, got[i], want)
		}
	}
	if want := "3 deleting '" + f.dir.Print(testPath(0)) + "'"; !slices.Contains(got, want) {
		t.Errorf("no message %q in %q", want, got)
	}
	saving := "3 note: hard linking is currently saving " + renderSize(-f.linksDirSize())
	if diff := cmp.Diff([]string{"3 deleting unused links...", saving}, got[len(got)-2:]); diff != "" {
		t.Errorf("last messages (-want +got):\n%s", diff)
	}
	if info, err := os.Stat(filepath.Join(f.opt.StateDir, "db/reserved")); err != nil || info.Size() != f.opt.ReservedSpace {
		t.Errorf("no space was reserved for the next collection: %v, %v", info, err)
	}
}

func TestReturnLiveAndDeadDeleteNothing(t *testing.T) {
	f := newFixture(t, tower())
	f.root("r", 5)
	f.write("junk", "x")
	f.write("tmp-file", "x")
	if diff := cmp.Diff(f.printed(3, 5), sorted(f.collect(wholeStore(ReturnLive)).Paths)); diff != "" {
		t.Errorf("live (-want +got):\n%s", diff)
	}
	want := append(f.printed(0, 1, 2, 4), string(f.dir)+"/junk")
	if diff := cmp.Diff(want, sorted(f.collect(wholeStore(ReturnDead)).Paths)); diff != "" {
		t.Errorf("dead (-want +got):\n%s", diff)
	}
	os.Remove(string(f.dir) + "/junk")
	os.Remove(string(f.dir) + "/tmp-file")
	f.check(0, 1, 2, 3, 4, 5)
}

func TestDeleteSpecific(t *testing.T) {
	f := newFixture(t, tower())
	f.root("r", 5)
	ctx := context.Background()
	c := f.collector(nil)
	specific := func(ns ...int) Request {
		return Request{Action: DeleteSpecific, Paths: paths(ns...), MaxFreed: 1<<64 - 1, KeepDerivations: true}
	}
	var alive *AliveError
	if _, err := c.Collect(ctx, specific(3)); !errors.As(err, &alive) || err.Error() != "Cannot delete path '"+f.dir.Print(testPath(3))+
		"' since it is still alive. To find out why, use: nix-store --query --roots and nix-store --query --referrers" {
		t.Errorf("a live path: %v", err)
	}
	if _, err := c.Collect(ctx, specific(2)); !errors.As(err, &alive) {
		t.Errorf("a path with a referrer: %v", err)
	}
	f.check(0, 1, 2, 3, 4, 5)

	res, err := c.Collect(ctx, specific(0, 3, 4))
	if !errors.As(err, &alive) {
		t.Errorf("one live path: %v", err)
	}
	// As upstream: it goes through them in order.
	if diff := cmp.Diff(f.printed(0), res.Paths); diff != "" {
		t.Errorf("deleted (-want +got):\n%s", diff)
	}
	f.check(1, 2, 3, 4, 5)

	if res, err = c.Collect(ctx, specific(4, 2)); err != nil || len(res.Paths) != 2 || res.BytesFreed != sizeOf(2)+sizeOf(4) {
		t.Errorf("dead paths: %v, %v", res, err)
	}
	f.check(1, 3, 5)
	// What does not exist is deleted with success.
	if res, err = c.Collect(ctx, specific(77)); err != nil || !slices.Equal(res.Paths, f.printed(77)) {
		t.Errorf("a path that is not there: %v, %v", res, err)
	}
	if res, err = c.Collect(ctx, specific()); err != nil || len(res.Paths) != 0 {
		t.Errorf("no paths: %v, %v", res, err)
	}
	whole := wholeStore(DeleteSpecific)
	if _, err = c.Collect(ctx, whole); err == nil || err.Error() != "Cannot delete the entire store" {
		t.Errorf("the whole store: %v", err)
	}
}

func TestDeleteDeadOfSome(t *testing.T) {
	f := newFixture(t, tower())
	f.root("r", 5)
	log := new(messages)
	f.collect(Request{Action: DeleteDead, Paths: paths(1, 3), DeleteReferrers: true, MaxFreed: 1<<64 - 1, Log: log})
	f.check(0, 3, 5)
	if got := log.all()[1]; got != "3 deleting garbage within specified paths..." {
		t.Errorf("message %q", got)
	}
}

func TestMaxFreed(t *testing.T) {
	f := newFixture(t, tower())
	req := wholeStore(DeleteDead)
	req.MaxFreed = 0
	if res := f.collect(req); len(res.Paths) != 0 {
		t.Errorf("deleted %v with a maximum of 0", res.Paths)
	}
	f.check(0, 1, 2, 3, 4, 5)
	log := new(messages)
	req.MaxFreed, req.Log = 150, log
	res := f.collect(req)
	if res.BytesFreed <= 150 || res.BytesFreed > 350 || len(res.Paths) != 2 {
		t.Errorf("deleted %v, %d bytes", res.Paths, res.BytesFreed)
	}
	if !slices.Contains(log.all(), "3 deleted more than 150 bytes; stopping") {
		t.Errorf("messages: %q", log.all())
	}
	f.verify()
	req.MaxFreed = 1 << 40
	f.collect(req)
	f.check()
}

func TestLeftovers(t *testing.T) {
	f := newFixture(t, tower())
	f.root("r", 2)
	temp := f.NewTempRoots()
	defer temp.Close()
	if err := temp.Add(context.Background(), testPath(5), testPath(9)); err != nil {
		t.Fatal(err)
	}
	store := string(f.dir)
	lock := func(n int) string { return testPath(n).Base() + ".lock" }
	// Leftovers of a live path go; those of temporary roots, which somebody may be building, stay.
	f.write(lock(2), "")
	f.write(lock(5), "")
	f.write(testPath(9).Base()+".chroot", "")
	f.write(lock(8), "")
	f.write("junk~", "x")
	held := f.lock(lock(8))
	for _, dir := range []string{"tmp-1-1", "tmp-1-2/sub"} {
		if err := os.MkdirAll(filepath.Join(store, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	f.lock("tmp-1-1")
	// Files that lock path after path: one in use, one of a killed process, which locks path 7 still.
	f.write(pathlock.OwnPrefix+"a", "")
	f.lock(pathlock.OwnPrefix + "a")
	f.write(pathlock.OwnPrefix+"b", "")
	linked := filepath.Join(store, lock(7))
	if err := errors.Join(os.Chmod(store+"/"+pathlock.OwnPrefix+"b", pathlock.LinkedMode), os.Link(store+"/"+pathlock.OwnPrefix+"b", linked)); err != nil {
		t.Fatal(err)
	}
	waiting, err := os.Open(linked)
	if err != nil {
		t.Fatal(err)
	}
	defer waiting.Close()
	// Not a lock file, though its name is like one's: it shares its contents with .links.
	f.write("00000000000000000000000000000010-Cargo.lock", "content")
	if err := os.Link(store+"/00000000000000000000000000000010-Cargo.lock", store+"/.links/cargo"); err != nil {
		t.Fatal(err)
	}
	before := f.lock("junk~")
	defer before.Close()

	f.collect(wholeStore(DeleteDead))
	want := append(names(1, 2, 3, 5), lock(5), lock(8), testPath(9).Base()+".chroot", "tmp-1-1", pathlock.OwnPrefix+"a")
	if diff := cmp.Diff(sorted(want), f.onDisk()); diff != "" {
		t.Errorf("left (-want +got):\n%s", diff)
	}
	if links, err := os.ReadDir(store + "/.links"); err != nil || len(links) != 0 {
		t.Errorf("unused links: %v, %v", links, err)
	}
	if stale, err := pathlock.IsStale(waiting); !stale || err != nil {
		t.Errorf("who waits for the lock file with two names does not learn that it is deleted: %t, %v", stale, err)
	}
	held.Close()
	temp.Close()
	f.collect(wholeStore(DeleteDead))
	want = append(names(1, 2), "tmp-1-1", pathlock.OwnPrefix+"a")
	if diff := cmp.Diff(sorted(want), f.onDisk()); diff != "" {
		t.Errorf("left in the end (-want +got):\n%s", diff)
	}
}

func TestDeletedLockFileIsMarked(t *testing.T) {
	f := newFixture(t, &shape{})
	name := testPath(1).Base() + ".lock"
	f.write(name, "")
	waiting, err := os.Open(filepath.Join(string(f.dir), name))
	if err != nil {
		t.Fatal(err)
	}
	defer waiting.Close()
	f.collect(wholeStore(DeleteDead))
	if stale, err := pathlock.IsStale(waiting); !stale || err != nil {
		t.Errorf("who waits for the deleted file does not learn of it: %t, %v", stale, err)
	}
}

func TestStoreAndLinksAreEmptyAfterwards(t *testing.T) {
	f := newFixture(t, tower())
	f.collect(wholeStore(DeleteDead))
	f.check()
	for _, dir := range []string{"/.links", ""} {
		if err := os.Remove(string(f.dir) + dir); err != nil {
			t.Error(err)
		}
	}
}

func TestLinkStatistics(t *testing.T) {
	f := newFixture(t, &shape{n: 3})
	f.root("a", 0)
	f.root("b", 1)
	store := string(f.dir)
	big := make([]byte, 1<<20)
	for _, n := range []int{0, 1} {
		os.Remove(f.RealPath(testPath(n)))
	}
	if err := os.WriteFile(store+"/.links/big", big, 0o444); err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{0, 1} {
		if err := os.Link(store+"/.links/big", f.RealPath(testPath(n))); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(store+"/.links/alone", big, 0o444); err != nil {
		t.Fatal(err)
	}
	log := new(messages)
	req := wholeStore(DeleteDead)
	req.Log = log
	res := f.collect(req)
	if res.BytesFreed != sizeOf(2) {
		t.Errorf("freed %d", res.BytesFreed)
	}
	got := log.all()
	if want := "4 deleting unused link \"" + store + "/.links/alone\""; !slices.Contains(got, want) {
		t.Errorf("no %q in %q", want, got)
	}
	if want := "3 note: hard linking is currently saving " + renderSize(1<<20-f.linksDirSize()); got[len(got)-1] != want {
		t.Errorf("got %q, want %q", got[len(got)-1], want)
	}
}

// linksDirSize is what the directory of links itself takes on disk: a block for some file systems, nothing for others.
func (f *fixture) linksDirSize() int64 {
	f.t.Helper()
	info, err := os.Stat(string(f.dir) + "/.links")
	if err != nil {
		f.t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t).Blocks * 512
}

func TestRenderSize(t *testing.T) {
	for bytes, want := range map[int64]string{
		0: "0.0 KiB", 100: "0.1 KiB", 1024: "1.0 KiB", 1536: "1.5 KiB", -4096: "-4.0 KiB", 1 << 20: "1024.0 KiB",
		1<<20 + 1024: "1.0 MiB", 5 << 30: "5.0 GiB", -1 << 63: "-8.0 EiB",
	} {
		if got := renderSize(bytes); got != want {
			t.Errorf("%d is %q, want %q", bytes, got, want)
		}
	}
}

func TestFindRoots(t *testing.T) {
	f := newFixture(t, tower())
	f.root("r", 2)
	temp := f.NewTempRoots()
	defer temp.Close()
	if err := temp.Add(context.Background(), testPath(5)); err != nil {
		t.Fatal(err)
	}
	got, err := f.collector(nil).FindRoots(context.Background(), true, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := roots.Roots{testPath(2): {f.opt.StateDir + "/gcroots/r"}, testPath(5): {roots.Censored}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(storepath.Path{})); diff != "" {
		t.Errorf("roots (-want +got):\n%s", diff)
	}
}

func TestInterrupted(t *testing.T) {
	f := newFixture(t, tower())
	ctx, cancel := context.WithCancel(context.Background())
	c := f.collector(func(step string) error {
		if step == "claimed" {
			cancel()
		}
		return nil
	})
	if _, err := c.Collect(ctx, wholeStore(DeleteDead)); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	f.verify()
	f.collect(wholeStore(DeleteDead))
	f.check()
}

func TestWaitsForTheLock(t *testing.T) {
	f := newFixture(t, tower())
	file, err := pathlock.OpenLockFile(filepath.Join(f.opt.StateDir, "gc.lock"), true)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if ok, err := pathlock.TryFlock(file, pathlock.Exclusive); !ok || err != nil {
		t.Fatal(ok, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	log := &onMessage{func(string) { cancel() }}
	req := wholeStore(DeleteDead)
	req.Log = log
	if _, err := f.collector(nil).Collect(ctx, req); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	f.check(0, 1, 2, 3, 4, 5)
}

func TestOneAtATime(t *testing.T) {
	f := newFixture(t, tower())
	waiting := make(chan string, 1)
	second := make(chan error, 1)
	var c *Collector
	started := false
	c = f.collector(func(step string) error {
		if step == "locked" && !started {
			started = true
			req := wholeStore(ReturnDead)
			req.Log = &onMessage{func(text string) {
				select {
				case waiting <- text:
				default:
				}
			}}
			go func() {
				_, err := c.Collect(context.Background(), req)
				second <- err
			}()
			if text := <-waiting; text != "waiting for the big garbage collector lock..." {
				t.Errorf("the second says %q", text)
			}
		}
		return nil
	})
	if _, err := c.Collect(context.Background(), wholeStore(DeleteDead)); err != nil {
		t.Error(err)
	}
	if err := <-second; err != nil {
		t.Error(err)
	}
}

func TestIgnoreDeleteFailure(t *testing.T) {
	for _, ignore := range []bool{false, true} {
		f := newFixture(t, tower())
		log := new(messages)
		req := wholeStore(DeleteDead)
		req.Log = log
		c := New(Options{Store: &stubborn{f.Store}, IgnoreDeleteFailure: ignore})
		_, err := c.Collect(context.Background(), req)
		if (err == nil) != ignore {
			t.Errorf("ignoring %t: %v", ignore, err)
		}
		want := "1 ignoring failure to remove store path \"" + f.RealPath(testPath(4)) + "\": it sticks"
		if got := slices.Contains(log.all(), want); got != ignore {
			t.Errorf("ignoring %t: %q", ignore, log.all())
		}
		f.verify()
	}
}

// The reserved space is there for the collection, and afterwards for the next one.
func TestReservedSpace(t *testing.T) {
	f := newFixture(t, tower())
	reserved := filepath.Join(f.opt.StateDir, "db/reserved")
	during := errors.New("not looked at")
	c := f.collector(func(string) error {
		_, during = os.Stat(reserved)
		return nil
	})
	for _, action := range []Action{ReturnDead, DeleteDead} {
		if _, err := c.Collect(t.Context(), wholeStore(action)); err != nil {
			t.Fatal(err)
		}
		if freed := errors.Is(during, os.ErrNotExist); freed != (action == DeleteDead) {
			t.Errorf("action %d: during the collection: %v", action, during)
		}
		if info, err := os.Stat(reserved); err != nil || info.Size() != f.opt.ReservedSpace {
			t.Errorf("action %d: afterwards: %v, %v", action, info, err)
		}
	}
}
