package substitute

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"nixdaemon/protocol/activity"
)

// disabledFor is how long a cache that has failed is left alone by everybody when there is another way
// (http-binary-cache-store.cc, maybeDisable).
const disabledFor = 60 * time.Second

// health says whether a store may be asked at all.
type health struct {
	mu    sync.Mutex
	until time.Time // when it may be asked again; zero while it is well
}

// check fails while the store is set aside.
func (h *health) check(uri string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.until.IsZero() {
		return nil
	}
	if time.Now().Before(h.until) {
		return errorf(ErrDisabled, "substituter '%s' is disabled", uri)
	}
	h.until = time.Time{}
	return nil
}

// note is told of a failure and gives it back. Whoever can do without the store sets it aside for everybody.
func (h *health) note(a Asker, uri string, err error) error {
	if !a.Settings.Fallback || errors.Is(err, context.Canceled) {
		return err
	}
	h.mu.Lock()
	well := h.until.IsZero()
	if well {
		h.until = time.Now().Add(disabledFor)
	}
	h.mu.Unlock()
	if well {
		a.Log.Message(activity.Error, fmt.Sprintf("disabling binary cache '%s' for %d seconds", uri, int(disabledFor.Seconds())))
	}
	return err
}
