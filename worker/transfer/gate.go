package transfer

import (
	"container/list"
	"context"
	"runtime"
	"sync"
)

// A request over HTTP/1 occupies a connection; upstream lets five times as many streams be active, which matters where
// they share one (HTTP/2).
const (
	weightConnection = 5
	weightStream     = 1
)

// gate bounds how much is under way in the whole engine. Each who enters brings its own limit. Who came first goes first.
type gate struct {
	mu      sync.Mutex
	used    uint64
	waiting list.List // of *waiter
}

type waiter struct {
	weight, limit uint64
	entered       chan struct{} // closed by who lets in
}

// enter waits for room for weight within limit; a limit of 0 is none.
func (g *gate) enter(ctx context.Context, weight, limit uint64) error {
	g.mu.Lock()
	if g.waiting.Len() == 0 && g.fits(weight, limit) || limit == 0 {
		g.used += weight
		g.mu.Unlock()
		return nil
	}
	w := &waiter{weight, limit, make(chan struct{})}
	at := g.waiting.PushBack(w)
	g.mu.Unlock()
	select {
	case <-w.entered:
		return nil
	case <-ctx.Done():
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-w.entered: // at the same moment
		g.used -= weight
	default:
		g.waiting.Remove(at)
	}
	g.admitLocked()
	return context.Cause(ctx)
}

// fits: there is always room for one, however small the limit.
func (g *gate) fits(weight, limit uint64) bool { return g.used == 0 || g.used+weight <= limit }

// leave gives room back. Whoever is let in for it goes on before the caller does: a request on its way is worth more than
// what is done with the answer to the last one, and where many answers come at once all of that would be done first.
func (g *gate) leave(weight uint64) {
	if g.giveBack(weight) {
		runtime.Gosched()
	}
}

func (g *gate) giveBack(weight uint64) (admitted bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.used -= weight
	return g.admitLocked()
}

func (g *gate) admitLocked() (admitted bool) {
	for at := g.waiting.Front(); at != nil; at = g.waiting.Front() {
		w := at.Value.(*waiter)
		if !g.fits(w.weight, w.limit) {
			return admitted
		}
		g.used += w.weight
		g.waiting.Remove(at)
		close(w.entered)
		admitted = true
	}
	return admitted
}
