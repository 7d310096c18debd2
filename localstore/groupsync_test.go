package localstore

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
)

// TestGroupSync: those who ask while a sync runs share the next one; it is not enough for them that the running one ends.
func TestGroupSync(t *testing.T) {
	var g groupSync
	var syncs atomic.Int64
	began, proceed := make(chan struct{}), make(chan struct{})
	lost := errors.New("lost")
	f := func() error {
		n := syncs.Add(1)
		began <- struct{}{}
		<-proceed
		if n == 2 {
			return lost
		}
		return nil
	}
	var group sync.WaitGroup
	first := make(chan error, 1)
	group.Go(func() { first <- g.do(f) })
	<-began
	const many = 10
	var failed atomic.Int64
	for range many {
		group.Go(func() {
			if err := g.do(f); errors.Is(err, lost) {
				failed.Add(1)
			}
		})
	}
	// Somebody has joined the next round.
	for joined(&g) == nil {
	}
	round := joined(&g)
	proceed <- struct{}{}
	if err := <-first; err != nil {
		t.Error(err)
	}
	<-began
	if joined(&g) == round {
		t.Error("a round that has begun can still be joined")
	}
	close(proceed)
	go func() {
		for range began {
		}
	}()
	group.Wait()
	close(began)
	if n := syncs.Load(); n < 2 || failed.Load() == 0 || n == 2 && failed.Load() != many {
		t.Errorf("%d syncs, and the second one's failure was told to %d", n, failed.Load())
	}
	if err := g.do(func() error { return nil }); err != nil {
		t.Error(err)
	}
}

func joined(g *groupSync) *syncRound {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.next
}
