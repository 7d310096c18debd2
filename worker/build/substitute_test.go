package build

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker/session"
)

// cache is a substituter that has some paths.
type cache struct {
	store *fakeStore
	has   map[storepath.Path][]storepath.Path // references
	fails map[storepath.Path]error
	real  map[string]storepath.Path // by output

	mu      sync.Mutex
	fetched []storepath.Path
	running int
	most    int

	small   bool // offers can be got ahead
	ahead   []storepath.Path
	holding int // of ahead at the moment
	held    int // the most
	begun   signals
}

func (c *cache) Find(_ context.Context, _ *session.Session, p storepath.Path, _ storepath.ContentAddress, after *Offer) (*Offer, error) {
	refs, ok := c.has[p]
	if !ok || after != nil {
		return nil, nil
	}
	return &Offer{Info: &pathinfo.Info{Path: p, References: refs, NarSize: 100}, DownloadSize: 10, Ahead: c.small}, nil
}

func (c *cache) FindQuickly(context.Context, *session.Session, storepath.Path, storepath.ContentAddress, *Offer) (*Offer, bool, error) {
	return nil, false, nil
}

func (c *cache) Ahead(ctx context.Context, _ *session.Session, o *Offer) {
	c.mu.Lock()
	c.ahead = append(c.ahead, o.Info.Path)
	c.holding++
	c.held = max(c.held, c.holding)
	c.mu.Unlock()
	begun := c.begun.of(o.Info.Path)
	select {
	case <-begun:
	case <-ctx.Done():
	}
	c.mu.Lock()
	c.holding--
	c.mu.Unlock()
}

func (c *cache) RealisationAtHand(context.Context, *session.Session, pathinfo.DrvOutput) bool {
	return false
}

func (c *cache) Look(ctx context.Context, sess *session.Session, p storepath.Path, ca storepath.ContentAddress) (*Offer, error) {
	return c.Find(ctx, sess, p, ca, nil)
}

func (c *cache) Realisation(_ context.Context, _ *session.Session, id pathinfo.DrvOutput) (*pathinfo.Realisation, bool, error) {
	out, ok := c.real[id.Output]
	if !ok {
		return nil, false, nil
	}
	return &pathinfo.Realisation{ID: id, OutPath: out}, false, nil
}

func (c *cache) Fetch(_ context.Context, _ *session.Session, o *Offer, _ bool) error {
	c.begun.fire(o.Info.Path)
	c.mu.Lock()
	c.fetched = append(c.fetched, o.Info.Path)
	c.running++
	c.most = max(c.most, c.running)
	c.mu.Unlock()
	time.Sleep(time.Second)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running--
	if err := c.fails[o.Info.Path]; err != nil {
		return err
	}
	c.store.setValid(o.Info.Path)
	return nil
}

func newCachedFarm(t *testing.T) (*farm, *cache, *session.Session) {
	f := newFarm(t, 2)
	c := &cache{store: f.store, has: make(map[storepath.Path][]storepath.Path), fails: make(map[storepath.Path]error)}
	f.sched.subst = c
	sess := f.session("alice", 1, 2)
	sess.Settings.Substitute = true
	return f, c, sess
}

func (f *farm) out(drv storepath.Path) storepath.Path { return f.store.drvs[drv].Outputs["out"].Path }

func TestSubstituteInsteadOfBuild(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, c, sess := newCachedFarm(t)
		defer f.close()
		lib, dep := testPath(900, "lib"), f.drv("dep")
		top := f.drv("top", dep)
		c.has[f.out(dep)] = []storepath.Path{f.out(dep), lib}
		c.has[lib] = nil
		results, err := f.sched.BuildPathsWithResults(context.Background(), sess, []derivation.DerivedPath{built(top), built(dep)}, derivation.BuildNormal)
		if err != nil || results[0].Status != derivation.StatusBuilt || results[1].Status != derivation.StatusSubstituted {
			t.Fatalf("results %+v, %v", results, err)
		}
		if !slices.Equal(c.fetched, []storepath.Path{lib, f.out(dep)}) || !slices.Equal(f.order, []string{"top"}) {
			t.Errorf("fetched %v, built %q", c.fetched, f.order)
		}
		log := sess.Log.(*recorder)
		var last recordedResult
		for _, r := range log.results {
			if r.kind == activity.SetExpected && r.fields[0].Number == uint64(activity.CopyPath) {
				last = r
			}
		}
		if last.fields[1].Number != 200 {
			t.Errorf("expected NAR size %+v", last)
		}
	})
}

