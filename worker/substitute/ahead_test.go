package substitute

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"nixdaemon/protocol/narinfo"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker/session"
)

// far is the world's cache as one that is not a directory of this machine.
func (c *fakeCache) far() string { return "far://" + c.dir }

func (w *world) offer(sess *session.Session, p storepath.Path) *Offer {
	w.Helper()
	o, err := w.subst.Find(w.ctx, sess, p, storepath.ContentAddress{}, nil)
	if err != nil || o == nil {
		w.Fatalf("offer %v, %v", o, err)
	}
	return o
}

// ahead begins to get an offer ahead of its turn. The result waits for the end of that.
func (w *world) ahead(ctx context.Context, sess *session.Session, o *Offer) (wait func()) {
	var wg sync.WaitGroup
	wg.Go(func() { w.subst.Ahead(ctx, sess, o) })
	return wg.Wait
}

func (w *world) room() uint64 {
	w.subst.early.mu.Lock()
	defer w.subst.early.mu.Unlock()
	return aheadTotal - w.subst.early.size
}

// TestAhead gets a file before its turn for two clients, once, and unpacks it when the turn has come.
func TestAhead(t *testing.T) {
	w := newWorld(t)
	p := w.cache.add("a", "ahead of its turn", nil, nil)
	sess, _ := w.session(1, w.cache.far())
	other, _ := w.session(2, w.cache.far())
	o := w.offer(sess, p)
	if near, _ := w.session(3, w.cache.uri()); !o.Ahead() || w.offer(near, p).Ahead() {
		t.Fatalf("of a far cache %v, of a near one %v", o.Ahead(), w.offer(near, p).Ahead())
	}
	w.calls.block = make(chan struct{})
	one, two := w.ahead(w.ctx, sess, o), w.ahead(w.ctx, other, w.offer(other, p))
	until(t, func() bool { return w.calls.count("nar/") == 1 })
	if w.room() != aheadTotal-o.remote.FileSize {
		t.Errorf("room for %d bytes", w.room())
	}
	close(w.calls.block)
	if err := w.subst.Fetch(w.ctx, sess, o, false); err != nil {
		t.Fatal(err)
	}
	one()
	two()
	if n := w.calls.count("nar/"); n != 1 || !w.valid(p) || w.room() != aheadTotal {
		t.Errorf("asked %d times, valid %v, room for %d bytes", n, w.valid(p), w.room())
	}
	w.subst.Ahead(w.ctx, other, o) // of what is valid there is nothing to get
	if n := w.calls.count("nar/"); n != 1 {
		t.Errorf("asked %d times", n)
	}
}

// TestAheadFails has what goes wrong told by the fetch, as if nothing had been got ahead.
func TestAheadFails(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*narinfo.NarInfo, *[]byte)
		want   string // in the error; "" for none
		asked  int
	}{
		"gone":        {nil, "", 1},
		"short":       {func(_ *narinfo.NarInfo, data *[]byte) { *data = (*data)[:len(*data)-20] }, "is incomplete", 1},
		"wrong":       {func(_ *narinfo.NarInfo, data *[]byte) { (*data)[100]++ }, "hash mismatch", 1},
		"size lies":   {func(n *narinfo.NarInfo, _ *[]byte) { n.FileSize-- }, "", 2},
		"compression": {func(n *narinfo.NarInfo, _ *[]byte) { n.Compression = "xz" }, "compression not recognized", 1},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			p := w.cache.add("a", strings.Repeat("contents ", 20), nil, c.change)
			gone := name == "gone"
			if gone {
				w.calls.missing = "nar/"
			}
			sess, _ := w.session(1, w.cache.far())
			o := w.offer(sess, p)
			wait := w.ahead(w.ctx, sess, o)
			until(t, func() bool { return w.calls.count("nar/") == 1 })
			err := w.subst.Fetch(w.ctx, sess, o, false)
			wait()
			if errors.Is(err, ErrGone) != gone || c.want == "" && !gone && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if n := w.calls.count("nar/"); n != c.asked || w.valid(p) != (err == nil) || w.room() != aheadTotal {
				t.Errorf("asked %d times, valid %v, room for %d bytes", n, w.valid(p), w.room())
			}
		})
	}
}

// TestAheadGivenUp has who wanted a path leave; the room is there again, and others get the path as usual.
func TestAheadGivenUp(t *testing.T) {
	w := newWorld(t)
	p := w.cache.add("a", "given up", nil, nil)
	sess, _ := w.session(1, w.cache.far())
	o := w.offer(sess, p)
	w.calls.block = make(chan struct{})
	ctx, leave := context.WithCancel(w.ctx)
	wait := w.ahead(ctx, sess, o)
	until(t, func() bool { return w.calls.count("nar/") == 1 })
	result := make(chan error)
	go func() { result <- w.subst.Fetch(w.ctx, sess, o, false) }()
	leave()
	wait()
	until(t, func() bool { return w.room() == aheadTotal && w.calls.count("nar/") == 2 })
	w.subst.Ahead(w.ctx, sess, o) // a fetch is under way
	close(w.calls.block)
	if err := <-result; err != nil || !w.valid(p) {
		t.Errorf("got %v, valid %v", err, w.valid(p))
	}
}

// TestAheadBounded keeps no more in memory than there is room for.
func TestAheadBounded(t *testing.T) {
	var l earlies
	var begun []*early
	key := func(i int) fetchKey { return fetchKey{uri: string(rune(i))} }
	for i := range aheadTotal / aheadSize {
		e := l.begin(key(i), aheadSize)
		if e == nil || l.begin(key(i), 1) != nil {
			t.Fatalf("file %d: %v, or twice", i, e)
		}
		begun = append(begun, e)
	}
	last := len(begun)
	if l.begin(key(last), 1) != nil {
		t.Error("more than there is room for")
	}
	l.end(key(0), begun[0])
	if l.begin(key(last), aheadSize) == nil {
		t.Error("no room after one has gone")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if file, err := l.take(ctx, key(last)); file != nil || err != context.Canceled {
		t.Errorf("took %q, %v from what has not arrived", file, err)
	}
}
