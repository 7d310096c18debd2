package daemon

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"nixdaemon/daemon/config"
	"nixdaemon/daemon/status/daemonlog"
	"nixdaemon/daemon/status/meter"
	"nixdaemon/localstore/gc"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker"
	"nixdaemon/worker/build"
	"nixdaemon/worker/settings"
	"nixdaemon/worker/substitute"
)

// watcher hears what the daemon does, counts it and writes a line to the log
// about the end of each thing.
type watcher struct {
	*meter.Meter
	dir   storepath.Dir
	log   zerolog.Logger
	trail *trail
	lines *lineQueue
}

var (
	_ build.Observer      = (*watcher)(nil)
	_ substitute.Observer = (*watcher)(nil)
	_ gc.Observer         = (*watcher)(nil)
	_ ConnectionObserver  = (*watcher)(nil)
)

// newWatcher has lines written to log, and privileged deeds to audit.
func newWatcher(cfg *config.Config, log, audit zerolog.Logger) (*watcher, error) {
	trail, err := openTrail(cfg.Settings.AuditLogFile, audit)
	if err != nil {
		return nil, err
	}
	m := meter.New(NixVersion, meter.Revision())
	return &watcher{m, storepath.Dir(cfg.Store.StoreDir), log, trail, startLines(log)}, nil
}

// close ends when what was heard is written.
func (w *watcher) close() {
	w.lines.close()
	w.trail.close()
}

// refused counts a client that was not let in.
func (w *watcher) refused(err error) {
	var policy *RefusedError
	var limit *CrowdedError
	switch {
	case errors.As(err, &policy):
		w.Meter.Refused("policy")
	case errors.As(err, &limit):
		w.Meter.Refused("limit")
	default:
		w.Meter.Refused("error")
	}
}

func (w *watcher) audit(p Peer, deed worker.Privilege) {
	w.Meter.Privileged(string(deed.Action), deed.Refused, deed.Err)
	w.trail.note(p, deed)
}

// Connected counts a client.
func (w *watcher) Connected(c Connection) ClientObserver {
	return &watchedClient{w.Meter.Client(c.User, c.Trusted), c.Peer, w.log}
}

// watchedClient is a client that is connected.
type watchedClient struct {
	*meter.Client
	peer Peer
	log  zerolog.Logger
}

// Disconnected counts and logs the end.
func (c *watchedClient) Disconnected(err error) {
	took := c.Gone()
	who := fmt.Sprintf("connection of %s (pid %d) ended after %s: %d requests", c.peer.User, c.peer.PID, rounded(took), c.Requests)
	if c.Failures > 0 {
		who += fmt.Sprintf(", %d failed", c.Failures)
	}
	e := c.log.Info().Str(daemonlog.EventKey, "connection").Str("user", c.peer.User).Int("pid", c.peer.PID).Bool("trusted", c.peer.Trusted).
		Uint64("connection", c.peer.Client).Float64("seconds", seconds(took)).Uint64("requests", c.Requests).Uint64("failed", c.Failures)
	if reason := endReason(err); reason != "" {
		e = e.Str("error", reason)
	}
	e.Msg(who)
}

// endReason says why a connection has ended, nothing if that was the client's
// doing, who may hang up.
func endReason(err error) string {
	if err == nil || errors.Is(err, context.Canceled) {
		return ""
	}
	return briefly(err)
}

// BuildEnded counts and logs a build.
func (w *watcher) BuildEnded(id build.BuildID, b build.EndedBuild) {
	w.Meter.BuildEnded(id, b)
	w.lines.add(func(log *zerolog.Logger) {
		var took time.Duration
		if !b.Began.IsZero() {
			took = b.Ended.Sub(b.Began)
		}
		status, drv := meter.BuildOutcome(b), w.dir.Print(b.Drv)
		e := log.Info().Str(daemonlog.EventKey, "build").Str("drv", drv).Str("user", b.For.User).Str("status", status).
			Float64("seconds", seconds(took)).Float64("waited", seconds(b.Ended.Sub(b.Time)-took)).
			Float64("cpu", seconds(b.CPUUser+b.CPUSystem)).Uint64("log_bytes", b.LogSize)
		where := ""
		if b.Machine != "" {
			machine := settings.ShownReference(b.Machine)
			e, where = e.Str("machine", machine), " on '"+machine+"'"
		}
		if b.Err != nil {
			e.Str("error", briefly(b.Err)).Msgf("build of '%s' for %s%s ended after %s: %s: %s", drv, b.For.User, where, rounded(took), status, briefly(b.Err))
			return
		}
		e.Msgf("built '%s' for %s%s in %s", drv, b.For.User, where, rounded(took))
	})
}

