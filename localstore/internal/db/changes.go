package db

import (
	"context"
	"sync"
	"sync/atomic"

	"zombiezen.com/go/sqlite"
)

// changeWatch tells commits of other processes from our own.
//
// In the header of the write-ahead log's index, shared memory that every process maps, SQLite keeps a number
// that grows by one with each commit. The writer reads it while it holds the write lock, when nobody else can
// change it, and so knows the number that its own commit will leave. Any other number is a foreign commit.
//
// Where that memory cannot be mapped, a connection asks PRAGMA data_version instead.
// That cannot tell our commits from others', so it counts them all: slower, but never too few.
type changeWatch struct {
	counter *walCounter // nil: ask the connection; both nil: nothing ever changes
	asker   *conn       // guarded by mu

	generation atomic.Uint64
	expected   atomic.Uint32

	mu      sync.Mutex
	armed   bool  // our commit may appear as expected+1; guarded by mu
	version int64 // last answer of asker; guarded by mu
}

// Generation returns a number that changes whenever another process may have changed the database since the last call.
// Whoever caches answers reads it before asking the database and drops them when it has changed.
// Changes made through Write do not change it, except where the platform offers no way to tell.
func (db *DB) Generation() uint64 { return db.changes.current(db) }

func (db *DB) watchChanges(ctx context.Context) (*changeWatch, error) {
	w := &changeWatch{}
	if db.opts.UseWAL {
		if counter, err := mapWALCounter(db.file + "-shm"); err == nil {
			w.counter = counter
			w.expected.Store(counter.load())
			return w, nil
		}
	}
	var err error
	if w.asker, err = db.pool.open(ctx); err != nil {
		return nil, err
	}
	err = db.retryBusy(ctx, func() (err error) { w.version, err = dataVersion(w.asker); return err })
	return w, err
}

func dataVersion(c *conn) (version int64, err error) {
	err = c.each(stmtQueryDataVersion, nil, func(s *sqlite.Stmt) error {
		version = s.ColumnInt64(0)
		return nil
	})
	return version, err
}

func (w *changeWatch) current(db *DB) uint64 {
	if w.counter != nil {
		if w.counter.load() != w.expected.Load() {
			w.compare()
		}
	} else if w.asker != nil {
		w.ask()
	}
	return w.generation.Load()
}

// compare settles whether a number that is not the expected one is our commit in flight.
func (w *changeWatch) compare() {
	w.mu.Lock()
	defer w.mu.Unlock()
	now, expected := w.counter.load(), w.expected.Load()
	if now == expected || w.armed && now == expected+1 {
		return
	}
	w.foreignLocked(now)
}

// foreignLocked notes a foreign commit. The generation moves first: who sees the new number must see it, too.
func (w *changeWatch) foreignLocked(now uint32) {
	w.generation.Add(1)
	w.expected.Store(now)
	// If our commit was in flight it is among those just counted: nobody else could commit before it was done.
	w.armed = false
}

func (w *changeWatch) ask() {
	w.mu.Lock()
	defer w.mu.Unlock()
	version, err := dataVersion(w.asker)
	// A busy database is being changed by somebody.
	if err != nil || version != w.version {
		w.version = version
		w.generation.Add(1)
	}
}

// begin is called with the write lock held.
func (w *changeWatch) begin() {
	if w.counter == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if now := w.counter.load(); now != w.expected.Load() {
		w.foreignLocked(now)
	}
}

// arm is called just before a commit that certainly moves the number. One that may leave it alone, because it
// writes what was there already, is not announced, and counts as foreign if it does move it: otherwise
// a foreign commit right after it could be taken for ours.
func (w *changeWatch) arm() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.armed = true
}

// committed is called when that commit has succeeded, at a time when others may have committed after it.
func (w *changeWatch) committed() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.armed {
		w.expected.Add(1)
		w.armed = false
	}
}

// abort is called when the transaction ends without a commit.
func (w *changeWatch) abort() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.armed {
		// The commit failed half-way; whether it can be seen by others is unknown.
		w.armed = false
		w.generation.Add(1)
	}
}

func (w *changeWatch) close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.asker != nil {
		return w.asker.close()
	}
	return nil
}
