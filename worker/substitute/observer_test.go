package substitute

import (
	"sync"
	"testing"

	"nixdaemon/protocol/narinfo"
)

// witness remembers what it is told of fetches.
type witness struct {
	subst *Substituter

	mu    sync.Mutex
	began []Fetch
	seen  [][]FetchStatus // at the beginning of each
	ends  []FetchEnd
}

var _ Observer = (*witness)(nil)

func (w *witness) FetchBegan(f Fetch) {
	seen := w.subst.Fetching()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.began, w.seen = append(w.began, f), append(w.seen, seen)
}

func (w *witness) FetchEnded(f Fetch, e FetchEnd) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ends = append(w.ends, e)
}

func TestObserver(t *testing.T) {
	w := newWorld(t)
	eye := &witness{subst: w.subst}
	w.subst.o.Observer = eye
	good := w.cache.add("good", "contents", nil, nil)
	bad := w.cache.add("bad", "other contents", nil, func(_ *narinfo.NarInfo, data *[]byte) { *data = (*data)[:40] })
	sess, _ := w.session(7, w.cache.uri())
	if err := w.take(sess, good); err != nil {
		t.Fatal(err)
	}
	if err := w.take(sess, bad); err == nil {
		t.Fatal("took half an archive")
	}
	if len(eye.began) != 2 || len(eye.ends) != 2 {
		t.Fatalf("told of %d beginnings and %d ends", len(eye.began), len(eye.ends))
	}
	f, e := eye.began[0], eye.ends[0]
	if f.ID == 0 || f.Path != good || f.Cache != w.cache.uri() || f.NarSize == 0 || f.User != "alice" || f.Client != 7 || f.Began.IsZero() ||
		e.Done != f.NarSize || e.Err != nil || e.Ended.Before(f.Began) {
		t.Errorf("told %+v, %+v", f, e)
	}
	if len(eye.seen[0]) != 1 || eye.seen[0][0].Fetch != f || eye.seen[0][0].Done != 0 {
		t.Errorf("status %+v", eye.seen[0])
	}
	if eye.ends[1].Err == nil || eye.began[1].ID == f.ID {
		t.Errorf("told %+v, %+v", eye.began[1], eye.ends[1])
	}
	if left := w.subst.Fetching(); len(left) != 0 {
		t.Errorf("still %+v", left)
	}
}
