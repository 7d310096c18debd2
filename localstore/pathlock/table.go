package pathlock

import (
	"context"
	"sync"
)

// Table is the set of path locks of one process. The zero value is ready for use.
// It must not be copied after first use; all methods may be called from any goroutine.
type Table struct {
	// Guards entries. Never held while waiting.
	mu      sync.Mutex
	entries map[string]*entry
}

// entry is the queue of one path. It leaves the map when nobody holds or wants it.
type entry struct {
	token chan struct{} // holds one element while the path is free
	users int           // holder and waiters; guarded by Table.mu
}

// New returns an empty table.
func New() *Table { return &Table{} }

func (t *Table) acquire(ctx context.Context, path string, try bool, onWait func()) error {
	e := t.enter(path)
	select {
	case <-e.token:
		return nil
	default:
	}
	if try {
		t.leave(path, e)
		return ErrLocked
	}
	onWait()
	select {
	case <-e.token:
		return nil
	case <-ctx.Done():
		t.leave(path, e)
		return context.Cause(ctx)
	}
}

func (t *Table) release(path string) {
	t.mu.Lock()
	e := t.entries[path]
	t.mu.Unlock()
	e.token <- struct{}{}
	t.leave(path, e)
}

func (t *Table) enter(path string) *entry {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.entries == nil {
		t.entries = make(map[string]*entry)
	}
	e := t.entries[path]
	if e == nil {
		e = &entry{token: make(chan struct{}, 1)}
		e.token <- struct{}{}
		t.entries[path] = e
	}
	e.users++
	return e
}

func (t *Table) leave(path string, e *entry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e.users--; e.users == 0 {
		delete(t.entries, path)
	}
}
