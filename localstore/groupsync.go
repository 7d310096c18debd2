package localstore

import "sync"

// groupSync lets those who want the same thing synced at the same time share one sync. The zero value is ready.
type groupSync struct {
	running sync.Mutex // held during a sync

	// Guards next.
	mu   sync.Mutex
	next *syncRound // joined by those who come before it begins; nil: the next to come makes it
}

type syncRound struct {
	once sync.Once
	err  error
}

// do returns when a sync has ended that began after the call. All calls give the same f, or one as good.
func (g *groupSync) do(f func() error) error {
	g.mu.Lock()
	if g.next == nil {
		g.next = new(syncRound)
	}
	r := g.next
	g.mu.Unlock()
	g.running.Lock()
	defer g.running.Unlock()
	// The first of the round that gets here does it; the others find it done.
	r.once.Do(func() {
		g.mu.Lock()
		g.next = nil
		g.mu.Unlock()
		r.err = f()
	})
	return r.err
}
