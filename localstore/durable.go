package localstore

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"nixdaemon/localstore/internal/fstree"
	"nixdaemon/protocol/activity"
)

// syncer makes what was registered durable: some time after the first registration, or once there is much of it. It
// sleeps, without a timer, while nothing is registered.
//
// What is registered goes to disk whenever the kernel likes, and so after a power cut the database may be ahead of the
// files. The syncer has everything written now and then, and writes down how far the database was before
// ([durableMark]); what is beyond that is checked when the store is opened after a reboot (durablecheck.go).
type syncer struct {
	every time.Duration
	bytes int64
	sync  func() error
	log   func(activity.Level, string)

	pending    atomic.Int64  // bytes registered since the last sync began; at least one for each registration
	wake, full chan struct{} // hold one element each
	stop, done chan struct{}
	stopOnce   sync.Once
}

func startSyncer(o *Options, sync func() error) *syncer {
	y := &syncer{
		every: o.SyncEvery, bytes: o.SyncBytes, sync: sync, log: o.Log,
		wake: make(chan struct{}, 1), full: make(chan struct{}, 1),
		stop: make(chan struct{}), done: make(chan struct{}),
	}
	go y.run()
	return y
}

// registered tells of a registration, after it was committed. It is one atomic operation, but for the first
// and the one that makes it too much.
func (y *syncer) registered(size int64) {
	if y == nil {
		return
	}
	size = max(1, size)
	now := y.pending.Add(size)
	if now == size {
		notify(y.wake)
	}
	if now >= y.bytes && now-size < y.bytes {
		notify(y.full)
	}
}

func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (y *syncer) run() {
	defer close(y.done)
	failed := "" // how the last sync failed, which is said once
	for {
		select {
		case <-y.stop:
			return
		case <-y.wake:
		}
		timer := time.NewTimer(y.every)
		select {
		case <-y.stop:
			timer.Stop()
			return
		case <-y.full:
			timer.Stop()
		case <-timer.C:
		}
		// Before the database is asked how far it is: what comes after this has to wake us again.
		y.pending.Store(0)
		err := y.sync()
		if lost := (*syncError)(nil); errors.As(err, &lost) {
			y.log(activity.Error, fmt.Sprintf("%v: what is registered from now on will be verified after the next reboot", err))
			<-y.stop
			return
		}
		if err == nil {
			failed = ""
			continue
		}
		if failed != err.Error() {
			failed = err.Error()
			y.log(activity.Error, failed)
		}
		y.registered(0)
	}
}

// close waits for a sync that runs, and begins none: it would take as long as the disk needs for what anybody wrote, while
// somebody waits for us to end. What remains is synced by whoever opens the store next or, if nobody does before the
// machine goes down, is little to verify.
func (y *syncer) close() {
	if y != nil {
		y.stopOnce.Do(func() { close(y.stop) })
		<-y.done
	}
}

// syncError says that the file system failed to write. The kernel tells of that once and then believes
// what is in memory, so no later sync can be trusted to speak of the same data.
type syncError struct{ err error }

func (e *syncError) Error() string { return e.err.Error() }

func (e *syncError) Unwrap() error { return e.err }

// makeDurable syncs and moves the mark. It does nothing if the store was replaced: Refresh has it called again.
func (s *Store) makeDurable(ctx context.Context) error {
	h := s.acquire()
	defer h.release()
	if h.stale() {
		return nil
	}
	last, err := h.db.LastID(ctx)
	if err != nil {
		return fmt.Errorf("find last registration: %w", err)
	}
	if err := s.syncAll(h); err != nil {
		return err
	}
	mark, err := s.markOf(ctx, h, s.boot, last)
	if err != nil {
		return err
	}
	// A mark of the old database must not replace that of the new one, see Refresh.
	s.refresh.Lock()
	defer s.refresh.Unlock()
	if s.current.Load() != h || h.stale() {
		return nil
	}
	// For the next collection, if the last one found no space to put aside and there is some now.
	h.db.Reserve()
	return s.opts.writeMark(mark, true)
}

// syncAll syncs the file systems of the store and of the state.
func (s *Store) syncAll(h *handle) error {
	if err := h.root.SyncFS(); err != nil {
		return &syncError{err}
	}
	dir, err := fstree.OpenRoot(s.opts.dbDir())
	if err != nil {
		return err
	}
	defer dir.Close()
	var store, state unix.Stat_t
	if err := errors.Join(unix.Fstat(h.root.FD(), &store), unix.Fstat(dir.FD(), &state)); err != nil {
		return fmt.Errorf("compare file systems of store and state: %w", err)
	}
	if store.Dev == state.Dev {
		return nil
	}
	if err := dir.SyncFS(); err != nil {
		return &syncError{err}
	}
	return nil
}