func TestFailedSubstitution(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, c, sess := newCachedFarm(t)
		defer f.close()
		drv := f.drv("a")
		c.has[f.out(drv)] = nil
		c.fails[f.out(drv)] = errors.New("connection reset")
		want := "some substitutes for the outputs of derivation '" + f.store.Dir().Print(drv) +
			"' failed (usually happens due to networking issues); try '--fallback' to build derivation from source "
		if err := <-f.request(context.Background(), sess, drv); err == nil || err.Error() != want {
			t.Errorf("got %v", err)
		}
		sess.Settings.Fallback = true
		if err := <-f.request(context.Background(), sess, drv); err != nil || !slices.Equal(f.order, []string{"a"}) {
			t.Errorf("with fallback: %v, built %q", err, f.order)
		}
	})
}

func TestGoneSubstitute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, c, sess := newCachedFarm(t)
		defer f.close()
		drv := f.drv("a")
		c.has[f.out(drv)] = nil
		c.fails[f.out(drv)] = ErrGone
		if err := <-f.request(context.Background(), sess, drv); err != nil || !slices.Equal(f.order, []string{"a"}) {
			t.Errorf("got %v, built %q", err, f.order)
		}
	})
}

func TestSubstitutionSlots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, c, sess := newCachedFarm(t)
		defer f.close()
		sess.Settings.MaxSubstitutionJobs = 3
		var paths []derivation.DerivedPath
		for i := range 10 {
			p := testPath(1000+i, "p")
			c.has[p] = nil
			paths = append(paths, derivation.DerivedPath{Path: p})
		}
		if err := f.sched.BuildPaths(context.Background(), sess, paths, derivation.BuildNormal); err != nil {
			t.Error(err)
		}
		if c.most != 3 || len(c.fetched) != 10 {
			t.Errorf("%d at once, %d fetched", c.most, len(c.fetched))
		}
		missing := testPath(2000, "missing")
		err := f.sched.EnsurePath(context.Background(), sess, missing)
		if err == nil || err.Error() != "path '"+f.store.Dir().Print(missing)+"' is required, but there is no substituter that can build it" {
			t.Errorf("got %v", err)
		}
	})
}

func TestQueryMissingSubstitutes(t *testing.T) {
	f, c, sess := newCachedFarm(t)
	defer f.close()
	dep := f.drv("dep")
	top := f.drv("top", dep)
	lib := testPath(900, "lib")
	c.has[f.out(dep)] = []storepath.Path{lib}
	c.has[lib] = nil
	m, err := f.sched.QueryMissing(context.Background(), sess, []derivation.DerivedPath{built(top)})
	if err != nil || !slices.Equal(m.WillBuild, []storepath.Path{top}) || len(m.WillSubstitute) != 2 || m.DownloadSize != 20 || m.NarSize != 200 {
		t.Errorf("%+v, %v", m, err)
	}
}

// deafCache answers no question before its asker has gone.
type deafCache struct{ *cache }

func (deafCache) Look(ctx context.Context, _ *session.Session, _ storepath.Path, _ storepath.ContentAddress) (*Offer, error) {
	<-ctx.Done()
	return nil, context.Cause(ctx)
}

// Questions about one derivation's outputs are asked at once, however many there are. All must end with who asked.
func TestQueryMissingGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, c, sess := newCachedFarm(t)
		defer f.close()
		f.sched.subst = deafCache{c}
		top := f.drv("top")
		outputs := f.store.drvs[top].Outputs
		for i := range 3 * maxAsked {
			outputs["o"+strconv.Itoa(i)] = derivation.Output{Kind: derivation.InputAddressed, Path: testPath(1000+i, "top-o")}
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			_, err := f.sched.QueryMissing(ctx, sess, []derivation.DerivedPath{{
				Drv: &derivation.SingleDerivedPath{Path: top}, Outputs: derivation.OutputsSpec{All: true},
			}})
			done <- err
		}()
		synctest.Wait()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
}