// FetchEnded counts and logs a substitution.
func (w *watcher) FetchEnded(f substitute.Fetch, end substitute.FetchEnd) {
	w.Meter.FetchEnded(f, end)
	w.lines.add(func(log *zerolog.Logger) {
		took, path, cache := end.Ended.Sub(f.Began), w.dir.Print(f.Path), settings.ShownReference(f.Cache)
		e := log.Info().Str(daemonlog.EventKey, "substitution").Str("path", path).Str("cache", cache).Str("user", f.User).
			Str("status", meter.Outcome(end.Err)).Float64("seconds", seconds(took)).Uint64("nar_bytes", end.Done)
		if end.Err != nil {
			e.Str("error", briefly(end.Err)).Msgf("fetching '%s' from '%s' for %s failed after %s: %s", path, cache, f.User, rounded(took), briefly(end.Err))
			return
		}
		e.Msgf("fetched '%s' from '%s' for %s in %s", path, cache, f.User, rounded(took))
	})
}

// CollectionEnded counts and logs a collection.
func (w *watcher) CollectionEnded(c gc.Collection, end gc.CollectionEnd) {
	w.Meter.CollectionEnded(c, end)
	w.lines.add(func(log *zerolog.Logger) {
		took, action, user := end.Ended.Sub(c.Began), meter.GCAction(c.Action), c.For
		if user == "" {
			user = "the daemon itself"
		}
		e := log.Info().Str(daemonlog.EventKey, "collection").Str("action", action).Str("user", user).Str("status", meter.Outcome(end.Err)).
			Float64("seconds", seconds(took)).Int("paths", end.Paths).Uint64("freed_bytes", end.BytesFreed)
		if end.Err != nil {
			e = e.Str("error", briefly(end.Err))
		}
		text := fmt.Sprintf("collection (%s) for %s ended after %s: %d paths, %d bytes", action, user, rounded(took), end.Paths, end.BytesFreed)
		if end.Err != nil {
			text += ": " + briefly(end.Err)
		}
		e.Msg(text)
	})
}

// seconds is a duration for programs, to the microsecond.
func seconds(d time.Duration) float64 {
	return float64(d.Round(time.Microsecond)/time.Microsecond) / 1e6
}

// rounded is a duration as people read it.
func rounded(d time.Duration) time.Duration {
	switch {
	case d < 10*time.Millisecond:
		return d.Round(10 * time.Microsecond)
	case d < 10*time.Second:
		return d.Round(time.Millisecond)
	}
	return d.Round(100 * time.Millisecond)
}

// mostBrief bounds the errors in lines, in bytes.
const mostBrief = 300

// briefly is what an error says, without what a builder has printed, which is
// the business of whoever has its log.
func briefly(err error) string {
	text := worker.PlainText(err)
	if _, reason, ok := strings.Cut(text, "Reason: "); ok {
		text = reason
	}
	text, _, _ = strings.Cut(text, "\n")
	if len(text) > mostBrief {
		text = strings.ToValidUTF8(text[:mostBrief], "") + "..."
	}
	return strings.TrimRight(text, ". ")
}

// mostLines bounds the lines that wait to be written.
const mostLines = 4096

// lineQueue has lines written by a goroutine of its own: whoever tells of something may
// hold locks, and has no time to wait for a disk or a journal.
type lineQueue struct {
	queue chan func(*zerolog.Logger)
	wait  sync.WaitGroup

	mu      sync.RWMutex // held for writing when the queue is closed
	closed  bool
	dropped atomic.Uint64
}

func startLines(log zerolog.Logger) *lineQueue {
	l := &lineQueue{queue: make(chan func(*zerolog.Logger), mostLines)}
	l.wait.Go(func() {
		for line := range l.queue {
			line(&log)
			if n := l.dropped.Swap(0); n > 0 {
				log.Warn().Uint64("lines", n).Msg("lines of the log were dropped because they could not be written in time")
			}
		}
	})
	return l
}

func (l *lineQueue) add(line func(*zerolog.Logger)) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.closed {
		return
	}
	select {
	case l.queue <- line:
	default:
		l.dropped.Add(1)
	}
}

// close waits until all is written.
func (l *lineQueue) close() {
	l.mu.Lock()
	if !l.closed {
		l.closed = true
		close(l.queue)
	}
	l.mu.Unlock()
	l.wait.Wait()
}
