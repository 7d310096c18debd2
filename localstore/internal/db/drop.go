package db

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"zombiezen.com/go/sqlite"
)

const (
	// dropTime is how long a transaction of [DB.Drop] may get while nobody waits: a foreign process that wants to write
	// cannot tell us. Where somebody of ours wrote lately it is dropTimeAmong.
	dropTime      = 20 * time.Millisecond
	dropTimeAmong = 2 * time.Millisecond

	// Between two parts of a transaction it is looked whether somebody waits: a part takes about that long.
	dropPart      = 2 * time.Millisecond
	dropPartAmong = time.Millisecond
	minDropPart   = 32
	maxDropPart   = 256

	// minDrop is how many rows go in a transaction at least while nobody waits, however slow the machine is at the moment:
	// each transaction costs as much as some tens of rows.
	minDrop = maxDropPart

	// dropRest is how long others have the database to themselves after a transaction at most, where there are others.
	dropRest = 2 * time.Millisecond

	// Where rows cannot be dropped without the database's own checks so many go at once, and that is not tried again for
	// so many calls.
	checkedDrops = 64
	dropsSkipped = 16

	// dropCache is the page cache while a collection runs, in KiB: the paths of its rows lie all over their index.
	dropCache = 8 << 10
)

// errChecks says that rows must go by the long way: one is not there under its number any more, or something unexpected
// depends on it.
var errChecks = errors.New("rows cannot be dropped without the database's checks")

// dropper deletes the rows of paths by their numbers. For each row SQLite would run through the rules of every
// foreign key that leads to it, half of what a deletion costs. So this connection has foreign keys switched off, and
// what they say is done here for many rows at once: the references and outputs go, and nobody else may refer to them.
// It belongs to the writer and is used under its lock.
type dropper struct {
	conn *conn // nil until it is needed, and between collections

	looked   bool
	schema   int64 // the number of the schema that was looked at
	known    bool  // whether nothing but what is known here depends on rows of paths
	realised bool  // whether there is a table of realisations that depend on them

	skip   int           // calls that shall not try
	perRow time.Duration // what a row took lately
}

// Drop makes paths invalid, each of which only those before it may refer to, and itself. It does so in one transaction,
// which ends early when others wait to write: done tells how many of the first paths it was, not none without an error.
// rows are theirs in the graph that the collection goes by; it may be another database's if this one is new. It is no error
// if a path is not valid, or has another row by now, which then goes as well. If something else refers to one of the
// first of them it gives a [ReferrersError].
func (db *DB) Drop(ctx context.Context, paths []string, rows Rows) (done int, err error) {
	if len(paths) == 0 {
		return 0, nil
	}
	if db.writer == nil {
		return 0, ErrReadOnly
	}
	err = errChecks
	if rows.db == db {
		begun := time.Now()
		done, err = db.writer.drop(ctx, rows.ids[:len(paths)])
		if err == nil && db.writer.busy() {
			rest(ctx, min(time.Since(begun), dropRest))
		}
	}
	if err != errChecks {
		return done, db.explain(err)
	}
	some := paths[:min(len(paths), checkedDrops)]
	// Not by Write: those who do are the others.
	err = db.write(ctx, func(tx *Tx) error { _, err := tx.InvalidateAll(some); return err })
	if err != nil {
		return 0, db.explain(err)
	}
	return len(some), nil
}

