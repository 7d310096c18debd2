package db

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"zombiezen.com/go/sqlite"
)

// block occupies the writer until the returned function is called, so that requests pile up into one group.
func block(t *testing.T, db *DB) (release func()) {
	t.Helper()
	entered, leave := make(chan struct{}), make(chan struct{})
	enter := sync.OnceFunc(func() { close(entered) })
	var wg sync.WaitGroup
	wg.Go(func() {
		err := db.Write(t.Context(), func(*Tx) error {
			enter()
			<-leave
			return nil
		})
		if err != nil {
			t.Errorf("blocking write: %v", err)
		}
	})
	<-entered
	return sync.OnceFunc(func() { close(leave); wg.Wait() })
}

// waitQueued returns when n requests wait for the writer.
func waitQueued(db *DB, n int) {
	for len(db.writer.requests) < n {
		<-tick()
	}
}

func TestGroupIsolatesFailures(t *testing.T) {
	db := openTest(t, testOptions(t))
	errNo := errors.New("no")
	release := block(t, db)
	outcomes := make([]error, 8)
	var wg sync.WaitGroup
	for i := range outcomes {
		wg.Go(func() {
			outcomes[i] = db.Write(t.Context(), func(tx *Tx) error {
				if err := tx.Register([]PathRow{{Path: storePath(i, "x"), Hash: testHash}}, nil); err != nil {
					return err
				}
				switch i % 4 {
				case 1:
					return errNo
				case 2:
					panic("boom")
				case 3:
					return tx.Register([]PathRow{{Path: storePath(i, "x"), Hash: testHash, References: []string{"/none"}}}, nil)
				}
				return nil
			})
		})
	}
	waitQueued(db, len(outcomes))
	release()
	wg.Wait()
	for i, err := range outcomes {
		var panicked *PanicError
		var invalid *NotValidError
		ok := []bool{err == nil, errors.Is(err, errNo), errors.As(err, &panicked), errors.As(err, &invalid)}[i%4]
		if !ok {
			t.Errorf("outcome %d = %v", i, err)
		}
		valid, err := db.IsValid(t.Context(), storePath(i, "x"))
		if err != nil || valid != (i%4 == 0) {
			t.Errorf("path %d: valid %v, %v", i, valid, err)
		}
	}
}

// groupOf runs the functions in one group, in that order, and gives their outcomes.
func groupOf(t *testing.T, db *DB, fns ...func(*Tx) error) []error {
	t.Helper()
	release := block(t, db)
	outcomes := make([]error, len(fns))
	var wg sync.WaitGroup
	for i, fn := range fns {
		wg.Go(func() { outcomes[i] = db.Write(t.Context(), fn) })
		waitQueued(db, i+1)
	}
	release()
	wg.Wait()
	return outcomes
}

