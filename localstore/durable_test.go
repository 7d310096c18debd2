package localstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
)

// logged keeps what a store says to its administrator.
type logged struct {
	mu    sync.Mutex
	texts map[activity.Level][]string
}

func (l *logged) log(level activity.Level, text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.texts == nil {
		l.texts = make(map[activity.Level][]string)
	}
	l.texts[level] = append(l.texts[level], text)
}

// unsyncedOptions sync nothing before a test is over, unless it asks for it.
func unsyncedOptions(t testing.TB) Options {
	o := testOptions(t)
	o.SyncEvery = time.Hour
	return o
}

func openWith(t testing.TB, o Options) *Store {
	t.Helper()
	s, err := Open(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func closeStore(t testing.TB, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// changeMark rewrites the mark of a store that is closed.
func changeMark(t testing.TB, o Options, change func(*durableMark)) {
	t.Helper()
	m, err := o.readMark()
	if err != nil {
		t.Fatal(err)
	}
	change(&m)
	if err := o.writeMark(m, false); err != nil {
		t.Fatal(err)
	}
}

func reboot(m *durableMark) { m.Boot = "00000000-0000-0000-0000-000000000000" }

func lastID(t testing.TB, s *Store) int64 {
	t.Helper()
	id, err := s.current.Load().db.LastID(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func checkMark(t testing.TB, s *Store) {
	t.Helper()
	m, err := s.opts.readMark()
	if err != nil || m.Boot != s.boot || m.ID != lastID(t, s) {
		t.Errorf("mark %+v, %v; want boot %s, id %d", m, err, s.boot, lastID(t, s))
	}
}

func checkValid(t testing.TB, s *Store, want ...*pathinfo.Info) {
	t.Helper()
	got, err := s.AllValidPaths(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var paths []storepath.Path
	for _, info := range want {
		paths = append(paths, info.Path)
	}
	if got, want := storepath.SortUnique(got), storepath.SortUnique(paths); !slices.Equal(got, want) {
		t.Errorf("valid are %v, want %v", got, want)
	}
}

// addRef registers a valid path once more with a further reference.
func addRef(t testing.TB, s *Store, info, ref *pathinfo.Info) {
	t.Helper()
	again := *info
	again.CA = storepath.ContentAddress{}
	again.References = storepath.SortUnique(append(slices.Clone(info.References), ref.Path))
	if err := s.Register(ctx, []*pathinfo.Info{&again}); err != nil {
		t.Fatal(err)
	}
}

// TestPowerCut copies the state of an open store, as a power cut would leave it, and damages files.
func TestPowerCut(t *testing.T) {
	var log logged
	o := unsyncedOptions(t)
	o.Log = log.log
	s := openWith(t, o)
	before := addText(t, s, "before", "before")
	oldUser := addText(t, s, "old-user", "old user")
	if err := s.makeDurable(ctx); err != nil {
		t.Fatal(err)
	}
	checkMark(t, s)
	fine := addText(t, s, "fine", "fine", before.Path)
	emptied := addText(t, s, "emptied", "emptied")
	cut := addText(t, s, "cut", strings.Repeat("cut", 10_000))
	zeros := addText(t, s, "zeros", "zeros")
	gone := addText(t, s, "gone", "gone")
	user := addText(t, s, "user", "user", emptied.Path, fine.Path)
	userUser := addText(t, s, "user-user", "user's user", user.Path)
	addRef(t, s, oldUser, gone)
	if err := os.CopyFS(o.StateDir+"-copy", os.DirFS(o.StateDir)); err != nil {
		t.Fatal(err)
	}
	closeStore(t, s)
	if err := errors.Join(os.RemoveAll(o.StateDir), os.Rename(o.StateDir+"-copy", o.StateDir)); err != nil {
		t.Fatal(err)
	}
	for path, size := range map[*pathinfo.Info]int64{emptied: 0, cut: 4096} {
		os.Chmod(s.RealPath(path.Path), 0o644)
		if err := os.Truncate(s.RealPath(path.Path), size); err != nil {
			t.Fatal(err)
		}
	}
	os.Chmod(s.RealPath(zeros.Path), 0o644)
	if err := errors.Join(os.WriteFile(s.RealPath(zeros.Path), make([]byte, 5), 0o444), os.Remove(s.RealPath(gone.Path))); err != nil {
		t.Fatal(err)
	}
	changeMark(t, o, reboot)

	s = openWith(t, o)
	defer s.Close()
	checkValid(t, s, before, fine)
	checkMark(t, s)
	if bad, err := s.Verify(ctx, VerifyOptions{CheckContents: true}); bad || err != nil {
		t.Error(bad, err)
	}
	for _, info := range []*pathinfo.Info{emptied, cut, zeros, gone, user, userUser, oldUser} {
		if n := strings.Count(strings.Join(log.texts[activity.Error], "\n"), "path '"+s.Dir().Print(info.Path)+"' "); n != 1 {
			t.Errorf("%s was mentioned %d times: %q", info.Path, n, log.texts[activity.Error])
		}
	}
	if !slices.Contains(log.texts[activity.Info], "verified 7 store paths, 7 are not valid any more") {
		t.Errorf("said %q", log.texts[activity.Info])
	}
	again := addText(t, s, "emptied", "emptied")
	checkPath(t, s, again)
}

// TestTrusted: what is at or before the mark is not looked at, nor is anything if the machine still runs.
func TestTrusted(t *testing.T) {
	o := unsyncedOptions(t)
	s := openWith(t, o)
	old := addText(t, s, "old", "old")
	if err := s.makeDurable(ctx); err != nil {
		t.Fatal(err)
	}
	recent := addText(t, s, "recent", "recent")
	closeStore(t, s)
	damage(t, s.RealPath(old.Path))
	damage(t, s.RealPath(recent.Path))

	s = openWith(t, o)
	checkValid(t, s, old, recent)
	if s.syncs.pending.Load() == 0 {
		t.Error("what another process left unsynced is not going to be synced")
	}
	closeStore(t, s)
	changeMark(t, o, reboot)
	s = openWith(t, o)
	checkValid(t, s, old)
	closeStore(t, s)
	changeMark(t, o, reboot)
	s = openWith(t, o)
	checkValid(t, s, old)
	closeStore(t, s)
}

func TestMarkOfAnother(t *testing.T) {
	for name, test := range map[string]struct {
		spoil    func(t *testing.T, o Options)
		verified bool
	}{
		"missing": {func(t *testing.T, o Options) {
			if err := os.Remove(o.durableFile()); err != nil {
				t.Fatal(err)
			}
		}, false},
		"empty": {func(t *testing.T, o Options) {
			if err := os.Truncate(o.durableFile(), 0); err != nil {
				t.Fatal(err)
			}
		}, true},
		"cut": {func(t *testing.T, o Options) {
			if err := os.Truncate(o.durableFile(), 40); err != nil {
				t.Fatal(err)
			}
		}, true},
		"ahead": {func(t *testing.T, o Options) {
			changeMark(t, o, func(m *durableMark) { reboot(m); m.ID = 1000 })
		}, false},
		"other database": {func(t *testing.T, o Options) {
			changeMark(t, o, func(m *durableMark) { reboot(m); m.Inode++; m.Path = "/nix/store/other" })
		}, false},
		"other database, row gone": {func(t *testing.T, o Options) {
			changeMark(t, o, func(m *durableMark) { reboot(m); m.Born++; m.Path = "" })
		}, false},
		"copied": {func(t *testing.T, o Options) {
			changeMark(t, o, func(m *durableMark) { reboot(m); m.Inode++ })
		}, true},
		"row gone": {func(t *testing.T, o Options) {
			changeMark(t, o, func(m *durableMark) { reboot(m); m.Path = "" })
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			o := unsyncedOptions(t)
			s := openWith(t, o)
			fine := addText(t, s, "fine", "fine")
			if err := s.makeDurable(ctx); err != nil {
				t.Fatal(err)
			}
			bad := addText(t, s, "bad", "bad")
			closeStore(t, s)
			damage(t, s.RealPath(bad.Path))
			test.spoil(t, o)
			s = openWith(t, o)
			defer s.Close()
			if test.verified {
				checkValid(t, s, fine)
			} else {
				checkValid(t, s, fine, bad)
			}
			checkMark(t, s)
		})
	}
}

func TestLongBacklog(t *testing.T) {
	o := unsyncedOptions(t)
	s := openWith(t, o)
	var all []*pathinfo.Info
	for i := range checkBatch + 10 {
		all = append(all, addText(t, s, fmt.Sprint("text-", i), "text"))
	}
	closeStore(t, s)
	for _, i := range []int{0, 500, checkBatch, len(all) - 1} {
		damage(t, s.RealPath(all[i].Path))
	}
	changeMark(t, o, reboot)
	want := slices.Concat(all[1:500], all[501:checkBatch], all[checkBatch+1:len(all)-1])

	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := Open(cancelled, o); !errors.Is(err, context.Canceled) {
		t.Error("was not interrupted:", err)
	}
	var mu sync.Mutex
	var told []uint64
	o.Recovering = func(done, total uint64) {
		mu.Lock()
		defer mu.Unlock()
		if total != uint64(len(all)) {
			t.Errorf("%d of %d paths are done, of %d", done, total, len(all))
		}
		told = append(told, done)
	}
	s = openWith(t, o)
	defer s.Close()
	checkValid(t, s, want...)
	checkMark(t, s)
	slices.Sort(told)
	for i, done := range told {
		if done != uint64(i) {
			t.Fatalf("told of %d after %d", done, i)
		}
	}
	if len(told) != len(all)+1 {
		t.Errorf("told %d times of %d paths", len(told), len(all))
	}
}

// TestDamagedLink: what was damaged is not linked to any more.
func TestDamagedLink(t *testing.T) {
	o := unsyncedOptions(t)
	s := openWith(t, o)
	spec := DumpSpec{Name: "first", Method: storepath.MethodText, Algo: nixhash.SHA256}
	first, err := s.AddDump(ctx, spec, strings.NewReader("contents"), AddOptions{Optimise: true})
	if err != nil {
		t.Fatal(err)
	}
	closeStore(t, s)
	os.Chmod(s.RealPath(first.Path), 0o644)
	if err := os.WriteFile(s.RealPath(first.Path), make([]byte, 8), 0o444); err != nil {
		t.Fatal(err)
	}
	os.Chmod(s.RealPath(first.Path), 0o444)
	changeMark(t, o, reboot)

	s = openWith(t, o)
	defer s.Close()
	spec.Name = "second"
	second, err := s.AddDump(ctx, spec, strings.NewReader("contents"), AddOptions{Optimise: true})
	if err != nil {
		t.Fatal(err)
	}
	checkPath(t, s, second)
	checkValid(t, s, second)
	if bad, err := s.Verify(ctx, VerifyOptions{CheckContents: true}); bad || err != nil {
		t.Error(bad, err)
	}
}

// TestReplacedDatabase: the mark does not outlive the database.
func TestReplacedDatabase(t *testing.T) {
	o := unsyncedOptions(t)
	s := openWith(t, o)
	defer s.Close()
	addText(t, s, "one", "one")
	addText(t, s, "two", "two")
	if err := s.makeDurable(ctx); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(o.dbDir()); err != nil {
		t.Fatal(err)
	}
	if err := s.makeDurable(ctx); err != nil {
		t.Fatal(err)
	}
	if m, err := o.readMark(); err != nil || m.ID != 2 {
		t.Error(m, err)
	}
	if err := s.Refresh(ctx); err != nil {
		t.Fatal(err)
	}
	checkMark(t, s)
	if m, _ := o.readMark(); m.ID != 0 {
		t.Error("the new database has the mark of the old one:", m)
	}
	if s.syncs.pending.Load() == 0 {
		t.Error("the new database is not going to be synced")
	}
}

func TestNoMark(t *testing.T) {
	o := unsyncedOptions(t)
	o.SyncEvery = -1
	s := openWith(t, o)
	info := addText(t, s, "text", "text")
	closeStore(t, s)
	if _, err := o.readMark(); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a store that is not to be synced has a mark:", err)
	}
	o.SyncEvery = time.Hour
	closeStore(t, openWith(t, o))
	changeMark(t, o, func(m *durableMark) { reboot(m); m.ID = 0 })
	want, err := os.ReadFile(o.durableFile())
	if err != nil {
		t.Fatal(err)
	}
	damage(t, s.RealPath(info.Path))
	o.ReadOnly = true
	s = openWith(t, o)
	checkValid(t, s, info)
	closeStore(t, s)
	if got, err := os.ReadFile(o.durableFile()); string(got) != string(want) || err != nil {
		t.Error("a read-only store changed the mark", err)
	}
	names, err := filepath.Glob(o.durableFile() + "?*")
	if len(names) != 0 || err != nil {
		t.Error(names, err)
	}
}

// TestBackgroundSync: once enough is registered the mark follows.
func TestBackgroundSync(t *testing.T) {
	o := unsyncedOptions(t)
	o.SyncBytes = 1
	s := openWith(t, o)
	defer s.Close()
	s.syncs.close()
	synced := make(chan error, 1)
	s.syncs = startSyncer(&s.opts, func() error {
		err := s.makeDurable(ctx)
		synced <- err
		return err
	})
	for i := range 3 {
		addText(t, s, "text", fmt.Sprint(i))
		if err := <-synced; err != nil {
			t.Fatal(err)
		}
		checkMark(t, s)
	}
}

func TestSyncer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log logged
		var mu sync.Mutex // guards what follows
		var times []time.Duration
		var fail error
		start := time.Now()
		restart := func(err error) {
			mu.Lock()
			defer mu.Unlock()
			start, fail = time.Now(), err
		}
		y := startSyncer(&Options{SyncEvery: 5 * time.Second, SyncBytes: 1000, Log: log.log}, func() error {
			mu.Lock()
			defer mu.Unlock()
			times = append(times, time.Since(start))
			return fail
		})
		expect := func(want ...time.Duration) {
			t.Helper()
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if !slices.Equal(times, want) {
				t.Errorf("synced at %v, want %v", times, want)
			}
			times = nil
		}
		time.Sleep(time.Hour)
		expect()
		restart(nil)
		for range 4 {
			y.registered(10)
			time.Sleep(2 * time.Second)
		}
		expect(5 * time.Second)
		time.Sleep(time.Hour)
		expect(11 * time.Second) // the last came after 6 s

		restart(nil)
		y.registered(400)
		y.registered(400)
		synctest.Wait()
		y.registered(400)
		expect(0)
		y.registered(2000)
		expect(0)

		restart(errors.New("no space"))
		y.registered(1)
		time.Sleep(11 * time.Second)
		expect(5*time.Second, 10*time.Second)
		restart(&syncError{errors.New("input/output error")})
		time.Sleep(time.Hour)
		expect(4 * time.Second)
		y.registered(5000)
		expect()
		y.close()
		if len(log.texts[activity.Error]) != 2 {
			t.Errorf("said %v", log.texts)
		}
	})
}

func FuzzDurableMark(f *testing.F) {
	f.Add((&durableMark{}).String())
	f.Add((&durableMark{Boot: "b", ID: 12, Path: "/nix/store/x", Inode: 1 << 63, Born: -1}).String())
	f.Add("nixdaemon durable 1\nboot \nid 1\n")
	f.Fuzz(func(t *testing.T, text string) {
		if m, err := parseDurableMark(text); err == nil && m.String() != text {
			t.Errorf("%q came back as %q", text, m.String())
		}
	})
}

func TestDurableMarkRefuses(t *testing.T) {
	good := (&durableMark{Boot: "b", ID: 12, Path: "/nix/store/x", Inode: 1, Born: 2}).String()
	if _, err := parseDurableMark(good); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{
		"", good[:len(good)-1], good + "\n", strings.Replace(good, "12", "-12", 1), strings.Replace(good, "12", "+12", 1),
		strings.Replace(good, "boot", "book", 1), strings.Replace(good, " 1\n", " 2\n", 1),
		strings.Replace(good, "/x", strings.Repeat("x", maxDurable), 1),
	} {
		if m, err := parseDurableMark(bad); err == nil {
			t.Errorf("%q is %+v", bad, m)
		}
	}
}

// BenchmarkOpenAfterPowerCut opens a store whose machine was restarted: many small paths, or one of 256 MiB, lie beyond
// the mark and are verified before anybody is answered.
func BenchmarkOpenAfterPowerCut(b *testing.B) {
	for name, fill := range map[string]func(*Store){
		"5000 small paths": func(s *Store) {
			for i := range 5000 {
				addText(b, s, "text", benchText(i))
			}
		},
		"256 MiB": func(s *Store) { addText(b, s, "large", strings.Repeat("0123456789abcdef", 16<<20)) },
	} {
		b.Run(name, func(b *testing.B) {
			o := unsyncedOptions(b)
			s := openWith(b, o)
			fill(s)
			closeStore(b, s)
			for b.Loop() {
				b.StopTimer()
				changeMark(b, o, func(m *durableMark) { reboot(m); m.ID = 0; m.Path = "" })
				b.StartTimer()
				s := openWith(b, o)
				b.StopTimer()
				closeStore(b, s)
				b.StartTimer()
			}
		})
	}
}
