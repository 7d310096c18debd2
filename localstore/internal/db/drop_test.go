package db

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// rowsOf looks up paths' rows, number 0 where there is none.
func rowsOf(t testing.TB, db *DB, paths []string) Rows {
	t.Helper()
	g, err := db.LoadGraph(t.Context(), GraphOptions{})
	must(t, err)
	known := make(map[string]int64)
	for i, p := range g.Paths {
		known[p] = g.Rows([]int32{int32(i)}).ids[0]
	}
	rows := Rows{db, make([]int64, len(paths))}
	for i, p := range paths {
		rows.ids[i] = known[p]
	}
	return rows
}

// dropAll calls Drop as a collection does.
func dropAll(t testing.TB, db *DB, paths []string, rows Rows) {
	t.Helper()
	for len(paths) > 0 {
		done, err := db.Drop(t.Context(), paths, rows)
		must(t, err)
		if done == 0 {
			t.Fatal("no progress")
		}
		paths, rows.ids = paths[done:], rows.ids[done:]
	}
}

// dump is all that a database has, by the names of rows instead of their numbers.
func dump(t testing.TB, db *DB) []string {
	t.Helper()
	var all []string
	queries := []string{
		"select 'path ' || path from ValidPaths",
		"select 'ref ' || a.path || ' ' || b.path from Refs left join ValidPaths a on a.id = referrer left join ValidPaths b on b.id = reference",
		"select 'output ' || v.path || ' ' || o.id from DerivationOutputs o left join ValidPaths v on v.id = drv",
		"select 'realisation ' || drvPath || ' ' || v.path from Realisations left join ValidPaths v on v.id = outputPath",
	}
	if !db.byHash {
		queries = queries[:3]
	}
	must(t, db.Write(t.Context(), func(tx *Tx) error {
		for _, q := range queries {
			s, _, err := tx.sql.PrepareTransient(q)
			must(t, err)
			for {
				more, err := s.Step()
				must(t, err)
				if !more {
					break
				}
				all = append(all, s.ColumnText(0)) // "" where a row leads nowhere
			}
			must(t, s.Finalize())
		}
		return nil
	}))
	slices.Sort(all)
	return all
}

// randomStore registers paths with references to themselves and to those before, outputs, and realisations.
func randomStore(t testing.TB, db *DB, seed uint64, n int) []string {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 0))
	paths := testPaths(n)
	rows := make([]PathRow, n)
	outputs := make(map[string]map[string]string)
	for i, p := range paths {
		rows[i] = PathRow{Path: p, Hash: "sha256:0", NarSize: 1}
		for range r.IntN(4) {
			if ref := paths[r.IntN(i+1)]; !slices.Contains(rows[i].References, ref) {
				rows[i].References = append(rows[i].References, ref)
			}
		}
		if r.IntN(3) == 0 {
			outputs[p] = map[string]string{"out": paths[r.IntN(n)], "dev": paths[0]}
		}
	}
	must(t, db.Write(t.Context(), func(tx *Tx) error { return tx.Register(rows, outputs) }))
	if db.byHash {
		must(t, db.Write(t.Context(), func(tx *Tx) error {
			for i := 0; i < n; i += 1 + r.IntN(40) {
				must(t, tx.AddRealisation(ByHash, RealisationRow{Drv: fmt.Sprintf("sha256:%064d", i), Output: "out", Path: paths[i]}))
			}
			return nil
		}))
	}
	return paths
}

// scattered gives some of the paths and all that need them, the latter first.
func scattered(t testing.TB, db *DB, seed uint64) []string {
	t.Helper()
	g, err := db.LoadGraph(t.Context(), GraphOptions{})
	must(t, err)
	r := rand.New(rand.NewPCG(seed, 1))
	chosen := make([]bool, len(g.Paths))
	var out []string
	for n := range chosen {
		chosen[n] = r.IntN(100) == 0
		for _, ref := range g.References(int32(n)) {
			chosen[n] = chosen[n] || chosen[ref]
		}
		if chosen[n] {
			out = append(out, g.Paths[n])
		}
	}
	slices.Reverse(out)
	return out
}

// Numbers that follow one another are told by the first and the last, unless they are few.
func TestRunsOf(t *testing.T) {
	ids := []int64{9, 30, 8, 7, 1, 6, 41, 40, 42, 5, 43}
	want := rowRuns{runs: []rowRun{{5, 9}, {40, 43}}, others: "[1,30]"}
	if got := runsOf(ids); got.others != want.others || !slices.Equal(got.runs, want.runs) {
		t.Errorf("got %v, want %v", got, want)
	}
	if ids[0] != 9 || ids[10] != 43 {
		t.Errorf("the caller's numbers were sorted: %v", ids)
	}
	if got := runsOf([]int64{3}); got.runs != nil || got.others != "[3]" {
		t.Errorf("of one: %v", got)
	}
	if got := runsOf([]int64{4, 3, 2, 1}); len(got.runs) != 1 || got.others != "" {
		t.Errorf("of four: %v", got)
	}
}

