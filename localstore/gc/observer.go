package gc

import (
	"sync"
	"sync/atomic"
	"time"
)

// Observer is told of collections, for status, metrics and logs. [Collector.Running] tells how far one is.
//
// For each collection CollectionBegan is called and then CollectionEnded, on the goroutine of who asked for it and with
// gc.lock held, so that collections of this and other processes wait meanwhile: they return at once.
type Observer interface {
	CollectionBegan(c Collection)
	CollectionEnded(c Collection, e CollectionEnd)
}

// Collection is one that runs.
type Collection struct {
	Action     Action
	WholeStore bool
	// For is who asked for it, as the request says.
	For string
	// MaxFreed is after how many bytes it stops.
	MaxFreed uint64
	// Began is when it had the lock.
	Began time.Time
}

// CollectionEnd is how a collection ended.
type CollectionEnd struct {
	// Paths and BytesFreed count what was found or deleted.
	Paths      int
	BytesFreed uint64
	Ended      time.Time
	Err        error
}

// Progress is how far a collection is.
type Progress struct {
	Collection
	// Step is what it does: "finding roots", "planning", "deleting", "deleting unused links".
	Step string
	// Dead is how many names it means to delete, 0 before it knows; Deleted and BytesFreed are what it has deleted.
	Dead, Deleted, BytesFreed uint64
}

// Running tells of the collection that runs in this process; nil if none does.
func (c *Collector) Running() *Progress {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.running == nil {
		return nil
	}
	s := c.running
	step, _ := s.step.Load().(string)
	return &Progress{Collection: s.Collection, Step: step, Dead: s.dead.Load(), Deleted: s.deleted.Load(), BytesFreed: s.freed.Load()}
}

// sight is what can be seen of a run.
type sight struct {
	Collection
	step                 atomic.Value
	dead, deleted, freed atomic.Uint64
}

// shown is where [Collector.Running] looks.
type shown struct {
	mu      sync.Mutex
	running *sight
}

// show lets a run be seen until the function that it gives is called.
func (c *Collector) show(r *run) (hide func(err error)) {
	s := &sight{Collection: Collection{
		Action: r.req.Action, WholeStore: r.req.WholeStore, For: r.req.For, MaxFreed: r.req.MaxFreed, Began: time.Now(),
	}}
	r.sight = s
	s.step.Store("finding roots")
	c.setRunning(s)
	if c.o.Observer != nil {
		c.o.Observer.CollectionBegan(s.Collection)
	}
	return func(err error) {
		c.setRunning(nil)
		if c.o.Observer != nil {
			c.o.Observer.CollectionEnded(s.Collection, CollectionEnd{
				Paths: len(r.results.Paths), BytesFreed: r.results.BytesFreed, Ended: time.Now(), Err: err,
			})
		}
	}
}

func (c *Collector) setRunning(s *sight) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running = s
}
