package substitute

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"nixdaemon/protocol/activity"
)

// errClosed is for questions after [Substituter.Close].
var errClosed = errors.New("substituter is closed")

// flights does each piece of work once, however many want it at the same time.
type flights[K comparable, T any] struct {
	mu      sync.Mutex
	flying  map[K]*flight[T]
	closed  bool
	workers sync.WaitGroup
}

// flight is work under way. It ends early when nobody waits for it any more.
type flight[T any] struct {
	audience audience
	cancel   context.CancelFunc
	waiting  int           // guarded by flights.mu
	done     chan struct{} // closed when the result is there
	result   T
	err      error
}

// do waits for the work of that key, and begins it if nobody has. The work is told to all who wait for it, and goes on
// until the last of them has gone.
func (f *flights[K, T]) do(ctx context.Context, key K, log activity.Sink, work func(ctx context.Context, log activity.Sink) (T, error)) (T, error) {
	fl, err := f.join(ctx, key, log, work)
	if err != nil {
		var none T
		return none, err
	}
	select {
	case <-fl.done:
		f.leave(key, fl, log)
		return fl.result, fl.err
	case <-ctx.Done():
		f.leave(key, fl, log)
		var none T
		return none, context.Cause(ctx)
	}
}

// has tells whether that work is under way.
func (f *flights[K, T]) has(key K) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, ok := f.flying[key]
	return ok
}

func (f *flights[K, T]) join(ctx context.Context, key K, log activity.Sink, work func(context.Context, activity.Sink) (T, error)) (*flight[T], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil, errClosed
	}
	fl := f.flying[key]
	if fl != nil {
		fl.waiting++
		fl.audience.join(log)
		return fl, nil
	}
	// The work takes the request's values, but not its end: others may come to wait for it.
	own, cancel := context.WithCancel(context.WithoutCancel(ctx))
	fl = &flight[T]{cancel: cancel, waiting: 1, done: make(chan struct{})}
	fl.audience.join(log)
	if f.flying == nil {
		f.flying = make(map[K]*flight[T])
	}
	f.flying[key] = fl
	f.workers.Go(func() {
		fl.run(own, work)
		f.forget(key, fl)
		close(fl.done)
	})
	return fl, nil
}

func (fl *flight[T]) run(ctx context.Context, work func(context.Context, activity.Sink) (T, error)) {
	defer fl.cancel()
	defer func() {
		if p := recover(); p != nil {
			fl.err = fmt.Errorf("substitute: internal error: %v", p)
		}
	}()
	fl.result, fl.err = work(ctx, &fl.audience)
}

// leave ends one's wait. Work that nobody waits for ends, and who comes then begins it anew.
func (f *flights[K, T]) leave(key K, fl *flight[T], log activity.Sink) {
	fl.audience.leave(log)
	f.mu.Lock()
	fl.waiting--
	last := fl.waiting == 0
	if last && f.flying[key] == fl {
		delete(f.flying, key)
	}
	f.mu.Unlock()
	if last {
		fl.cancel()
	}
}

func (f *flights[K, T]) forget(key K, fl *flight[T]) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.flying[key] == fl {
		delete(f.flying, key)
	}
}

// close refuses new work and waits for what there is. Whoever wanted it is gone by then.
func (f *flights[K, T]) close() {
	f.mu.Lock()
	f.closed = true
	for _, fl := range f.flying {
		fl.cancel()
	}
	f.mu.Unlock()
	f.workers.Wait()
}