// What one member's failure undoes of the others is done again: once, and not at all if there is nothing to undo.
func TestGroupRepeats(t *testing.T) {
	db := openTest(t, testOptions(t))
	errNo := errors.New("no")
	calls := make([]int, 8)
	adding := func(i int, after func() error) func(*Tx) error {
		return func(tx *Tx) error {
			calls[i]++
			if err := tx.Register([]PathRow{{Path: storePath(i, "x"), Hash: testHash}}, nil); err != nil {
				return err
			}
			return after()
		}
	}
	succeed := func() error { return nil }
	fail := func() error { return errNo }
	idle := func(i int, err error) func(*Tx) error { return func(*Tx) error { calls[i]++; return err } }
	for _, test := range []struct {
		name     string
		fns      []func(*Tx) error
		calls    []int
		outcomes []error
	}{
		{
			"nothing to undo",
			[]func(*Tx) error{adding(0, succeed), idle(1, errNo), adding(2, succeed)},
			[]int{1, 1, 1}, []error{nil, errNo, nil},
		},
		{
			"undone and repeated",
			[]func(*Tx) error{adding(0, succeed), idle(1, nil), adding(2, fail), adding(3, succeed), adding(4, fail), adding(5, succeed)},
			[]int{2, 2, 1, 1, 1, 1}, []error{nil, nil, errNo, nil, errNo, nil},
		},
		{
			"failures in turn leave no need for it",
			[]func(*Tx) error{adding(0, succeed), adding(1, fail), adding(2, succeed)},
			[]int{1, 1, 1}, []error{nil, errNo, nil},
		},
	} {
		clear(calls)
		must(t, db.Write(t.Context(), func(tx *Tx) error {
			_, err := tx.InvalidateAll([]string{storePath(0, "x"), storePath(2, "x"), storePath(3, "x"), storePath(5, "x")})
			return err
		}))
		outcomes := groupOf(t, db, test.fns...)
		if diff := cmp.Diff(test.calls, calls[:len(test.calls)]); diff != "" {
			t.Errorf("%s: calls (-want +got):\n%s", test.name, diff)
		}
		for i, want := range test.outcomes {
			if !errors.Is(outcomes[i], want) {
				t.Errorf("%s: outcome %d = %v", test.name, i, outcomes[i])
			}
			added := want == nil && !(test.name == "undone and repeated" && i == 1)
			if valid, err := db.IsValid(t.Context(), storePath(i, "x")); err != nil || valid != added {
				t.Errorf("%s: path %d: valid %v, %v", test.name, i, valid, err)
			}
		}
	}
}

// Care ends after a while, and what fails when it is repeated harms nobody else.
func TestGroupRepeatFails(t *testing.T) {
	db := openTest(t, testOptions(t))
	errNo := errors.New("no")
	add := func(i int, after error) func(*Tx) error {
		return func(tx *Tx) error {
			return errors.Join(tx.Register([]PathRow{{Path: storePath(i, "x"), Hash: testHash}}, nil), after)
		}
	}
	for round := range 3 {
		first := round * 4
		calls := 0
		outcomes := groupOf(t, db, add(first, nil), func(tx *Tx) error {
			if calls++; calls == 2 {
				return add(first+1, errNo)(tx)
			}
			return add(first+1, nil)(tx)
		}, add(first+2, errNo), add(first+3, nil))
		for i, want := range []error{nil, errNo, errNo, nil} {
			if !errors.Is(outcomes[i], want) {
				t.Errorf("round %d: outcome %d = %v", round, i, outcomes[i])
			}
			if valid, err := db.IsValid(t.Context(), storePath(first+i, "x")); err != nil || valid != (want == nil) {
				t.Errorf("round %d: path %d: valid %v, %v", round, i, valid, err)
			}
		}
		for range carefulGroups {
			must(t, db.Write(t.Context(), func(*Tx) error { return nil }))
		}
	}
}

func TestGroupIsOneTransaction(t *testing.T) {
	db := openTest(t, testOptions(t))
	release := block(t, db)
	var wg sync.WaitGroup
	const n = 50
	for i := range n {
		wg.Go(func() { register(t, db, PathRow{Path: storePath(i, "x"), Hash: testHash}) })
	}
	waitQueued(db, n)
	before := db.changes.counter
	if before == nil {
		t.Skip("commits can only be counted where the log's index can be mapped")
	}
	start := before.load()
	release()
	wg.Wait()
	if commits := before.load() - start; commits >= n/2 {
		t.Errorf("%d commits for %d waiting callers", commits, n)
	}
}

