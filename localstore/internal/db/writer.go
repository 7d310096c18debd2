package db

import (
	"context"
	"errors"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// A group ends when nobody waits any more, or at these bounds: the first to come must not wait for the rest for ever.
const (
	groupMaxMembers = 1000
	groupMaxTime    = 20 * time.Millisecond
)

// carefulGroups is for how many groups each member can be undone by itself after one had to be. SQLite pays for that with
// a copy of each page that a member changes, which is about as much as the change itself costs.
const carefulGroups = 64

// Tx is the open transaction, valid during the function that received it and only on that goroutine.
type Tx struct {
	*conn
	db      *DB
	changed bool // some row was changed since the transaction began, or since the function began that runs
	resized bool // a path's row was added or removed since then, so that pages are certainly written
}

// request is one call of Write.
type request struct {
	ctx   context.Context
	fn    func(*Tx) error
	state atomic.Int32
	err   error         // set before done is closed
	done  chan struct{} // closed when the outcome is known
}

// States of a request: whoever moves it away from waiting decides whether it runs.
const (
	stateWaiting int32 = iota
	stateTaken
	stateAbandoned
)

// writer has the writing connection.
type writer struct {
	db       *DB
	requests chan *request
	wake     chan struct{} // holds one element when requests may wait
	closing  chan struct{}
	finished chan struct{}
	started  bool

	// called is when [DB.Write] was called last, in nanoseconds since 1970.
	called atomic.Int64

	// Held by whoever runs a group: the goroutine, or a caller of Write who finds it idle.
	running sync.Mutex

	// Guarded by running once the goroutine has started.
	tx      Tx
	open    bool       // a transaction has begun
	crowd   bool       // the last group had several members
	careful int        // for so many groups members can be undone one by one
	members []*request // succeeded, waiting for the commit
	journal journal
	dropper dropper
}

func newWriter(db *DB, c *conn) *writer {
	return &writer{
		db:       db,
		requests: make(chan *request, groupMaxMembers),
		wake:     make(chan struct{}, 1),
		closing:  make(chan struct{}),
		finished: make(chan struct{}),
		tx:       Tx{conn: c, db: db},
		journal:  newJournal(db),
	}
}

// Write runs fn in a transaction and returns when its changes are committed, or rolled back because fn failed.
// Other callers' functions may run before and after fn in the same transaction; fn sees the changes of those before,
// and its failure undoes only its own. A panic of fn comes back as a [PanicError].
// fn must be short, must not wait for anything and must not call Write. It may be called a second time, of which the
// outcome counts, if what it did had to be undone for another's sake.
// When ctx ends before fn has begun, Write returns at once; after that it waits for the outcome.
func (db *DB) Write(ctx context.Context, fn func(tx *Tx) error) error {
	if db.writer != nil {
		db.writer.called.Store(time.Now().UnixNano())
	}
	return db.explain(db.write(ctx, fn))
}

// busyMemory is how long it is remembered that somebody wrote.
const busyMemory = 200 * time.Millisecond

// busy tells whether somebody called [DB.Write] lately, as is likely again then.
func (w *writer) busy() bool {
	return time.Since(time.Unix(0, w.called.Load())).Abs() < busyMemory
}

func (db *DB) write(ctx context.Context, fn func(tx *Tx) error) error {
	w := db.writer
	if w == nil {
		return ErrReadOnly
	}
	r := &request{ctx: ctx, fn: fn, done: make(chan struct{})}
	if w.running.TryLock() {
		// Nobody writes: waking the goroutine and being woken by it would cost as much as a small change does.
		defer w.running.Unlock()
		if w.isClosing() {
			return ErrClosed
		}
		w.group(r)
		return r.err
	}
	if w.isClosing() {
		return ErrClosed
	}
	select {
	case w.requests <- r:
		w.notify()
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-w.closing:
		return ErrClosed
	}
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		if r.state.CompareAndSwap(stateWaiting, stateAbandoned) {
			return context.Cause(ctx)
		}
	case <-w.finished:
		if r.state.CompareAndSwap(stateWaiting, stateAbandoned) {
			return ErrClosed
		}
	}
	<-r.done
	return r.err
}

func (w *writer) isClosing() bool {
	select {
	case <-w.closing:
		return true
	default:
		return false
	}
}

func (w *writer) start() {
	w.started = true
	go w.run()
}

// close stops the goroutine after its current group and closes the connection.
func (w *writer) close() error {
	close(w.closing)
	if w.started {
		<-w.finished
	}
	w.running.Lock()
	defer w.running.Unlock()
	return errors.Join(w.dropper.close(), w.tx.close())
}

func (w *writer) run() {
	defer close(w.finished)
	for {
		select {
		case <-w.closing:
			return
		case <-w.wake:
			w.drain()
		}
	}
}

// notify has the goroutine look at the requests.
func (w *writer) notify() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// drain runs the requests that a caller's group has not taken along.
func (w *writer) drain() {
	w.running.Lock()
	defer w.running.Unlock()
	for !w.isClosing() {
		r, more := w.next()
		if !more {
			return
		}
		w.group(r)
	}
}

// group runs the first request and those that have come meanwhile, and commits.
func (w *writer) group(r *request) {
	start := time.Now()
	n := 0
	for {
		w.member(r)
		if n++; n >= groupMaxMembers || time.Since(start) > groupMaxTime {
			break
		}
		var more bool
		if r, more = w.next(); !more {
			break
		}
	}
	w.crowd = n > 1
	w.careful = max(0, w.careful-1)
	w.commit()
	w.journal.bound(w.tx.conn)
}

