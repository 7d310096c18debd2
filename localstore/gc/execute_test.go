package gc

import (
	"context"
	"slices"
	"testing"

	"nixdaemon/localstore"
	"nixdaemon/localstore/internal/db"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
)

// hesitant is a store that makes few paths invalid at a time, as if others waited.
type hesitant struct {
	*localstore.Store
	between func(calls int)
	calls   int
}

func (s *hesitant) DropRows(ctx context.Context, paths []storepath.Path, rows db.Rows) (int, error) {
	n := min(len(paths), 1+s.calls%3)
	s.between(s.calls)
	s.calls++
	return s.Store.DropRows(ctx, paths[:n], rows)
}

// What is claimed is deleted in the end, however few paths go at a time; what others need meanwhile stays.
func TestDropsByAndBy(t *testing.T) {
	f := newFixture(t, chain(300))
	f.root("r", 9)
	f.write(testPath(1000).Base(), "never valid")
	s := &hesitant{Store: f.Store}
	s.between = func(calls int) {
		if calls == 20 { // nothing that is left may go any more
			f.content(f.dir.Print(testPath(2000)), 2000)
			info := &pathinfo.Info{Path: testPath(2000), NarHash: nixhash.Of(nixhash.SHA256, ""), NarSize: 1, References: []storepath.Path{testPath(100)}}
			if err := f.Register(t.Context(), []*pathinfo.Info{info}); err != nil {
				t.Error(err)
			}
		}
	}
	c := New(Options{Store: s})
	res, err := c.Collect(t.Context(), wholeStore(DeleteDead))
	if err != nil {
		t.Fatal(err)
	}
	if want := 300 - 101 + 1; len(res.Paths) != want || s.calls < want/3 {
		t.Errorf("%d deleted in %d calls, want %d", len(res.Paths), s.calls, want)
	}
	left, err := f.AllValidPaths(t.Context())
	if err != nil || len(left) != 102 || !slices.Contains(left, testPath(2000)) {
		t.Errorf("%d valid paths are left: %v", len(left), err)
	}
}