func TestWriteSeesOwnAndEarlierChanges(t *testing.T) {
	db := openTest(t, testOptions(t))
	err := db.Write(t.Context(), func(tx *Tx) error {
		if err := tx.Register([]PathRow{{Path: "/a", Hash: testHash}}, nil); err != nil {
			return err
		}
		if valid, err := tx.IsValid("/a"); !valid {
			return fmt.Errorf("own change not seen: %v", err)
		}
		if valid, err := db.IsValid(t.Context(), "/a"); valid {
			return fmt.Errorf("uncommitted change seen by a reader: %v", err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestWriteCancelledBeforeStart(t *testing.T) {
	db := openTest(t, testOptions(t))
	release := block(t, db)
	defer release()
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error)
	go func() {
		result <- db.Write(ctx, func(*Tx) error { t.Error("ran although cancelled"); return nil })
	}()
	waitQueued(db, 1)
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Errorf("Write = %v", err)
	}
}

func TestCloseFailsWaitingWrites(t *testing.T) {
	opts := testOptions(t)
	db := openTest(t, opts)
	foreign := openForeign(t, opts.Dir)
	must(t, foreign.exec(stmtBegin, nil))
	result := make(chan error)
	go func() {
		result <- db.Write(t.Context(), func(*Tx) error { return nil })
	}()
	if err := db.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	if err := <-result; !errors.Is(err, ErrClosed) {
		t.Errorf("Write = %v", err)
	}
	if err := db.Write(t.Context(), func(*Tx) error { return nil }); !errors.Is(err, ErrClosed) {
		t.Errorf("Write after Close = %v", err)
	}
	if _, err := db.IsValid(t.Context(), "/a"); !errors.Is(err, ErrClosed) {
		t.Errorf("IsValid after Close = %v", err)
	}
}

func TestWriteWaitsForForeignWriter(t *testing.T) {
	opts := testOptions(t)
	db := openTest(t, opts)
	foreign := openForeign(t, opts.Dir)
	must(t, foreign.exec(stmtBegin, nil))
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error)
	go func() { result <- db.Write(ctx, func(*Tx) error { t.Error("ran"); return nil }) }()
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled while busy: %v", err)
	}
	go func() {
		result <- db.Write(t.Context(), func(tx *Tx) error {
			return tx.Register([]PathRow{{Path: "/a", Hash: testHash}}, nil)
		})
	}()
	<-tick()
	must(t, foreign.exec(stmtCommit, nil))
	if err := <-result; err != nil {
		t.Errorf("Write after the foreign commit: %v", err)
	}
}

func TestGeneration(t *testing.T) {
	opts := testOptions(t)
	db := openTest(t, opts)
	if db.changes.counter == nil {
		t.Log("the log's index cannot be mapped here; testing PRAGMA data_version")
	}
	t.Run("mapped", func(t *testing.T) { testGeneration(t, opts.Dir, db) })
	// The other way of asking must notice foreign changes, too.
	other := testOptions(t)
	asking := openTest(t, other)
	must(t, askInstead(t.Context(), asking))
	t.Run("asked", func(t *testing.T) { testForeignNoticed(t, other.Dir, asking) })
}

func askInstead(ctx context.Context, db *DB) (err error) {
	w := &changeWatch{}
	if w.asker, err = db.pool.open(ctx); err != nil {
		return err
	}
	w.version, err = dataVersion(w.asker)
	db.changes = w
	return err
}

func testGeneration(t *testing.T, dir string, db *DB) {
	before := db.Generation()
	for i := range 20 {
		register(t, db, PathRow{Path: storePath(i, "own"), Hash: testHash})
		_ = db.Write(t.Context(), func(tx *Tx) error {
			return errors.Join(tx.SetSignatures(storePath(i, "own"), "x"), errors.New("roll back"))
		})
		must(t, db.Write(t.Context(), func(tx *Tx) error { _, err := tx.Invalidate("/none"); return err }))
	}
	if db.changes.counter != nil && db.Generation() != before {
		t.Errorf("own changes moved the generation from %d to %d", before, db.Generation())
	}
	testForeignNoticed(t, dir, db)
}

func testForeignNoticed(t *testing.T, dir string, db *DB) {
	foreign := openForeign(t, dir)
	last := db.Generation()
	insert := func(path string) {
		t.Helper()
		must(t, foreign.exec(stmtInsertPath, func(s *sqlite.Stmt) {
			s.BindText(1, path)
			s.BindText(2, testHash)
			s.BindInt64(3, 1)
			for i := 4; i <= 8; i++ {
				s.BindNull(i)
			}
		}))
	}
	for i := range 5 {
		insert(storePath(i, "foreign"))
		now := db.Generation()
		if now == last {
			t.Errorf("foreign change %d not noticed", i)
		}
		last = now
		// Between a foreign commit and the next look there may be one of ours.
		insert(storePath(i, "foreign-before-own"))
		register(t, db, PathRow{Path: storePath(i, "own-after"), Hash: testHash})
		if now = db.Generation(); now == last {
			t.Errorf("foreign change %d before our own not noticed", i)
		}
		last = now
	}
	if db.changes.counter != nil && db.Generation() != last {
		t.Error("generation moves without a change")
	}
}

// TestGenerationRace lets both sides commit as fast as they can: after every foreign commit the next look must tell.
func TestGenerationRace(t *testing.T) {
	opts := testOptions(t)
	db := openTest(t, opts)
	foreign := openForeign(t, opts.Dir)
	register(t, db, PathRow{Path: "/own", Hash: testHash})
	register(t, db, PathRow{Path: "/foreign", Hash: testHash})
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			if err := db.Write(t.Context(), func(tx *Tx) error { return tx.SetSignatures("/own", fmt.Sprint(i)) }); err != nil {
				t.Errorf("own write: %v", err)
				return
			}
		}
	})
	last := db.Generation()
	for i := range 200 {
		must(t, db.retryBusy(t.Context(), func() error {
			return foreign.exec(stmtUpdateSignatures, func(s *sqlite.Stmt) {
				s.BindText(1, "/foreign")
				s.BindText(2, fmt.Sprint(i))
			})
		}))
		now := db.Generation()
		if now == last {
			t.Errorf("foreign change %d not noticed", i)
		}
		last = now
	}
	close(stop)
	wg.Wait()
}