// What Drop leaves is what the database's own rules leave.
func TestDropIsLikeInvalidate(t *testing.T) {
	for _, ca := range []bool{false, true} {
		for seed := range uint64(6) {
			t.Run(fmt.Sprintf("realisations=%t,%d", ca, seed), func(t *testing.T) {
				var left [2][]string
				for i := range left {
					o := testOptions(t)
					o.WantCA = ca
					db := openTest(t, o)
					paths := randomStore(t, db, seed, 400)
					some := slices.Clone(paths[100+10*int(seed):])
					slices.Reverse(some)
					if seed%2 == 1 {
						some = scattered(t, db, seed)
					}
					if i == 0 {
						dropAll(t, db, some, rowsOf(t, db, some))
					} else {
						must(t, db.Write(t.Context(), func(tx *Tx) error { _, err := tx.InvalidateAll(some); return err }))
					}
					left[i] = dump(t, db)
				}
				if diff := cmp.Diff(left[1], left[0]); diff != "" {
					t.Error(diff)
				}
				if len(left[0]) < 100 {
					t.Errorf("only %d rows are left", len(left[0]))
				}
			})
		}
	}
}

// Somebody else's reference keeps a path and undoes the transaction; so does one of a path that comes later.
func TestDropOfUsed(t *testing.T) {
	db := openTest(t, testOptions(t))
	all := fillChain(t, db, 100)
	before := dump(t, db)
	for _, some := range [][]string{all[:50], all[:1], {all[51], all[50]}} {
		done, err := db.Drop(t.Context(), some, rowsOf(t, db, some))
		var used *ReferrersError
		if done != 0 || !errors.As(err, &used) {
			t.Errorf("%d done: %v", done, err)
		}
	}
	if diff := cmp.Diff(before, dump(t, db)); diff != "" {
		t.Error(diff)
	}
}

