package transfer

import (
	"context"
	"sync"
	"time"
)

// watchdog ends an attempt when the server is waited for too long. Time in which nobody waits for it does not count.
type watchdog struct {
	limit  time.Duration // 0 for none
	cancel context.CancelCauseFunc

	mu      sync.Mutex
	timer   *time.Timer
	since   time.Time // when the wait began or something last came; zero while nobody waits
	stopped bool
}

// newWatchdog begins with nobody waiting.
func newWatchdog(limit time.Duration, cancel context.CancelCauseFunc) *watchdog {
	w := &watchdog{limit: limit, cancel: cancel}
	if limit > 0 {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.timer = time.AfterFunc(limit, w.check)
	}
	return w
}

// check runs when the limit may have passed. Setting the timer for each read would cost more than this.
func (w *watchdog) check() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stopped {
		return
	}
	left := w.limit
	if !w.since.IsZero() {
		left -= time.Since(w.since)
	}
	if left <= 0 {
		w.cancel(errStalled)
		return
	}
	w.timer.Reset(left)
}

// wait says that the server is waited for from now on, or that something came.
func (w *watchdog) wait() {
	if w.limit > 0 {
		now := time.Now()
		w.mu.Lock()
		w.since = now
		w.mu.Unlock()
	}
}

// rest says that nobody waits.
func (w *watchdog) rest() {
	if w.limit > 0 {
		w.mu.Lock()
		w.since = time.Time{}
		w.mu.Unlock()
	}
}

func (w *watchdog) stop() {
	if w.limit > 0 {
		w.mu.Lock()
		w.stopped = true
		w.mu.Unlock()
		w.timer.Stop()
	}
}
