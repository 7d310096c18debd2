package narinfocache

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"nixdaemon/protocol/narinfo"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
)

const (
	uri  = "https://cache.example.org"
	part = "00000000000000000000000000000000"
)

var week = TTLs{Positive: 7 * 24 * 3600, Negative: 3600}

// world is a cache whose time and file the test has in its hands.
type world struct {
	*testing.T
	path string
	mu   sync.Mutex
	now  time.Time
	logs []error
	*Cache
}

func newWorld(t *testing.T) *world {
	w := &world{T: t, path: filepath.Join(t.TempDir(), "sub", FileName), now: time.Unix(1_700_000_000, 0)}
	w.reopen()
	t.Cleanup(func() { w.Cache.Close() })
	return w
}

// reopen is another process that comes after this one, if there was one.
func (w *world) reopen() {
	if w.Cache != nil {
		w.Cache.Close()
	}
	w.Cache = New(Options{Path: w.path, UseWAL: true, TTLs: week,
		Now: func() time.Time { w.mu.Lock(); defer w.mu.Unlock(); return w.now },
		Log: func(err error) { w.mu.Lock(); defer w.mu.Unlock(); w.logs = append(w.logs, err) }})
}

func (w *world) pass(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

func parse(t testing.TB, base string) storepath.Path {
	p, err := storepath.ParseBase(base)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func someInfo(t testing.TB) *narinfo.NarInfo {
	hash := nixhash.Of(nixhash.SHA256, "x")
	sig, err := pathinfo.ParseSignature("k-1:AAAA")
	if err != nil {
		t.Fatal(err)
	}
	return &narinfo.NarInfo{
		Info: pathinfo.Info{
			Path: parse(t, part+"-hello-1.0"), Deriver: parse(t, part+"-hello.drv"), NarHash: hash, NarSize: 120,
			References: []storepath.Path{parse(t, part+"-hello-1.0"), parse(t, strings.Repeat("1", 32)+"-libc")},
			Sigs:       []pathinfo.Signature{sig},
			CA:         storepath.ContentAddress{Method: storepath.MethodNAR, Hash: hash},
		},
		URL: "nar/x.nar.xz", Compression: "xz", FileHash: hash, FileSize: 60,
	}
}

func compare(t testing.TB, got, want *narinfo.NarInfo) {
	t.Helper()
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(storepath.Path{}, nixhash.Hash{}), cmpopts.EquateEmpty()); diff != "" {
		t.Error(diff)
	}
}

func TestRemembers(t *testing.T) {
	w := newWorld(t)
	if _, known := w.Store(uri, 100); known {
		t.Error("a store from nowhere")
	}
	if _, known := w.Info(uri, part, week); known {
		t.Error("a path from nowhere")
	}
	w.SetStore(uri, Store{Dir: "/nix/store", WantMassQuery: true, Priority: 40})
	want := someInfo(t)
	bare := &narinfo.NarInfo{Info: pathinfo.Info{Path: parse(t, "2222222222222222222222222222222a-bare"), NarHash: want.NarHash, NarSize: 1}, URL: "u", Compression: "none"}
	w.SetInfo(uri, part, want)
	w.SetInfo(uri, bare.Path.HashPart(), bare)
	w.SetInfo(uri, "missing", nil)
	w.SetRealisation(uri, "sha256:a!out", `{"outPath":"x"}`)
	w.SetRealisation(uri, "sha256:b!out", "")
	for range 2 { // before and after another process has taken over
		s, known := w.Store(uri, 100)
		if !known || s != (Store{"/nix/store", true, 40}) {
			t.Errorf("store %+v, %v", s, known)
		}
		got, known := w.Info(uri, part, week)
		if !known {
			t.Fatal("forgotten")
		}
		compare(t, got, want)
		got, _ = w.Info(uri, bare.Path.HashPart(), week)
		compare(t, got, bare)
		if info, known := w.Info(uri, "missing", week); info != nil || !known {
			t.Errorf("missing: %v, %v", info, known)
		}
		if _, known := w.Info("https://other.example.org", part, week); known {
			t.Error("known of another cache")
		}
		a, knownA := w.Realisation(uri, "sha256:a!out", week)
		b, knownB := w.Realisation(uri, "sha256:b!out", week)
		_, knownC := w.Realisation(uri, "sha256:c!out", week)
		if a != `{"outPath":"x"}` || b != "" || !knownA || !knownB || knownC {
			t.Errorf("realisations %q %v, %q %v, %v", a, knownA, b, knownB, knownC)
		}
		if s := w.Stats(); s.Hits != 2 || s.Absent != 1 || s.Misses == 0 {
			t.Errorf("counted %+v", s)
		}
		w.reopen()
	}
	if len(w.logs) > 0 {
		t.Error(w.logs)
	}
}

func TestAges(t *testing.T) {
	for _, where := range []string{"memory", "file"} {
		t.Run(where, func(t *testing.T) {
			w := newWorld(t)
			w.SetStore(uri, Store{Dir: "/nix/store"})
			w.SetInfo(uri, part, someInfo(t))
			w.SetInfo(uri, "missing", nil)
			if where == "file" {
				w.reopen()
			}
			knows := func(name string, ttls TTLs) bool { _, known := w.Info(uri, name, ttls); return known }
			if knows(part, TTLs{}) || knows("missing", TTLs{}) {
				t.Error("an answer of this second counts for who wants none that is known")
			}
			w.pass(3599 * time.Second)
			if !knows(part, week) || !knows("missing", week) {
				t.Error("forgotten too soon")
			}
			w.pass(time.Second)
			if !knows(part, week) || knows("missing", week) {
				t.Error("after an hour what is missing counts, or what is there does not")
			}
			if _, known := w.Store(uri, 3600); known {
				t.Error("the store's own answer is too old")
			}
			w.pass(7 * 24 * time.Hour)
			if knows(part, week) {
				t.Error("after a week what is there still counts")
			}
		})
	}
}

// TestOthers shares the file with another process: what it learns counts here.
func TestOthers(t *testing.T) {
	w := newWorld(t)
	w.SetStore(uri, Store{Dir: "/nix/store"})
	w.SetInfo(uri, part, nil)
	w.flush()
	other := New(Options{Path: w.path, UseWAL: true, Now: w.o.Now})
	defer other.Close()
	if info, known := other.Info(uri, part, week); info != nil || !known {
		t.Errorf("the other one knows %v, %v", info, known)
	}
	other.SetInfo(uri, part, someInfo(t))
	other.flush()
	if info, known := w.Info(uri, part, week); info == nil || !known {
		t.Errorf("we know %v, %v", info, known)
	}
}

// TestRemoved forgets everything with the file.
func TestRemoved(t *testing.T) {
	w := newWorld(t)
	w.SetStore(uri, Store{Dir: "/nix/store"})
	w.SetInfo(uri, part, someInfo(t))
	before := w.Generation()
	for _, name := range []string{"", "-wal", "-shm"} {
		if err := os.Remove(w.path + name); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
	if _, known := w.Info(uri, part, week); known || w.Generation() == before {
		t.Error("remembered though the file was removed")
	}
	if _, known := w.Store(uri, 100); known {
		t.Error("remembered the store")
	}
	w.SetStore(uri, Store{Dir: "/nix/store"})
	w.SetInfo(uri, part, someInfo(t))
	w.reopen()
	if _, known := w.Info(uri, part, week); !known {
		t.Error("the new file is not used")
	}
}

// TestBroken has files that cannot be used: nothing fails, and the administrator is told once.
func TestBroken(t *testing.T) {
	for name, spoil := range map[string]func(path string) error{
		"garbage":     func(path string) error { return os.WriteFile(path, []byte(strings.Repeat("garbage", 1000)), 0o644) },
		"a directory": func(path string) error { return os.Mkdir(path, 0o755) },
		"another schema": func(path string) error {
			conn, err := sqlite.OpenConn(path)
			if err != nil {
				return err
			}
			return errors.Join(sqlitex.ExecuteScript(conn, "create table NARs (x integer); create table BinaryCaches (y integer);", nil), conn.Close())
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			if err := os.MkdirAll(filepath.Dir(w.path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := spoil(w.path); err != nil {
				t.Fatal(err)
			}
			w.SetStore(uri, Store{Dir: "/nix/store"})
			w.SetInfo(uri, part, someInfo(t))
			w.SetInfo(uri, "missing", nil)
			w.flush()
			if s, known := w.Store(uri, 100); !known || s.Dir != "/nix/store" {
				t.Errorf("store %+v, %v", s, known)
			}
			if info, known := w.Info(uri, part, week); info == nil || !known {
				t.Errorf("info %v, %v", info, known)
			}
			w.mu.Lock()
			defer w.mu.Unlock()
			if len(w.logs) != 1 {
				t.Errorf("told %v", w.logs)
			}
		})
	}
}

// TestPurge removes rows that count for nobody, and only those.
func TestPurge(t *testing.T) {
	w := newWorld(t)
	w.SetStore(uri, Store{Dir: "/nix/store"})
	w.SetInfo(uri, part, someInfo(t))
	w.SetInfo(uri, "missing", nil)
	w.pass(2 * time.Hour)
	w.reopen()
	w.SetInfo(uri, "another", nil)
	w.flush()
	rows := func() (n int) {
		conn, err := sqlite.OpenConn(w.path)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		err = sqlitex.Execute(conn, "select count(*) from NARs", &sqlitex.ExecOptions{ResultFunc: func(s *sqlite.Stmt) error { n = s.ColumnInt(0); return nil }})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := rows(); n != 3 {
		t.Errorf("%d rows: purged twice a day", n)
	}
	w.pass(25 * time.Hour)
	w.reopen()
	w.SetInfo(uri, "third", nil)
	w.flush()
	if n := rows(); n != 2 {
		t.Errorf("%d rows, want what is there and the newest", n)
	}
}

// TestBounded keeps the memory within bounds and what is used in it.
func TestBounded(t *testing.T) {
	var g generations
	for i := range 3 * maxInfos {
		g.put(key{uri: uri, name: string(rune(i))}, answer{})
		if _, ok := g.get(key{uri: uri, name: "\x00"}); !ok {
			t.Fatal("forgot what is used")
		}
	}
	if n := len(g.young) + len(g.old); n > maxInfos {
		t.Errorf("%d in memory", n)
	}
}

// TestBoundedBytes has a cache that says much about each path.
func TestBoundedBytes(t *testing.T) {
	c := New(Options{})
	defer c.Close()
	long := someInfo(t)
	long.URL = strings.Repeat("x", maxAnswer-4096)
	for i := range 3 * maxBytes / maxAnswer {
		c.SetInfo(uri, fmt.Sprintf("%032d", i), long)
	}
	size := 0
	for _, half := range []map[key]answer{c.infos.young, c.infos.old} {
		for _, a := range half {
			size += a.bytes()
		}
	}
	if size > maxBytes+maxAnswer {
		t.Errorf("%d bytes in memory", size)
	}
	longer := someInfo(t)
	longer.URL = strings.Repeat("x", maxAnswer)
	c.SetInfo(uri, part, someInfo(t))
	c.SetInfo(uri, part, longer)
	if _, known := c.Info(uri, part, week); known {
		t.Error("an answer is remembered that has become too long")
	}
}

// TestNoFile is a machine without a place for the file.
func TestNoFile(t *testing.T) {
	c := New(Options{})
	defer c.Close()
	c.SetStore(uri, Store{Dir: "/nix/store"})
	c.SetInfo(uri, part, nil)
	if _, known := c.Store(uri, 100); !known {
		t.Error("store forgotten")
	}
	if info, known := c.Info(uri, part, week); info != nil || !known {
		t.Error("answer forgotten")
	}
}

func BenchmarkInfoFromFile(b *testing.B) {
	c := New(Options{Path: filepath.Join(b.TempDir(), FileName), UseWAL: true})
	defer c.Close()
	c.SetStore(uri, Store{Dir: "/nix/store"})
	c.SetInfo(uri, part, nil)
	c.flush()
	for b.Loop() {
		if _, known := c.Info(uri, part, week); !known {
			b.Fatal("forgotten")
		}
	}
}

// FuzzRow reads rows that nobody in his senses has written: one that cannot be understood is as good as none.
func FuzzRow(f *testing.F) {
	f.Add("hello", "nar/x", "xz", "", "sha256:"+strings.Repeat("0", 52), int64(1), part+"-hello", part+"-hello.drv", "k:AAAA", "fixed:r:sha256:"+strings.Repeat("0", 52))
	f.Add("", "", "", "x", "", int64(-1), " ", ".", ":", "text:")
	conn, err := sqlite.OpenConn(":memory:")
	if err != nil {
		f.Fatal(err)
	}
	defer conn.Close()
	f.Fuzz(func(t *testing.T, name, url, compression, fileHash, narHash string, size int64, refs, deriver, sigs, ca string) {
		err := sqlitex.Execute(conn, "select 1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0", &sqlitex.ExecOptions{
			Args: []any{name, url, compression, fileHash, size, narHash, size, refs, deriver, sigs, ca},
			ResultFunc: func(s *sqlite.Stmt) error {
				info, err := infoFromRow(part, s)
				if err == nil && (info.Path.HashPart() != part || info.NarHash.IsZero()) {
					t.Errorf("understood as %+v", info)
				}
				return nil
			},
		})
		if err != nil && !strings.Contains(err.Error(), "UTF-8") {
			t.Fatal(err)
		}
	})
}
