package db

import (
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"
)

// relay is one of two readers, of whom each ends its snapshot once the other has begun one: at no time is there none.
func relay(t *testing.T, db *DB, mine <-chan bool, other chan<- bool, stop <-chan struct{}) {
	for running := true; running; {
		err := db.read(t.Context(), func(c *conn) error {
			return c.snapshot(func() error {
				if _, err := c.strings(stmtListPaths, nil); err != nil {
					return err
				}
				other <- true
				select {
				case <-mine:
				case <-stop:
					running = false
				}
				return nil
			})
		})
		if err != nil {
			t.Error(err)
			running = false
		}
	}
}

// load writes, with readers at all times, and gives the largest size of the log.
func load(t *testing.T, db *DB, writes int) (largest int64) {
	t.Helper()
	stop := make(chan struct{})
	first, second := make(chan bool, 2), make(chan bool, 2)
	var readers sync.WaitGroup
	readers.Go(func() { relay(t, db, first, second, stop) })
	readers.Go(func() { <-second; relay(t, db, second, first, stop) })
	for i := range writes {
		must(t, db.Write(t.Context(), func(tx *Tx) error {
			return tx.SetSignatures(testPaths(1)[0], strings.Repeat("s", 3000)+fmt.Sprint(i))
		}))
		largest = max(largest, fileSize(db.writer.journal.path))
	}
	close(stop)
	readers.Wait()
	return largest
}

func testPaths(n int) (paths []string) {
	for i := range n {
		paths = append(paths, fmt.Sprintf("/nix/store/%032d-p", i))
	}
	return paths
}

func TestJournalIsBounded(t *testing.T) {
	const writes = 1500
	sizes := map[int64]int64{}
	for _, most := range []int64{1 << 40, 1 << 20} {
		db := openTest(t, testOptions(t))
		register(t, db, PathRow{Path: testPaths(1)[0], Hash: "sha256:0", NarSize: 1})
		db.writer.journal.most, db.writer.journal.wait = most, time.Minute // however busy the machine is
		sizes[most] = load(t, db, writes)
	}
	t.Logf("with a bound %d, without %d", sizes[1<<20], sizes[1<<40])
	if sizes[1<<40] < 5<<20 || sizes[1<<20] > 3<<20 {
		t.Error("no bound can be seen")
	}
}

// After much was deleted the files shrink, and everything is as it was.
func TestTidy(t *testing.T) {
	db := openTest(t, testOptions(t))
	paths := testPaths(20000)
	rows := make([]PathRow, len(paths))
	for i, p := range paths {
		rows[i] = PathRow{Path: p, Hash: "sha256:0", NarSize: uint64(i)}
		if i > 0 {
			rows[i].References = []string{paths[i-1]}
		}
	}
	register(t, db, rows...)
	db.Tidy()
	full := fileSize(db.file)
	if size := fileSize(db.writer.journal.path); size != 0 {
		t.Errorf("%d bytes of log are left", size)
	}
	must(t, db.Write(t.Context(), func(tx *Tx) error {
		for i := len(paths) - 1; i >= 100; i-- {
			if _, err := tx.Invalidate(paths[i]); err != nil {
				return err
			}
		}
		return nil
	}))
	before, err := db.LoadGraph(t.Context(), GraphOptions{Derivers: true, Outputs: true})
	must(t, err)
	db.Tidy()
	after, err := db.LoadGraph(t.Context(), GraphOptions{Derivers: true, Outputs: true})
	must(t, err)
	if size := fileSize(db.file); size > full/20 {
		t.Errorf("%d bytes of %d are left for 100 of 20000 paths", size, full)
	}
	before.names, after.names = nameTable{}, nameTable{}
	if !reflect.DeepEqual(before, after) {
		t.Error("not the same as before")
	}
	// While somebody writes nothing is done, and once it is closed neither.
	db.writer.running.Lock()
	db.Tidy()
	db.writer.running.Unlock()
	must(t, db.Close())
	db.Tidy()
}
