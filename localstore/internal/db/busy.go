package db

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"zombiezen.com/go/sqlite"
)

const (
	busyFirstWarning = time.Second
	busyNextWarning  = 10 * time.Second
	busyFirstPause   = 100 * time.Microsecond
	busyLongestPause = 20 * time.Millisecond
)

// busyWait paces the attempts at something that another process has locked, and tells of long waits.
type busyWait struct {
	path    string // of the database, for the warning
	log     func(string)
	counts  *counts
	pause   time.Duration
	warning time.Time
}

// wait sleeps before the next attempt after the busy error err. It fails when ctx ends or stop, if not nil, is closed.
func (b *busyWait) wait(ctx context.Context, stop <-chan struct{}, err error) error {
	now := time.Now()
	defer b.counts.waitedSince(now)
	if b.warning.IsZero() {
		b.warning = now.Add(busyFirstWarning)
		b.pause = busyFirstPause
	} else if now.After(b.warning) {
		b.warning = now.Add(busyNextWarning)
		b.log(busyText(b.path, err))
	}
	// The jitter keeps processes that started to wait together from colliding for ever.
	timer := time.NewTimer(b.pause/2 + rand.N(b.pause))
	defer timer.Stop()
	b.pause = min(2*b.pause, busyLongestPause)
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-stop:
		return ErrClosed
	}
}

func busyText(path string, err error) string {
	if sqlite.ErrCode(err).ToPrimary() == sqlite.ResultProtocol {
		return fmt.Sprintf("SQLite database '%s' is busy (SQLITE_PROTOCOL)", path)
	}
	return fmt.Sprintf("SQLite database '%s' is busy", path)
}

// retryBusy repeats f, which must have no effect when it fails, as long as the database is busy.
func (db *DB) retryBusy(ctx context.Context, f func() error) error {
	return db.retryBusyUntil(ctx, nil, f)
}

// retryBusyUntil is retryBusy until stop is closed.
func (db *DB) retryBusyUntil(ctx context.Context, stop <-chan struct{}, f func() error) error {
	var b busyWait
	for {
		err := f()
		if err == nil || !isBusy(err) {
			return err
		}
		if b.log == nil {
			b = busyWait{path: db.file, log: db.log, counts: &db.counts}
		}
		if err := b.wait(ctx, stop, err); err != nil {
			return err
		}
	}
}