// rest lets others have the processor, too: with as many goroutines as processors busy, nobody looks whether requests have
// come, for up to ten milliseconds.
func rest(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// drop runs one transaction, and those of others that wait before it and after it.
func (w *writer) drop(ctx context.Context, ids []int64) (done int, err error) {
	w.running.Lock()
	defer w.running.Unlock()
	if w.isClosing() {
		return 0, ErrClosed
	}
	d := &w.dropper
	if d.skip > 0 || !w.db.opts.UseWAL {
		d.skip--
		return 0, errChecks
	}
	w.attend()
	if d.conn == nil {
		if err := d.open(w.db); err != nil {
			return 0, err
		}
	}
	if done, err = w.dropIn(ctx, ids); err == errChecks {
		d.skip = dropsSkipped
	}
	w.journal.bound(w.tx.conn)
	w.attend()
	return done, err
}

// attend runs the requests that wait.
func (w *writer) attend() {
	if r, more := w.next(); more {
		w.group(r)
	}
}

// dropIn runs the transaction.
func (w *writer) dropIn(ctx context.Context, ids []int64) (done int, err error) {
	c := w.dropper.conn
	if err := w.db.retryBusyUntil(ctx, w.closing, func() error { return c.exec(stmtBegin, nil) }); err != nil {
		return 0, err
	}
	w.db.changes.begin()
	if done, err = w.dropRows(ctx, ids); err == nil {
		w.db.changes.arm()
		err = w.db.retryBusy(context.Background(), func() error { return c.exec(stmtCommit, nil) })
	}
	if err == nil {
		w.db.changes.committed()
		w.db.counts.committed(1)
		return done, nil
	}
	w.db.changes.abort()
	if !c.sql.AutocommitEnabled() {
		if e := c.exec(stmtRollback, nil); e != nil {
			err = errors.Join(err, e, w.dropper.close())
		}
	}
	return 0, err
}

// dropRows deletes rows until all are gone, or it is another's turn.
func (w *writer) dropRows(ctx context.Context, ids []int64) (done int, err error) {
	d := &w.dropper
	if err := d.look(); err != nil {
		return 0, err
	}
	begun := time.Now()
	limit, part, least := dropTime, dropPart, minDrop
	if w.busy() {
		limit, part, least = dropTimeAmong, dropPartAmong, 0
	}
	for at := begun; done < len(ids); {
		n := min(d.rowsIn(part), len(ids)-done)
		if err := d.delete(ids[done : done+n]); err != nil {
			return 0, err
		}
		done += n
		now := time.Now()
		d.perRow = max(1, now.Sub(at)/time.Duration(n))
		at = now
		if len(w.requests) > 0 {
			break
		}
		if done >= least && now.Sub(begun) >= limit || ctx.Err() != nil {
			break
		}
	}
	return done, nil
}

// rowsIn tells how many rows take about that long.
func (d *dropper) rowsIn(t time.Duration) int {
	if d.perRow == 0 {
		return minDropPart
	}
	return max(minDropPart, min(int(t/d.perRow), maxDropPart))
}

// open connects to the database that the writer has, or gives errChecks if that has lost its name to another.
func (d *dropper) open(db *DB) error {
	uri, err := writerURI(db.opts.Dir, db.opts.UseWAL)
	if err != nil {
		return err
	}
	c, err := openConn(uri, sqlite.OpenReadWrite)
	if err != nil {
		return db.cannotOpen(err)
	}
	err = db.retryBusy(context.Background(), func() error { return setPragmas(c, db.opts) })
	for _, text := range []string{"foreign_keys = 0", "cache_size = -" + strconv.Itoa(dropCache)} {
		if err == nil {
			_, err = c.pragma(text)
		}
	}
	if err == nil && db.Stale() {
		if err = c.close(); err == nil {
			err = errChecks
		}
		return err
	}
	if err != nil {
		return errors.Join(err, c.close())
	}
	d.conn, d.looked = c, false
	return nil
}

func (d *dropper) close() error {
	c := d.conn
	if d.conn = nil; c == nil {
		return nil
	}
	return c.close()
}

// look makes sure, within the transaction, that the schema is one whose rules are known here. Tables for realisations
// can appear at any time.
func (d *dropper) look() error {
	var schema int64
	err := d.conn.each(stmtQuerySchemaVersion, nil, func(s *sqlite.Stmt) error { schema = s.ColumnInt64(0); return nil })
	if err != nil {
		return err
	}
	if !d.looked || schema != d.schema {
		unknown, err := d.conn.strings(stmtListUnknownOwners, nil)
		if err != nil {
			return err
		}
		tables, err := d.conn.strings(stmtListTables, nil)
		if err != nil {
			return err
		}
		d.looked, d.schema, d.known, d.realised = true, schema, len(unknown) == 0, false
		for _, name := range tables {
			d.realised = d.realised || name == "Realisations"
		}
	}
	if !d.known {
		return errChecks
	}
	return nil
}

// delete deletes rows with what they own.
func (d *dropper) delete(ids []int64) error {
	all := runsOf(ids)
	if err := d.each(all, stmtDeleteReferencesOfRun, stmtDeleteReferencesOf, d.conn.exec); err != nil {
		return err
	}
	if err := d.each(all, stmtQueryAnyReferrerOfRun, stmtQueryAnyReferrer, d.none); err != nil {
		return err
	}
	if d.realised {
		if err := d.each(all, stmtQueryAnyRealisationOfRun, stmtQueryAnyRealisation, d.none); err != nil {
			return err
		}
	}
	if err := d.each(all, stmtDeleteOutputsOfRun, stmtDeleteOutputsOf, d.conn.exec); err != nil {
		return err
	}
	gone := 0
	err := d.each(all, stmtDeleteRun, stmtDeleteRows, func(id statement, bind func(*sqlite.Stmt)) error {
		err := d.conn.exec(id, bind)
		gone += d.conn.sql.Changes()
		return err
	})
	if err == nil && gone != len(ids) {
		err = errChecks
	}
	return err
}

// each does something with all of the rows: with each run, and with the list of the others.
func (d *dropper) each(all rowRuns, ofRun, ofList statement, do func(statement, func(*sqlite.Stmt)) error) error {
	for _, r := range all.runs {
		err := do(ofRun, func(s *sqlite.Stmt) { s.BindInt64(1, r.first); s.BindInt64(2, r.last) })
		if err != nil {
			return err
		}
	}
	if all.others == "" {
		return nil
	}
	return do(ofList, func(s *sqlite.Stmt) { s.BindText(1, all.others) })
}

// none makes sure that a query finds nothing.
func (d *dropper) none(id statement, bind func(*sqlite.Stmt)) error {
	s, err := d.conn.stmt(id)
	if err != nil {
		return err
	}
	defer s.Reset()
	bind(s)
	found, err := s.Step()
	if err == nil && found {
		err = errChecks
	}
	return err
}

// rowRuns are numbers of rows. What was registered together is mostly deleted together, and SQLite need not look up one
// by one the rows between two numbers: that takes two thirds of the time.
type rowRuns struct {
	runs   []rowRun
	others string // as json_each reads it; "" for none
}

// rowRun is first, last and all numbers between.
type rowRun struct{ first, last int64 }

// minRun is how many rows are worth statements of their own.
const minRun = 4

func runsOf(ids []int64) rowRuns {
	ids = slices.Sorted(slices.Values(ids))
	var all rowRuns
	var others []int64
	for len(ids) > 0 {
		n := 1
		for n < len(ids) && ids[n] == ids[n-1]+1 {
			n++
		}
		if n >= minRun {
			all.runs = append(all.runs, rowRun{ids[0], ids[n-1]})
		} else {
			others = append(others, ids[:n]...)
		}
		ids = ids[n:]
	}
	if len(others) > 0 {
		all.others = jsonNumbers(others)
	}
	return all
}

// jsonNumbers is a list of numbers, as json_each reads it.
func jsonNumbers(numbers []int64) string {
	list := make([]byte, 0, 8*len(numbers)+2)
	list = append(list, '[')
	for i, n := range numbers {
		if i > 0 {
			list = append(list, ',')
		}
		list = strconv.AppendInt(list, n, 10)
	}
	return string(append(list, ']'))
}
