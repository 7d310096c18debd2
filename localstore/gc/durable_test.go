package gc

import (
	"context"
	"errors"
	"sync"
	"testing"

	"nixdaemon/localstore"
	"nixdaemon/localstore/internal/db"
	"nixdaemon/protocol/storepath"
)

// forgetful is a store on a disk that forgets what was not synced.
type forgetful struct {
	*localstore.Store
	t      *testing.T
	broken error // that of syncing

	mu      sync.Mutex
	dropped map[string]bool // whether it is durable, by place
	syncs   int
}

func (s *forgetful) DropRows(ctx context.Context, paths []storepath.Path, rows db.Rows) (int, error) {
	n, err := s.Store.DropRows(ctx, paths, rows)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range paths[:n] {
		s.dropped[s.RealPath(p)] = false
	}
	return n, err
}

func (s *forgetful) SyncDropped() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.syncs++
	for path := range s.dropped {
		s.dropped[path] = s.broken == nil
	}
	return s.broken
}

func (s *forgetful) DeleteTree(ctx context.Context, realPath string) (uint64, error) {
	s.mu.Lock()
	if durable, known := s.dropped[realPath]; known && !durable {
		s.t.Errorf("the files of %s go while its row could come back", realPath)
	}
	s.mu.Unlock()
	return s.Store.DeleteTree(ctx, realPath)
}

// Files go once their rows cannot come back, of which many wait together.
func TestRowsAreGoneForGoodBeforeFiles(t *testing.T) {
	f := newFixture(t, chain(3000))
	f.write("junk", "junk")
	s := &forgetful{Store: f.Store, t: t, dropped: map[string]bool{}}
	res, err := New(Options{Store: s}).Collect(t.Context(), wholeStore(DeleteDead))
	if err != nil || len(res.Paths) != 3001 {
		t.Errorf("%d deleted: %v", len(res.Paths), err)
	}
	// Nobody waits for the database: a transaction has 256 paths at least, but for the first ones and what is left of a batch.
	if s.syncs == 0 || s.syncs > 40 {
		t.Errorf("synced %d times", s.syncs)
	}
	f.check()
}

// What could not be made sure of is left as garbage, and nobody waits for it.
func TestSyncFails(t *testing.T) {
	f := newFixture(t, tower())
	f.root("r", 2)
	broken := errors.New("the disk is broken")
	s := &forgetful{Store: f.Store, t: t, dropped: map[string]bool{}, broken: broken}
	res, err := New(Options{Store: s}).Collect(t.Context(), wholeStore(DeleteDead))
	if !errors.Is(err, broken) || len(res.Paths) != 0 {
		t.Errorf("%v deleted: %v", res.Paths, err)
	}
	if got := len(f.onDisk()); got != 6 {
		t.Errorf("%d are left", got)
	}
	f.collect(wholeStore(DeleteDead))
	f.check(1, 2)
}
