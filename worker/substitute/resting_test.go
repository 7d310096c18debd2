package substitute

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/narinfo"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
)

// held counts how many of its kind are open.
type held struct{ open *atomic.Int32 }

func (h *held) URI() string         { return "held://" }
func (h *held) Dir() storepath.Dir  { return storepath.DefaultDir }
func (h *held) Priority() int       { return 7 }
func (h *held) WantMassQuery() bool { return true }
func (h *held) Trusted() bool       { return true }
func (h *held) Holds() bool         { return true }
func (h *held) Known(context.Context, Asker, storepath.Path) (*narinfo.NarInfo, bool) {
	return nil, true
}
func (h *held) KnowsRealisation(context.Context, Asker, pathinfo.DrvOutput) bool { return true }
func (h *held) PathInfo(context.Context, Asker, storepath.Path) (*narinfo.NarInfo, error) {
	return nil, nil
}
func (h *held) OpenNAR(context.Context, Asker, *narinfo.NarInfo) (io.ReadCloser, error) {
	return io.NopCloser(strings.NewReader("")), nil
}
func (h *held) Realisation(context.Context, Asker, pathinfo.DrvOutput) (*pathinfo.Realisation, error) {
	return nil, nil
}

func (h *held) Close() error {
	h.open.Add(-1)
	return nil
}

// newHeld gives a resting store, and how many times it is open.
func newHeld(after time.Duration) (*resting, *atomic.Int32) {
	open := new(atomic.Int32)
	make := func() *held { open.Add(1); return &held{open} }
	return newResting(make(), after, func(context.Context, Asker) (Source, error) { return make(), nil }), open
}

func (r *resting) mustOpenNAR(t *testing.T) io.ReadCloser {
	t.Helper()
	body, err := r.OpenNAR(t.Context(), Asker{Log: activity.Discard{}}, &narinfo.NarInfo{})
	if err != nil {
		t.Fatal(err)
	}
	return body
}

// TestRestingRests has a store closed that nobody uses, and not while an archive of it is read.
func TestRestingRests(t *testing.T) {
	r, open := newHeld(time.Millisecond)
	defer r.Close()
	for range 2 {
		for open.Load() != 0 {
			time.Sleep(time.Millisecond)
		}
		body := r.mustOpenNAR(t)
		for range 3 {
			if _, err := r.PathInfo(t.Context(), Asker{}, storepath.Path{}); err != nil || open.Load() != 1 {
				t.Fatalf("%d open: %v", open.Load(), err)
			}
		}
		r.rest()
		if open.Load() != 1 {
			t.Errorf("%d open while an archive is read", open.Load())
		}
		body.Close()
		body.Close()
	}
}

// TestRestingRetires has a store closed as soon as nobody uses it, however long it would be kept otherwise.
func TestRestingRetires(t *testing.T) {
	r, open := newHeld(time.Hour)
	defer r.Close()
	body := r.mustOpenNAR(t)
	r.retire()
	if open.Load() != 1 {
		t.Error("closed under a user")
	}
	body.Close()
	if open.Load() != 0 {
		t.Error("held though nobody uses it")
	}
	if !r.KnowsRealisation(t.Context(), Asker{}, pathinfo.DrvOutput{}) || open.Load() != 0 {
		t.Errorf("%d open after it was used again", open.Load())
	}
}

// slowHeld is a store that ends only when the other one ends, too.
type slowHeld struct {
	held
	t       *testing.T
	closing *sync.WaitGroup
}

func (h *slowHeld) Close() error {
	h.closing.Done()
	all := make(chan struct{})
	go func() { h.closing.Wait(); close(all) }()
	select {
	case <-all:
	case <-time.After(time.Minute):
		h.t.Error("stores are closed one after the other")
	}
	return h.held.Close()
}

// TestRetireSideBySide closes what nobody uses side by side.
func TestRetireSideBySide(t *testing.T) {
	var open atomic.Int32
	var closing sync.WaitGroup
	r := newRegistry(nil)
	for _, ref := range []string{"held://a", "held://b"} {
		open.Add(1)
		closing.Add(1)
		source := newResting(&slowHeld{held{&open}, t, &closing}, time.Hour, nil)
		r.stores[storeKey{ref: ref}] = &opened{source: source}
	}
	r.retire()
	if open.Load() != 0 {
		t.Errorf("%d open", open.Load())
	}
}

// TestRestingCannotReopen tells whoever asks why the store is not to be had.
func TestRestingCannotReopen(t *testing.T) {
	r, _ := newHeld(time.Hour)
	defer r.Close()
	gone := errors.New("the disk is gone")
	r.reopen = func(context.Context, Asker) (Source, error) { return nil, gone }
	r.rest()
	if _, err := r.PathInfo(t.Context(), Asker{}, storepath.Path{}); !errors.Is(err, gone) {
		t.Errorf("error %v", err)
	}
	if _, known := r.Known(t.Context(), Asker{}, storepath.Path{}); known {
		t.Error("an answer of a store that is not to be had")
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	r.turn <- struct{}{}
	defer func() { <-r.turn }()
	if _, err := r.Realisation(ended, Asker{}, pathinfo.DrvOutput{}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

// TestRestingIsLike: what is asked of every store is answered while it rests.
func TestRestingIsLike(t *testing.T) {
	r, _ := newHeld(time.Hour)
	defer r.Close()
	r.rest()
	if r.URI() != "held://" || r.Dir() != storepath.DefaultDir || r.Priority() != 7 || !r.WantMassQuery() || !r.Trusted() {
		t.Errorf("%+v", r)
	}
}
