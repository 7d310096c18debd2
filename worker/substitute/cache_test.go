package substitute

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/compression"
	"nixdaemon/protocol/narinfo"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker/settings"
	"nixdaemon/worker/substitute/narinfocache"
)

// server is a cache far away: every answer takes a while.
type server struct {
	texts map[string]string
	takes time.Duration
	down  atomic.Bool
	asked atomic.Int64
}

var errDown = errors.New("unable to download: nobody answers")

func (s *server) Get(ctx context.Context, _ Asker, name string) (io.ReadCloser, error) {
	s.asked.Add(1)
	select {
	case <-time.After(s.takes):
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if s.down.Load() {
		return nil, errDown
	}
	text, ok := s.texts[name]
	if !ok {
		return nil, errorf(ErrNoObject, "no '%s'", name)
	}
	return io.NopCloser(strings.NewReader(text)), nil
}

func (s *server) Exists(context.Context, Asker, string) (bool, error) { return false, nil }

func (s *server) Put(context.Context, Asker, string, Object) error { return errors.New("read-only") }

func (s *server) open(t *testing.T) *Cache {
	t.Helper()
	c, err := OpenCache(t.Context(), s.asker(nil), CacheOptions{
		URI: "http://far", Dir: "/nix/store", Objects: s, Infos: narinfocache.New(narinfocache.Options{}),
		Decoders: new(compression.Decoders), IDs: new(activity.IDs),
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (s *server) asker(log activity.Sink) Asker {
	if log == nil {
		log = activity.Discard{}
	}
	return Asker{Settings: &settings.Settings{NarinfoCachePositiveTTL: 3600, NarinfoCacheNegativeTTL: 3600, NarinfoCacheMetaTTL: 3600}, Log: log}
}

func someNarinfo(t testing.TB, base string) (storepath.Path, string) {
	p := mustPath(t, base)
	n := &narinfo.NarInfo{URL: "nar/x", Compression: "none"}
	n.Path, n.NarHash, n.NarSize = p, nixhash.Of(nixhash.SHA256, base), 1
	return p, n.Format("/nix/store")
}

func newServer(t testing.TB) (*server, []storepath.Path) {
	s := &server{texts: map[string]string{"nix-cache-info": "StoreDir: /nix/store\nPriority: 40\nWantMassQuery: 1\n"}}
	var paths []storepath.Path
	for _, c := range "0123456789abcdfghijklmnpqrsvwxyz" {
		p, text := someNarinfo(t, strings.Repeat("0", 31)+string(c)+"-x")
		s.texts[p.HashPart()+narinfoSuffix] = text
		paths = append(paths, p)
	}
	return s, paths
}

func TestCacheInfo(t *testing.T) {
	s, _ := newServer(t)
	c := s.open(t)
	if c.Priority() != 40 || !c.WantMassQuery() || c.Trusted() || c.Dir() != "/nix/store" {
		t.Errorf("opened as %+v", c)
	}
	delete(s.texts, "nix-cache-info")
	_, err := OpenCache(t.Context(), s.asker(nil), CacheOptions{
		URI: "http://far", Dir: "/nix/store", Objects: s, Infos: narinfocache.New(narinfocache.Options{}), IDs: new(activity.IDs)})
	if err == nil || err.Error() != "'http://far' does not appear to be a binary cache" {
		t.Error(err)
	}
}

// TestLookedUpOnce asks once for what many want to know, and never again.
func TestLookedUpOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, paths := newServer(t)
		s.takes = time.Second
		c := s.open(t)
		s.asked.Store(0)
		missing := mustPath(t, strings.Repeat("1", 32)+"-missing")
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				for _, p := range []storepath.Path{paths[0], missing} {
					info, err := c.PathInfo(t.Context(), s.asker(nil), p)
					if err != nil || (info != nil) != (p == paths[0]) {
						t.Errorf("%s: %v, %v", p, info, err)
					}
				}
			})
		}
		wg.Wait()
		if n := s.asked.Load(); n != 2 {
			t.Errorf("asked %d times", n)
		}
	})
}

// TestDisabled leaves a cache alone that failed somebody who has another way.
func TestDisabled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, paths := newServer(t)
		c := s.open(t)
		log := &recorder{}
		a := s.asker(log)
		a.Settings.Fallback = true
		s.down.Store(true)
		if _, err := c.PathInfo(t.Context(), a, paths[0]); err != errDown {
			t.Error(err)
		}
		s.asked.Store(0)
		for range 3 {
			if _, err := c.PathInfo(t.Context(), s.asker(nil), paths[1]); !errors.Is(err, ErrDisabled) || err.Error() != "substituter 'http://far' is disabled" {
				t.Error(err)
			}
		}
		if s.asked.Load() != 0 || strings.Count(log.text(), "disabling binary cache 'http://far' for 60 seconds") != 1 {
			t.Errorf("asked %d times, told\n%s", s.asked.Load(), log.text())
		}
		s.down.Store(false)
		time.Sleep(disabledFor)
		if info, err := c.PathInfo(t.Context(), a, paths[0]); info == nil || err != nil {
			t.Errorf("a minute later: %v, %v", info, err)
		}
	})
}

// TestSetAside has a cache that takes ten seconds to fail. Those who wait meanwhile learn it at the same time, those who
// come after them at once, and ten seconds later it has another chance.
func TestSetAside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, paths := newServer(t)
		c := s.open(t)
		s.down.Store(true)
		s.takes = 10 * time.Second
		begun := time.Now()
		var wg sync.WaitGroup
		for i, p := range paths {
			time.Sleep(100 * time.Millisecond)
			wg.Go(func() {
				if _, err := c.PathInfo(t.Context(), s.asker(nil), p); err != errDown {
					t.Errorf("question %d: %v", i, err)
				}
			})
		}
		wg.Wait()
		if took := time.Since(begun); took > 10200*time.Millisecond {
			t.Errorf("all waited %v", took)
		}
		s.asked.Store(0)
		begun = time.Now()
		if _, err := c.PathInfo(t.Context(), s.asker(nil), paths[0]); err != errDown || time.Since(begun) > 0 || s.asked.Load() > 0 {
			t.Errorf("set aside: %v after %v, asked %d times", err, time.Since(begun), s.asked.Load())
		}
		s.down.Store(false)
		time.Sleep(10 * time.Second)
		if info, err := c.PathInfo(t.Context(), s.asker(nil), paths[0]); info == nil || err != nil {
			t.Errorf("later: %v, %v", info, err)
		}
	})
}

// TestQuickFailures may be found out by everybody: a cache that answers at once is not set aside.
func TestQuickFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, paths := newServer(t)
		c := s.open(t)
		s.down.Store(true)
		if _, err := c.PathInfo(t.Context(), s.asker(nil), paths[0]); err != errDown {
			t.Error(err)
		}
		s.down.Store(false)
		if info, err := c.PathInfo(t.Context(), s.asker(nil), paths[0]); info == nil || err != nil {
			t.Errorf("right after: %v, %v", info, err)
		}
	})
}

// BenchmarkPathInfo is the way of what is remembered.
func BenchmarkPathInfo(b *testing.B) {
	s, paths := newServer(b)
	c, err := OpenCache(b.Context(), s.asker(nil), CacheOptions{
		URI: "http://far", Dir: "/nix/store", Objects: s, Infos: narinfocache.New(narinfocache.Options{}), IDs: new(activity.IDs)})
	if err != nil {
		b.Fatal(err)
	}
	a := s.asker(nil)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if info, err := c.PathInfo(b.Context(), a, paths[i%len(paths)]); info == nil || err != nil {
			b.Fatal(err)
		}
	}
}