// A path that was registered anew meanwhile has another row; one that is gone has none.
func TestDropOfMoved(t *testing.T) {
	db := openTest(t, testOptions(t))
	paths := randomStore(t, db, 1, 30)
	slices.Reverse(paths)
	rows := rowsOf(t, db, paths)
	must(t, db.Write(t.Context(), func(tx *Tx) error { _, err := tx.InvalidateAll(paths[:2]); return err }))
	register(t, db, PathRow{Path: paths[1], Hash: "sha256:0"})
	dropAll(t, db, paths, rows)
	if left := dump(t, db); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// The numbers of one database say nothing in another: neither in a new one, nor in one that took the name of ours.
func TestDropInAnother(t *testing.T) {
	old := openTest(t, testOptions(t))
	paths := fillChain(t, old, 20)
	slices.Reverse(paths)
	rows := rowsOf(t, old, paths)
	o := testOptions(t)
	db := openTest(t, o)
	for _, p := range paths { // their order, and so their numbers, are others
		register(t, db, PathRow{Path: p, Hash: "sha256:0"})
	}
	if done, err := db.Drop(t.Context(), paths[:3], rows); done != 3 || err != nil {
		t.Errorf("%d done: %v", done, err)
	}
	left, err := db.AllPaths(t.Context())
	must(t, err)
	if diff := cmp.Diff(paths[3:], left, ignoreOrder); diff != "" {
		t.Error(diff)
	}
	rows = rowsOf(t, db, paths)
	must(t, os.Rename(filepath.Join(o.Dir, databaseFile), filepath.Join(o.Dir, "old")))
	must(t, os.WriteFile(filepath.Join(o.Dir, databaseFile), nil, 0o644))
	if _, err := db.writer.drop(t.Context(), rows.ids[3:]); err == nil || db.writer.dropper.conn != nil {
		t.Errorf("a file of another's is used: %v", err)
	}
}

// What somebody else's table ties to a path goes with it, or keeps it.
func TestDropWithUnknownTables(t *testing.T) {
	db := openTest(t, testOptions(t))
	paths := randomStore(t, db, 2, 20)
	slices.Reverse(paths)
	rows := rowsOf(t, db, paths)
	dropAll(t, db, paths[:5], rows)
	rows.ids = rows.ids[5:]
	must(t, db.Write(t.Context(), func(tx *Tx) error {
		tx.changed = true
		return tx.script(`create table Notes (text, path integer references validpaths(id) on delete cascade);
			insert into Notes select 'note', id from ValidPaths`)
	}))
	dropAll(t, db, paths[5:], rows)
	must(t, db.Write(t.Context(), func(tx *Tx) error {
		if n, err := tx.query("select count(*) from Notes"); err != nil || n != "0" {
			t.Errorf("%s notes are left: %v", n, err)
		}
		return nil
	}))
}

// The transaction ends when somebody waits, who then comes first.
func TestDropGivesWay(t *testing.T) {
	db := openTest(t, testOptions(t))
	paths := fillChain(t, db, 5000)
	slices.Reverse(paths)
	rows := rowsOf(t, db, paths)
	w := db.writer
	w.running.Lock() // so that the request waits
	wrote := make(chan error)
	go func() {
		wrote <- db.Write(context.WithoutCancel(t.Context()), func(tx *Tx) error {
			_, found, err := tx.PathID(paths[0])
			if err == nil && !found {
				err = errors.New("the collection came first")
			}
			return err
		})
	}()
	for len(w.requests) == 0 {
		time.Sleep(time.Millisecond)
	}
	must(t, w.dropper.open(db))
	must(t, w.dropper.conn.exec(stmtBegin, nil))
	done, err := w.dropRows(t.Context(), rows.ids)
	must(t, err)
	if done < 1 || done > maxDropPart {
		t.Errorf("%d rows dropped in spite of one who waits", done)
	}
	must(t, w.dropper.conn.exec(stmtRollback, nil))
	w.running.Unlock()
	done, err = db.Drop(t.Context(), paths, rows)
	must(t, err)
	must(t, <-wrote)
	if done < 1 {
		t.Error("nothing dropped")
	}
}

// Our own deletions are no foreign ones, and what was prepared for them goes when there is time.
func TestDropIsOurs(t *testing.T) {
	db := openTest(t, testOptions(t))
	paths := fillChain(t, db, 300)
	slices.Reverse(paths)
	rows := rowsOf(t, db, paths)
	before := db.Generation()
	for range 2 {
		half := len(paths) / 2
		dropAll(t, db, paths[:half], rows)
		paths, rows.ids = paths[half:], rows.ids[half:]
		db.Tidy()
		if db.writer.dropper.conn != nil {
			t.Error("the connection is still there")
		}
	}
	if db.changes.counter != nil && db.Generation() != before {
		t.Error("our own changes count as foreign")
	}
	if left, err := db.AllPaths(t.Context()); err != nil || len(left) != len(paths) {
		t.Errorf("%d left, want %d: %v", len(left), len(paths), err)
	}
}

// After an end nothing begins.
func TestDropInterrupted(t *testing.T) {
	db := openTest(t, testOptions(t))
	paths := fillChain(t, db, 3)
	rows := rowsOf(t, db, paths)
	must(t, db.Close())
	if done, err := db.Drop(t.Context(), paths, rows); done != 0 || !errors.Is(err, ErrClosed) {
		t.Errorf("%d done: %v", done, err)
	}
}

// BenchmarkDrop makes a store's paths invalid as a collection does, referrers first.
func BenchmarkDrop(b *testing.B) {
	const n = 20000
	for _, refs := range []int{1, 10} {
		b.Run(fmt.Sprintf("refs=%d", refs), func(b *testing.B) {
			var cpu time.Duration
			b.StopTimer()
			for range b.N {
				db := openTest(b, testOptions(b))
				paths := fillPaths(b, db, n, refs)
				slices.Reverse(paths)
				rows := rowsOf(b, db, paths)
				begun := cpuTime(b)
				b.StartTimer()
				dropAll(b, db, paths, rows)
				b.StopTimer()
				cpu += cpuTime(b) - begun
			}
			b.ReportMetric(float64(cpu)/float64(b.N)/n, "cpu-ns/path")
		})
	}
}

// TestBusy: who writes makes the database busy for a moment, a collection does not.
func TestBusy(t *testing.T) {
	ctx := t.Context()
	db := openTest(t, testOptions(t))
	paths := fillPaths(t, db, 3, 0)
	for !db.writer.busy() { // unless this process stands still for longer
		register(t, db, PathRow{Path: paths[0], Hash: testHash})
	}
	long := time.Now().Add(-time.Hour).UnixNano()
	db.writer.called.Store(long)
	g, err := db.LoadGraph(ctx, GraphOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if n, err := db.Drop(ctx, paths[2:], g.Rows([]int32{2})); n != 1 || err != nil {
		t.Error(n, err)
	}
	if n, err := db.Drop(ctx, paths[1:2], Rows{}); n != 1 || err != nil { // by the long way
		t.Error(n, err)
	}
	if db.writer.busy() || db.writer.called.Load() != long {
		t.Error("a collection takes itself for others")
	}
}
