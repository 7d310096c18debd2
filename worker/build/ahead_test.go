package build

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/storepath"
)

// signals are channels by path.
type signals struct {
	mu  sync.Mutex
	all map[storepath.Path]chan struct{}
}

func (s *signals) of(p storepath.Path) chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == nil {
		s.all = make(map[storepath.Path]chan struct{})
	}
	if s.all[p] == nil {
		s.all[p] = make(chan struct{})
	}
	return s.all[p]
}

// fire closes the channel, if it is not closed already.
func (s *signals) fire(p storepath.Path) {
	select {
	case <-s.of(p):
	default:
		close(s.of(p))
	}
}

// TestAheadOfTurn gets paths ahead that wait for a turn, no more than the client's number of jobs allows.
func TestAheadOfTurn(t *testing.T) {
	for jobs, want := range map[uint]int{0: 0, 1: 0, 2: 8, 3: 16, 30: 20} {
		synctest.Test(t, func(t *testing.T) {
			f, c, sess := newCachedFarm(t)
			defer f.close()
			c.small = true
			sess.Settings.MaxSubstitutionJobs = jobs
			var paths []derivation.DerivedPath
			for i := range 20 {
				p := testPath(1000+i, "p")
				c.has[p] = nil
				paths = append(paths, derivation.DerivedPath{Path: p})
			}
			if err := f.sched.BuildPaths(context.Background(), sess, paths, derivation.BuildNormal); err != nil {
				t.Error(err)
			}
			// Those whose turn has just come have not noticed yet.
			if c.held > want+2*int(jobs) || want > 0 && c.held == 0 || len(c.fetched) != 20 || c.holding != 0 {
				t.Errorf("%d jobs: held %d, fetched %d, %d held still", jobs, c.held, len(c.fetched), c.holding)
			}
			for _, p := range c.ahead {
				if n := slices.Index(c.fetched, p); n < 0 {
					t.Errorf("%s was got ahead, but not fetched", p.Base())
				}
			}
		})
	}
}

// TestAheadOfReferences gets a chain of paths ahead while the first of them is fetched, beginning with what is needed first,
// and each once.
func TestAheadOfReferences(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, c, sess := newCachedFarm(t)
		defer f.close()
		c.small = true
		sess.Settings.MaxSubstitutionJobs = 16
		var chain []storepath.Path
		for i := range 6 {
			p := testPath(1000+i, "p")
			c.has[p] = nil
			if i > 0 {
				c.has[p] = []storepath.Path{chain[i-1]}
			}
			chain = append(chain, p)
		}
		if err := f.sched.EnsurePath(context.Background(), sess, chain[5]); err != nil {
			t.Fatal(err)
		}
		ahead := slices.Clone(c.ahead)
		slices.SortFunc(ahead, storepath.Compare)
		if n := len(slices.Compact(ahead)); n != len(c.ahead) || n < 5 || c.holding != 0 || !slices.Equal(c.fetched, chain) {
			t.Errorf("got %v ahead, fetched %v, %d held still", c.ahead, c.fetched, c.holding)
		}
	})
}

// TestAheadLetGo has a reference fail: what was got ahead of that is let go before the request has ended.
func TestAheadLetGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, c, sess := newCachedFarm(t)
		defer f.close()
		c.small = true
		sess.Settings.MaxSubstitutionJobs = 16
		lib, top := testPath(1000, "lib"), testPath(1001, "top")
		c.has[lib], c.has[top] = nil, []storepath.Path{lib}
		c.fails[lib] = errors.New("connection reset")
		if err := f.sched.EnsurePath(context.Background(), sess, top); err == nil {
			t.Error("no error")
		}
		if !slices.Contains(c.ahead, top) || c.holding != 0 {
			t.Errorf("got %v ahead, %d held still", c.ahead, c.holding)
		}
	})
}