// next returns a request that waits. If there is none it first lets the callers run that the last commit has woken, if
// there were several: they are about to ask again, and would otherwise find the group closed. A lone caller is not
// delayed by that.
func (w *writer) next() (*request, bool) {
	for yielded := false; ; yielded = true {
		select {
		case r := <-w.requests:
			return r, true
		default:
		}
		if yielded || !w.crowd {
			return nil, false
		}
		runtime.Gosched()
	}
}

func (w *writer) member(r *request) {
	if err := w.begin(r); err != nil {
		if r.state.CompareAndSwap(stateWaiting, stateTaken) {
			r.finish(err)
		}
		return
	}
	if !r.state.CompareAndSwap(stateWaiting, stateTaken) {
		return
	}
	if err := context.Cause(r.ctx); err != nil {
		r.finish(err)
		return
	}
	w.taken(r)
}

// taken runs a request that nobody can abandon any more.
func (w *writer) taken(r *request) {
	err := w.begin(r)
	if err == nil {
		err = w.shielded(r.fn)
	}
	if err != nil {
		r.finish(err)
		return
	}
	w.members = append(w.members, r)
}

func (r *request) finish(err error) {
	r.err = err
	close(r.done)
}

// begin makes sure that a transaction is open, waiting for foreign writers as long as r wants it.
func (w *writer) begin(r *request) error {
	if w.open {
		return nil
	}
	b := busyWait{path: w.db.file, log: w.db.log, counts: &w.db.counts}
	for {
		err := w.tx.exec(stmtBegin, nil)
		if err == nil {
			w.open, w.tx.changed, w.tx.resized = true, false, false
			w.db.changes.begin()
			return nil
		}
		if !isBusy(err) {
			return err
		}
		if err := b.wait(r.ctx, w.closing, err); err != nil {
			return err
		}
	}
}

// shielded runs fn so that its failure leaves the earlier members' changes alone.
// Where there are none a savepoint would be wasted: undoing is then ending the transaction. Where failures are rare it
// would be, too: the earlier members then run once more.
func (w *writer) shielded(fn func(*Tx) error) error {
	before := w.tx.changed
	nested := before && w.careful > 0
	if nested {
		if err := w.tx.exec(stmtSavepoint, nil); err != nil {
			return err
		}
	}
	w.tx.changed = false
	err := w.contain(fn)
	own := w.tx.changed
	w.tx.changed = before || own
	if err != nil {
		w.tx.resized = false // which rows the undone part had does not matter: counting too much is safe
	}
	switch {
	case err != nil && w.tx.sql.AutocommitEnabled():
		// Some errors (disk full, input/output) make SQLite roll back everything by itself.
		w.lost(err)
	case nested && err != nil:
		w.must(w.tx.exec(stmtSavepointRollback, nil))
		w.must(w.tx.exec(stmtSavepointRelease, nil))
	case nested:
		err = w.tx.exec(stmtSavepointRelease, nil)
	case err != nil && own:
		w.rollback()
		if before {
			w.repeat()
		}
	}
	return err
}

// repeat runs the members so far again, whose changes were undone with those of one that failed.
func (w *writer) repeat() {
	w.careful = carefulGroups
	members := slices.Clone(w.members)
	w.members = w.members[:0]
	for _, r := range members {
		w.taken(r)
	}
}

// must gives the whole group up when even undoing fails.
func (w *writer) must(err error) {
	if err != nil && w.open {
		w.lost(err)
		w.rollback()
	}
}

func (w *writer) contain(fn func(*Tx) error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{Value: v, Stack: debug.Stack()}
		}
	}()
	return fn(&w.tx)
}

// lost tells the members so far that the transaction is gone.
func (w *writer) lost(err error) {
	for _, r := range w.members {
		r.finish(err)
	}
	w.members = w.members[:0]
	if w.tx.sql.AutocommitEnabled() {
		w.open = false
		w.db.changes.abort()
	}
}

// rollback ends a transaction of which nothing is wanted.
func (w *writer) rollback() {
	w.open = false
	w.db.changes.abort()
	if w.tx.sql.AutocommitEnabled() {
		return
	}
	if err := w.tx.exec(stmtRollback, nil); err != nil {
		w.db.log("roll back database " + w.db.file + ": " + err.Error())
	}
}

// commit ends the group's transaction and tells its members.
func (w *writer) commit() {
	var err error
	if w.open {
		if w.tx.changed {
			err = w.commitChanges()
		} else {
			w.rollback()
		}
	}
	for _, r := range w.members {
		r.finish(err)
	}
	clear(w.members)
	w.members = w.members[:0]
}

func (w *writer) commitChanges() error {
	if w.tx.resized {
		w.db.changes.arm()
	}
	// Busy is possible without a write-ahead log, where readers hold the commit up. Giving up is not:
	// the members' functions have run, and their callers wait.
	err := w.db.retryBusy(context.Background(), func() error { return w.tx.exec(stmtCommit, nil) })
	if err != nil {
		w.rollback()
		return errors.Join(errors.New("commit to database "+w.db.file), err)
	}
	w.open = false
	w.db.changes.committed()
	w.db.counts.committed(len(w.members))
	return nil
}