func TestStale(t *testing.T) {
	opts := testOptions(t)
	db := openTest(t, opts)
	if db.Stale() {
		t.Error("stale although untouched")
	}
	aside := opts.Dir + ".aside"
	must(t, os.Rename(opts.Dir, aside))
	if !db.Stale() {
		t.Error("not stale although the directory is gone")
	}
	other := openTest(t, opts)
	if !db.Stale() {
		t.Error("not stale although replaced")
	}
	if other.Stale() {
		t.Error("the new one is stale")
	}
	register(t, other, PathRow{Path: "/new", Hash: testHash})
	if valid, err := other.IsValid(t.Context(), "/new"); !valid || err != nil {
		t.Errorf("new database: %v, %v", valid, err)
	}
}

func TestValidSubsetBothWays(t *testing.T) {
	db := openTest(t, testOptions(t))
	all := fillPaths(t, db, 2000, 0)
	var ask, want []string
	for i := range 1000 {
		ask = append(ask, storePath(i+5000, "none"))
		if i%2 == 0 {
			ask = append(ask, all[i])
			want = append(want, all[i])
		}
	}
	for _, n := range []int{len(ask), 100, 10} { // scanned, looked up for the size of the store, looked up
		var wantN []string
		for _, p := range want {
			for _, q := range ask[:n] {
				if p == q {
					wantN = append(wantN, p)
				}
			}
		}
		got, err := db.ValidSubset(t.Context(), ask[:n])
		if diff := cmp.Diff(wantN, got); diff != "" || err != nil {
			t.Errorf("n=%d: %v (-want +got):\n%s", n, err, diff)
		}
	}
}

// openForeign opens a connection as another process would.
func openForeign(t *testing.T, dir string) *conn {
	t.Helper()
	c, err := openConn(databaseURI(dir, true, false), sqlite.OpenReadWrite)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.close() })
	if _, err := c.pragma("foreign_keys = 1"); err != nil {
		t.Fatal(err)
	}
	return c
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// tick is a short pause for loops that watch what no channel tells.
func tick() <-chan time.Time { return time.After(time.Millisecond) }
