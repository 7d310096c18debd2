package worker

import (
	"strings"
	"sync"
	"time"

	"nixdaemon/protocol"
	"nixdaemon/protocol/activity"
)

// flushDelay is how long a log frame may wait for company before it is sent:
// too short to be noticed, long enough to spare a busy build most of its
// writes.
const flushDelay = 5 * time.Millisecond

// tunnel carries what happens during a request to the client. Outside of work
// the protocol has no place for it: messages are kept for the next request,
// activities and results too, as upstream does.
type tunnel struct {
	mu      sync.Mutex
	out     *protocol.Writer
	level   activity.Level
	working bool
	// pending holds what came outside of work, bounded by maxPending.
	pending []func(*protocol.Writer)
	// lastFlush and timer spread flushes; the timer is nil when nothing waits.
	lastFlush time.Time
	timer     *time.Timer
}

// maxPending bounds what is kept for a client that asks for nothing.
const maxPending = 256

var _ activity.Sink = (*tunnel)(nil)

func newTunnel(out *protocol.Writer, level activity.Level) *tunnel {
	return &tunnel{out: out, level: level}
}

func (t *tunnel) setLevel(level activity.Level) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.level = level
}

// startWork lets frames through, those that waited first.
func (t *tunnel) startWork() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.working = true
	for _, write := range t.pending {
		write(t.out)
	}
	t.pending = nil
	return nil
}

// stopWork keeps frames back. Afterwards the writer belongs to the caller.
func (t *tunnel) stopWork() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.working = false
	if t.timer != nil {
		t.timer.Stop()
		t.timer = nil
	}
}

// send writes a frame now or when work begins.
func (t *tunnel) send(write func(*protocol.Writer)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.working {
		if len(t.pending) < maxPending {
			t.pending = append(t.pending, write)
		}
		return
	}
	write(t.out)
	t.flushSoon()
}

// flushSoon flushes at once after a quiet time, else a little later together
// with what follows. Errors stick in the writer and end the connection.
func (t *tunnel) flushSoon() {
	if t.timer != nil {
		return
	}
	if now := time.Now(); now.Sub(t.lastFlush) >= flushDelay {
		t.lastFlush = now
		t.out.Flush()
		return
	}
	t.timer = time.AfterFunc(flushDelay, t.flushNow)
}

func (t *tunnel) flushNow() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.working || t.timer == nil {
		return
	}
	t.timer = nil
	t.lastFlush = time.Now()
	t.out.Flush()
}

// exclusive runs f with the writer to itself, for frames that want an answer.
func (t *tunnel) exclusive(f func(*protocol.Writer) error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return f(t.out)
}

// Message sends a log line of the client's verbosity or below.
func (t *tunnel) Message(level activity.Level, text string) {
	t.mu.Lock()
	drop := level > t.level
	t.mu.Unlock()
	if drop {
		return
	}
	line := text + "\n"
	t.send(func(w *protocol.Writer) { w.LogLine(line) })
}

// Start sends the start of an activity; to clients before 1.20, which know
// none, its text as a log line.
func (t *tunnel) Start(id activity.ID, level activity.Level, kind activity.Type, text string, fields []activity.Field, parent activity.ID) {
	if !t.out.Version.AtLeast(20) {
		if text != "" {
			t.Message(level, text+"...")
		}
		return
	}
	t.send(func(w *protocol.Writer) { w.StartActivity(id, level, kind, text, fields, parent) })
}

// Stop sends the end of an activity.
func (t *tunnel) Stop(id activity.ID) {
	if t.out.Version.AtLeast(20) {
		t.send(func(w *protocol.Writer) { w.StopActivity(id) })
	}
}

// Result sends a result of an activity.
func (t *tunnel) Result(id activity.ID, kind activity.ResultType, fields []activity.Field) {
	if t.out.Version.AtLeast(20) {
		t.send(func(w *protocol.Writer) { w.Result(id, kind, fields) })
	}
}

// warningPrefix is how upstream marks warnings (libutil/logging.cc, warn).
const warningPrefix = "\x1b[35;1mwarning:\x1b[0m "

// warn sends a warning.
func (t *tunnel) warn(text string) {
	t.Message(activity.Warn, warningPrefix+strings.TrimSuffix(text, "\n"))
}
