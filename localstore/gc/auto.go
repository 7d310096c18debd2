package gc

import (
	"context"
	"fmt"
	"math"
	"sync"
	"time"

	"nixdaemon/protocol/activity"
)

// Limits say when to collect without being asked, and what such a collection keeps: settings min-free, max-free,
// min-free-check-interval, keep-outputs and keep-derivations.
type Limits struct {
	// MinFree is below how many free bytes to collect; 0 is never.
	MinFree uint64
	// MaxFree is how many bytes shall be free afterwards.
	MaxFree uint64
	// Interval is how often to look, at most.
	Interval time.Duration

	KeepOutputs, KeepDerivations bool
}

// settled is to what part of what was free after the last collection that must fall for the next to make sense
// (LocalStore::autoGC).
const settled = 0.97

// AutoFor is who asks for the collections of an [Auto].
const AutoFor = "min-free"

// Auto collects garbage when space runs out. There is one for a store, however many clients want space: one looks, one
// collection runs, and all wait for that. Its methods may be called from any goroutine.
type Auto struct {
	collector *Collector
	available func() (uint64, error)
	log       activity.Sink

	ctx     context.Context // ends when Close is called
	cancel  context.CancelFunc
	running sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	current chan struct{} // closed when the collection ends; nil while there is none
	looked  time.Time
	// free is the most that was since the last collection, that included.
	free uint64
}

// NewAuto gives an Auto for a collector's store. available tells how many bytes are free; log receives what the
// collections have to say, nil drops it. Close it before the store.
func NewAuto(c *Collector, available func() (uint64, error), log activity.Sink) *Auto {
	if log == nil {
		log = activity.Discard{}
	}
	a := &Auto{collector: c, available: available, log: log, free: math.MaxUint64}
	a.ctx, a.cancel = context.WithCancel(context.Background()) // that of the collections, which outlive who needed them
	return a
}

// Close interrupts a collection that runs and waits for its end.
func (a *Auto) Close() {
	a.mu.Lock()
	a.closed = true
	a.mu.Unlock()
	a.cancel()
	a.running.Wait()
}

// Wait is for who is about to write: it starts a collection if one is needed, and waits for the one that runs. That space
// cannot be had is no error; writing will tell. log, which may be nil, hears of a new collection.
func (a *Auto) Wait(ctx context.Context, l Limits, log activity.Sink) error {
	if l.MinFree == 0 {
		return nil
	}
	running, err := a.check(l, log)
	if running == nil || err != nil {
		return err
	}
	select {
	case <-running:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Watch looks now and from time to time, until stop is called. log, which may be nil, hears of new collections.
func (a *Auto) Watch(l Limits, log activity.Sink) (stop func()) {
	if l.MinFree == 0 {
		return func() {}
	}
	ctx, cancel := context.WithCancel(a.ctx)
	var watching sync.WaitGroup
	watching.Go(func() {
		tick := time.NewTicker(max(l.Interval, time.Second))
		defer tick.Stop()
		for ctx.Err() == nil {
			if _, err := a.check(l, log); err != nil {
				a.log.Message(activity.Warn, err.Error())
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
			}
		}
	})
	return func() { cancel(); watching.Wait() }
}

// check starts a collection if none runs and one is needed. It gives the one that runs, or nil.
func (a *Auto) check(l Limits, log activity.Sink) (running <-chan struct{}, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.current != nil {
		return a.current, nil
	}
	if now := time.Now(); a.closed || !a.looked.IsZero() && now.Sub(a.looked) < l.Interval {
		return nil, nil
	}
	avail, err := a.available()
	if err != nil {
		return nil, fmt.Errorf("look for free space: %w", err)
	}
	a.looked = time.Now()
	if a.free != math.MaxUint64 {
		a.free = max(a.free, avail)
	}
	if !l.needs(avail) || float64(avail) > settled*float64(a.free) {
		return nil, nil
	}
	a.startLocked(l, log, avail)
	return a.current, nil
}

func (l *Limits) needs(avail uint64) bool { return avail < l.MinFree && avail < l.MaxFree }

func (a *Auto) startLocked(l Limits, log activity.Sink, avail uint64) {
	text := fmt.Sprintf("running auto-GC to free %d bytes", l.MaxFree-avail)
	a.log.Message(activity.Info, text)
	if log != nil {
		log.Message(activity.Info, text)
	}
	done := make(chan struct{})
	a.current = done
	a.running.Go(func() {
		a.collect(l)
		a.mu.Lock()
		defer a.mu.Unlock()
		a.looked, a.current = time.Now(), nil
		close(done)
	})
}

// collect runs one collection, unless there is space by the time that it can begin: another may have run meanwhile.
func (a *Auto) collect(l Limits) {
	needed := func() (uint64, error) {
		avail, err := a.available()
		if err != nil || !l.needs(avail) {
			return 0, err
		}
		return l.MaxFree - avail, nil
	}
	res, err := a.collector.Collect(a.ctx, Request{
		Action: DeleteDead, WholeStore: true, Needed: needed,
		KeepOutputs: l.KeepOutputs, KeepDerivations: l.KeepDerivations, Log: demoted{a.log}, For: AutoFor,
	})
	if err != nil && a.ctx.Err() == nil {
		a.log.Message(activity.Error, fmt.Sprintf("auto-GC: %v", err))
	}
	a.log.Message(activity.Info, fmt.Sprintf("auto-GC freed %d bytes of %d paths", res.BytesFreed, len(res.Paths)))
	free, err := a.available()
	if err != nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.free = free
}

// demoted is a log that nobody asked for details.
type demoted struct{ activity.Sink }

// Message makes what clients would see by default a matter of debugging.
func (d demoted) Message(level activity.Level, text string) {
	if level == activity.Info {
		level = activity.Debug
	}
	d.Sink.Message(level, text)
}
