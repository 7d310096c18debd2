package gc

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"nixdaemon/localstore"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/storepath"
)

// slow is a store on which a collection gets stuck, once, in its own parts of the work.
type slow struct {
	*localstore.Store
	where  string
	once   sync.Once
	during func()
}

func (s *slow) stuck(where string) {
	if where == s.where {
		s.once.Do(s.during)
	}
}

func (s *slow) DeleteTree(ctx context.Context, realPath string) (uint64, error) {
	s.stuck("deleting")
	return s.Store.DeleteTree(ctx, realPath)
}

func (s *slow) SyncDropped() error {
	s.stuck("syncing")
	return s.Store.SyncDropped()
}

// TestOthersGoOn has a connection of the same process ask, add and make roots while a collection is stuck at each of
// its slow parts: nothing of that waits for it.
func TestOthersGoOn(t *testing.T) {
	for _, where := range []string{"roots", "planned", "claimed", "syncing", "deleting", "deleted", "links"} {
		t.Run(where, func(t *testing.T) {
			f := newFixture(t, chain(60))
			f.root("r", 9)
			s := &slow{Store: f.Store, where: where}
			s.during = func() { f.work(where) }
			c := New(Options{Store: s, Step: func(step string) error { s.stuck(step); return nil }})
			res, err := c.Collect(t.Context(), wholeStore(DeleteDead))
			if err != nil || len(res.Paths) != 50 {
				t.Errorf("%d deleted: %v", len(res.Paths), err)
			}
			f.verify()
			if valid, err := f.AllValidPaths(t.Context()); err != nil || len(valid) != 10+50 {
				t.Errorf("of what was added %d are left: %v", len(valid)-10, err)
			}
		})
	}
}

// work does what clients do; it fails if that takes as long as only waiting does.
func (f *fixture) work(where string) {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	temp := f.NewTempRoots()
	f.t.Cleanup(func() { temp.Close() })
	for i := range 50 {
		spec := localstore.DumpSpec{Name: fmt.Sprintf("%s-%d", where, i), Method: storepath.MethodText, Algo: nixhash.SHA256}
		if _, err := f.AddDump(ctx, spec, strings.NewReader(spec.Name), localstore.AddOptions{Roots: temp}); err != nil {
			f.t.Errorf("add: %v", err)
		}
		if _, err := f.PathInfo(ctx, testPath(i%10)); err != nil {
			f.t.Errorf("ask: %v", err)
		}
	}
}
