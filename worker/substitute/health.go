package substitute

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"nixdaemon/protocol/activity"
)

const (
	// disabledFor is how long a cache that has failed is left alone by everybody who can do without it
	// (http-binary-cache-store.cc, maybeDisable).
	disabledFor = 60 * time.Second

	// slow is how long a failure takes that others are spared. What fails faster they may find out for themselves.
	slow = 2 * time.Second
	// asideAtMost bounds for how long. It is as long as the failure took: nobody waits for a cache that is down more
	// than half of the time, and what comes back is soon noticed.
	asideAtMost = time.Minute
)

// health says whether a binary cache may be asked at all.
type health struct {
	mu       sync.Mutex
	disabled time.Time // until when; zero while it is not
	aside    time.Time // until when questions fail with why; zero while they do not
	why      error

	epoch context.Context // of the questions under way; ended with why when the cache is set aside. Nil before the first.
	end   context.CancelCauseFunc
}

// check fails while the cache is set aside.
func (h *health) check(uri string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.disabled.IsZero() && h.aside.IsZero() {
		return nil
	}
	now := time.Now()
	if now.Before(h.disabled) {
		return errorf(ErrDisabled, "substituter '%s' is disabled", uri)
	}
	if now.Before(h.aside) {
		return h.why
	}
	h.disabled, h.aside, h.why = time.Time{}, time.Time{}, nil
	return nil
}

// watch gives a context for a question: it ends when the cache is set aside meanwhile. Call done after the question.
func (h *health) watch(ctx context.Context) (_ context.Context, done func()) {
	h.mu.Lock()
	if h.epoch == nil {
		h.epoch, h.end = context.WithCancelCause(context.Background())
	}
	epoch := h.epoch
	h.mu.Unlock()
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(epoch, func() { cancel(context.Cause(epoch)) })
	return ctx, func() {
		stop()
		cancel(nil)
	}
}

// note is told of a failure and how long it took, and gives it back. Whoever can do without the cache disables it for
// everybody; one that takes long to fail is set aside for everybody in any case.
func (h *health) note(a Asker, uri string, took time.Duration, err error) error {
	if errors.Is(err, ErrDisabled) {
		return err
	}
	h.mu.Lock()
	now := time.Now()
	disable := a.Settings.Fallback && h.disabled.IsZero()
	if disable {
		h.disabled = now.Add(disabledFor)
	}
	if took >= slow && h.aside.IsZero() {
		h.aside, h.why = now.Add(min(took, asideAtMost)), err
		if h.end != nil {
			h.end(err)
			h.epoch, h.end = nil, nil
		}
	}
	h.mu.Unlock()
	if disable {
		a.Log.Message(activity.Error, fmt.Sprintf("disabling binary cache '%s' for %d seconds", uri, int(disabledFor.Seconds())))
	}
	return err
}
