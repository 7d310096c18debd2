package localstore

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"nixdaemon/localstore/internal/db"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/storepath"
)

// fillRows registers paths that have no files, and gives them in order.
func fillRows(t *testing.T, s *Store, n int) []storepath.Path {
	t.Helper()
	rows := make([]db.PathRow, n)
	paths := make([]storepath.Path, n)
	for i := range rows {
		p, err := s.Dir().MakePath("text", nixhash.Of(nixhash.SHA256, fmt.Sprint(i)), fmt.Sprintf("row-%d", i))
		if err != nil {
			t.Fatal(err)
		}
		paths[i] = p
		rows[i] = db.PathRow{Path: s.Dir().Print(p), Hash: nixhash.Of(nixhash.SHA256, "").Format(nixhash.Base16, true)}
	}
	err := s.current.Load().db.Write(ctx, func(tx *db.Tx) error { return tx.Register(rows, nil) })
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

// TestRowReader: readers side by side get each path once, however the rows fall into blocks, and nothing that is
// registered after the reader was made.
func TestRowReader(t *testing.T) {
	s := open(t, nil)
	paths := fillRows(t, s, 2*rowBlock+rowBlock/2)
	h := s.current.Load()
	// A gap of more than a block.
	gone := slices.Clone(paths[100 : 100+rowBlock+100])
	if _, err := s.InvalidateAll(ctx, gone); err != nil {
		t.Fatal(err)
	}
	want := slices.Concat(paths[:100], paths[100+rowBlock+100:])
	rows, err := s.newRowReader(ctx, h)
	if err != nil {
		t.Fatal(err)
	}
	addText(t, s, "late", "late")
	var mu sync.Mutex
	var got []storepath.Path
	err = onAllProcessors(ctx, func(ctx context.Context) error {
		return rows.each(ctx, func(_ context.Context, r validRow) error {
			mu.Lock()
			defer mu.Unlock()
			got = append(got, r.path)
			if r.row.Path != s.Dir().Print(r.path) {
				t.Errorf("the row of %s is that of %s", r.path, r.row.Path)
			}
			return nil
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := storepath.SortUnique(slices.Clone(got)), storepath.SortUnique(want); !slices.Equal(got, want) {
		t.Errorf("read %d paths, want %d", len(got), len(want))
	}
	if some, err := rows.next(ctx, 10); err != nil || len(some) != 0 {
		t.Errorf("after the end: %v, %v", some, err)
	}
}

// TestRowReaderOddNumbers: rows are read whatever numbers somebody else has given them, and wherever the table of the last
// number stands.
func TestRowReaderOddNumbers(t *testing.T) {
	o := testOptions(t)
	s := openWith(t, o)
	want := fillRows(t, s, 4)
	closeStore(t, s)
	c, err := sqlite.OpenConn(dbFile(&o), sqlite.OpenReadWrite)
	if err != nil {
		t.Fatal(err)
	}
	script := "update ValidPaths set id = -9000000000000000000 where id = 1; update ValidPaths set id = 9000000000000000000 where id = 2; update sqlite_sequence set seq = 1"
	if err := errors.Join(sqlitex.ExecuteScript(c, script, nil), c.Close()); err != nil {
		t.Fatal(err)
	}
	s = openWith(t, o)
	defer closeStore(t, s)
	rows, err := s.newRowReader(ctx, s.current.Load())
	if err != nil {
		t.Fatal(err)
	}
	var got []storepath.Path
	if err := rows.each(ctx, func(_ context.Context, r validRow) error { got = append(got, r.path); return nil }); err != nil {
		t.Fatal(err)
	}
	if got, want := storepath.SortUnique(got), storepath.SortUnique(want); !slices.Equal(got, want) {
		t.Errorf("read %v, want %v", got, want)
	}
	g, err := s.Graph(ctx, db.GraphOptions{})
	if err != nil || len(g.Paths) != len(want) {
		t.Errorf("the graph has %d paths, want %d: %v", len(g.Paths), len(want), err)
	}
}

// TestRowReaderStops: one error ends all, and so does the context.
func TestRowReaderStops(t *testing.T) {
	s := open(t, nil)
	fillRows(t, s, 50)
	rows, err := s.newRowReader(ctx, s.current.Load())
	if err != nil {
		t.Fatal(err)
	}
	stop := errors.New("stop")
	visit := func(context.Context, validRow) error { return stop }
	if err := onAllProcessors(ctx, func(ctx context.Context) error { return rows.each(ctx, visit) }); !errors.Is(err, stop) {
		t.Error(err)
	}
	canceled, cancel := context.WithCancelCause(ctx)
	cancel(stop)
	if err := rows.each(canceled, func(context.Context, validRow) error { return nil }); err == nil {
		t.Error("a reader went on after its context ended")
	}
}

// TestVerifyManyMissing: a store whose directory is empty loses every row, over several blocks of them.
func TestVerifyManyMissing(t *testing.T) {
	s := open(t, nil)
	fillRows(t, s, rowBlock+50)
	kept := addText(t, s, "kept", "kept")
	if bad, err := s.Verify(ctx, VerifyOptions{CheckContents: true}); bad || err != nil {
		t.Fatal(bad, err)
	}
	if all, err := s.AllValidPaths(ctx); err != nil || !slices.Equal(all, []storepath.Path{kept.Path}) {
		t.Errorf("%d paths are valid, %v", len(all), err)
	}
}

// TestEachValidLeavesOut: what became invalid since the rows were read is left out, and what is worked with is a
// temporary root meanwhile.
func TestEachValidLeavesOut(t *testing.T) {
	s := open(t, nil)
	first := addText(t, s, "first", "first")
	second := addText(t, s, "second", "second")
	h := s.acquire()
	defer h.release()
	rows, err := s.newRowReader(ctx, h)
	if err != nil {
		t.Fatal(err)
	}
	both, err := rows.next(ctx, 10)
	if err != nil || len(both) != 2 {
		t.Fatal(both, err)
	}
	if _, err := s.Invalidate(ctx, first.Path); err != nil {
		t.Fatal(err)
	}
	var got []storepath.Path
	err = s.eachRooted(ctx, h, both, func(ctx context.Context, p storepath.Path) error {
		got = append(got, p)
		if roots := s.allTempRoots(); !slices.Contains(roots, second.Path) {
			t.Errorf("%v are temporary roots", roots)
		}
		return nil
	})
	if err != nil || !slices.Equal(got, []storepath.Path{second.Path}) {
		t.Error(got, err)
	}
}

// TestEachValidFindsAgain: a path that went and came back, so that its row has another number, is worked with.
func TestEachValidFindsAgain(t *testing.T) {
	s := open(t, nil)
	paths := fillRows(t, s, 4)
	h := s.acquire()
	defer h.release()
	rows, err := s.newRowReader(ctx, h)
	if err != nil {
		t.Fatal(err)
	}
	all, err := rows.next(ctx, 10)
	if err != nil || len(all) != len(paths) {
		t.Fatal(all, err)
	}
	if _, err := s.InvalidateAll(ctx, []storepath.Path{paths[0], paths[2]}); err != nil {
		t.Fatal(err)
	}
	row := db.PathRow{Path: s.Dir().Print(paths[2]), Hash: all[2].row.Hash}
	if err := h.db.Write(ctx, func(tx *db.Tx) error { return tx.Register([]db.PathRow{row}, nil) }); err != nil {
		t.Fatal(err)
	}
	var got []storepath.Path
	err = s.eachRooted(ctx, h, all, func(_ context.Context, p storepath.Path) error { got = append(got, p); return nil })
	if err != nil || !slices.Equal(got, paths[1:]) {
		t.Errorf("worked with %v, %v; want %v", got, err, paths[1:])
	}
}

// allTempRoots are those of this process.
func (s *Store) allTempRoots() (all []storepath.Path) {
	s.rootsMu.Lock()
	defer s.rootsMu.Unlock()
	for t := range s.roots {
		t.mu.Lock()
		for p := range t.known {
			all = append(all, p)
		}
		t.mu.Unlock()
	}
	return all
}

func TestNameSet(t *testing.T) {
	s := open(t, nil)
	root := s.current.Load().root
	for i := range 300 {
		if err := root.Mkdir(fmt.Sprintf("name-%d", i), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	names, err := namesOf(root)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 600 {
		if name := fmt.Sprintf("name-%d", i); names.has(name) != (i < 300) {
			t.Errorf("%s is in the set: %t", name, names.has(name))
		}
	}
}

// TestFind compares with halving, among numbers that are spread evenly and among others.
func TestFind(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	same := func(sorted []uint64, wanted uint64) {
		t.Helper()
		at, found := find(sorted, wanted)
		if wantAt, want := slices.BinarySearch(sorted, wanted); at != wantAt || found != want {
			t.Fatalf("%d among %d: %d, %t; want %d, %t", wanted, len(sorted), at, found, wantAt, want)
		}
	}
	for _, size := range []int{0, 1, 2, 3, 100, 5000} {
		for _, mask := range []uint64{math.MaxUint64, 15 << 60, 7, math.MaxUint32, 0} {
			sorted := make([]uint64, size)
			for i := range sorted {
				sorted[i] = r.Uint64() & mask
			}
			slices.Sort(sorted)
			for _, edge := range []uint64{0, 1, math.MaxUint64 / 2, math.MaxUint64 - 1, math.MaxUint64} {
				same(sorted, edge)
			}
			for range 200 {
				same(sorted, r.Uint64())
				if size > 0 {
					some := sorted[r.IntN(size)]
					same(sorted, some)
					same(sorted, some+1)
					same(sorted, some-1)
				}
			}
		}
	}
}

// BenchmarkFind among the sums of a directory of a million names.
func BenchmarkFind(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 2))
	sorted := make([]uint64, 1_000_000)
	for i := range sorted {
		sorted[i] = r.Uint64()
	}
	wanted := slices.Clone(sorted)
	slices.Sort(sorted)
	for b.Loop() {
		w := wanted[r.IntN(len(wanted))]
		if _, found := find(sorted, w); !found {
			b.Fatal(w)
		}
	}
}

// TestVerifyAsksAgain: a path that was replaced after its row was read is verified by its new row.
func TestVerifyAsksAgain(t *testing.T) {
	s := open(t, nil)
	added := addText(t, s, "replaced", "new")
	h := s.acquire()
	defer h.release()
	var log collectedLog
	v := &verifier{s: s, h: h, opts: &VerifyOptions{Log: &log}}
	rows, err := s.newRowReader(ctx, h)
	if err != nil {
		t.Fatal(err)
	}
	some, err := rows.next(ctx, 1)
	if err != nil || len(some) != 1 {
		t.Fatal(some, err)
	}
	some[0].row.Hash = nixhash.Of(nixhash.SHA256, "old").Format(nixhash.Base16, true)
	if err := v.hash(ctx, some[0]); err != nil || v.errors.Load() || len(log.texts) != 0 {
		t.Errorf("%v, %q", err, log.texts)
	}
	damage(t, s.RealPath(added.Path))
	if err := v.hash(ctx, some[0]); err != nil || !v.errors.Load() || len(log.texts) != 1 {
		t.Errorf("of a damaged path: %v, %q", err, log.texts)
	}
}
