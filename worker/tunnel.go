package worker

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"nixdaemon/protocol"
	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/wire"
)

const (
	// flushDelay is how long a log frame may wait for company before it is
	// sent: too short to be noticed, long enough to spare a busy build most of
	// its writes.
	flushDelay = 5 * time.Millisecond

	// maxQueue bounds the frames that wait for the client, in bytes.
	maxQueue = 1 << 20

	// stallTime is how long who logs waits for a client that does not read.
	// The same build may have other clients, which must not wait for long.
	stallTime = 5 * time.Second

	// keptQueue is the largest buffer that is kept for later.
	keptQueue = 64 << 10
)

// tunnel carries what happens during a request to the client. Outside of work
// the protocol has no place for it: frames are kept for the next request, as
// upstream does.
//
// Frames are gathered in a queue and written by one goroutine at a time, never
// with mu held, so that who logs does not wait for the client's socket. A
// client that is merely slow slows who logs down; one that has stopped reading
// misses messages and is told how many.
type tunnel struct {
	// out belongs to whoever has set busy, and outside of work to the
	// connection's goroutine.
	out *protocol.Writer
	// stall is stallTime, but for tests.
	stall time.Duration

	// also receives everything that the client may see, and file is where that
	// goes; both nil for none. They do not change once the tunnel is used.
	also activity.Sink
	file io.Closer

	mu      sync.Mutex
	free    sync.Cond // busy has become false
	level   activity.Level
	working bool
	busy    bool
	broken  bool // the client is gone; everything is dropped
	stalled bool // the client reads nothing; nobody waits for it
	dropped int
	queue   frameQueue
	spare   frameQueue
	frames  *protocol.Writer // encodes into queue
	room    chan struct{}    // closed when something was written; nil if nobody waits
	// lastFlush and timer spread writes; the timer is nil when none is due.
	lastFlush time.Time
	timer     *time.Timer
}

var _ activity.Sink = (*tunnel)(nil)

// frameQueue is memory that frames are encoded into.
type frameQueue []byte

// Write appends.
func (q *frameQueue) Write(p []byte) (int, error) {
	*q = append(*q, p...)
	return len(p), nil
}

func newTunnel(out *protocol.Writer, level activity.Level) *tunnel {
	t := &tunnel{out: out, level: level, stall: stallTime}
	t.free.L = &t.mu
	t.frames = protocol.NewWriter(wire.NewWriterSize(&t.queue, 512), out.Dir, out.Version)
	return t
}

// shows tells whether the client wants messages of a level.
func (t *tunnel) shows(level activity.Level) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return level <= t.level
}

func (t *tunnel) setLevel(level activity.Level) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.level = level
}

// startWork lets frames through, those that waited first.
func (t *tunnel) startWork() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.working = true
	t.schedule()
}

// stopWork keeps frames back that come later, and writes those that wait.
// Afterwards out belongs to the caller, who flushes it.
func (t *tunnel) stopWork() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.working {
		return
	}
	t.working = false
	if t.timer != nil {
		t.timer.Stop()
		t.timer = nil
	}
	for t.busy {
		t.free.Wait()
	}
	data := t.take()
	t.out.Write(data)
	t.written(data, nil)
}

// exclusive runs f with out to itself, after all frames that wait, for frames
// that the client answers.
func (t *tunnel) exclusive(f func(*protocol.Writer) error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for t.busy {
		t.free.Wait()
	}
	return t.write(f)
}

// write sends what waits, then lets f write. It is called with mu held and
// gives it up meanwhile.
func (t *tunnel) write(f func(*protocol.Writer) error) error {
	data := t.take()
	t.busy = true
	t.mu.Unlock()
	t.out.Write(data)
	err := f(t.out)
	t.mu.Lock()
	t.busy = false
	t.lastFlush = time.Now()
	t.written(data, err)
	t.free.Broadcast()
	t.schedule()
	return err
}

// take gives what waits to the caller, who gives its memory back to written.
func (t *tunnel) take() frameQueue {
	if t.dropped > 0 {
		t.frames.LogLine(fmt.Sprintf("%s%d log messages were dropped because they were not read in time\n", warningPrefix, t.dropped))
		t.frames.Flush()
		t.dropped = 0
	}
	data := t.queue
	t.queue, t.spare = t.spare, nil
	return data
}

func (t *tunnel) written(data frameQueue, err error) {
	if cap(data) <= keptQueue {
		t.spare = data[:0]
	}
	t.stalled = false
	if err != nil {
		t.broken = true
		t.queue = nil
	}
	t.wake()
}

// wake lets those look again who wait for room.
func (t *tunnel) wake() {
	if t.room != nil {
		close(t.room)
		t.room = nil
	}
}

// schedule sees to it that what waits is written: at once after a quiet time,
// else a little later together with what follows.
func (t *tunnel) schedule() {
	if !t.working || t.busy || t.timer != nil || len(t.queue) == 0 {
		return
	}
	delay := time.Duration(0)
	if time.Since(t.lastFlush) < flushDelay {
		delay = flushDelay
	}
	t.timer = time.AfterFunc(delay, t.flush)
}

// flush writes what waits. It may be called late, when there is nothing left
// to do or out belongs to somebody else.
func (t *tunnel) flush() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.timer = nil
	if !t.working || t.busy {
		return
	}
	if len(t.queue) > 0 {
		t.write(func(out *protocol.Writer) error { return out.Flush() })
	}
}

// send queues a frame. What must not be lost is queued even for a client that
// has stalled, up to a second bound.
func (t *tunnel) send(must bool, encode func(*protocol.Writer)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.broken {
		return
	}
	if !t.admits(must) {
		t.dropped++
		return
	}
	encode(t.frames)
	t.frames.Flush()
	t.schedule()
}

func (t *tunnel) admits(must bool) bool {
	if must {
		return len(t.queue) < 2*maxQueue
	}
	for t.working && !t.stalled && !t.broken && len(t.queue) >= maxQueue {
		t.waitForRoom()
	}
	return len(t.queue) < maxQueue && !t.broken
}

// waitForRoom gives up mu until something was written, or long enough to call
// the client stalled.
func (t *tunnel) waitForRoom() {
	if t.room == nil {
		t.room = make(chan struct{})
	}
	room := t.room
	t.schedule()
	t.mu.Unlock()
	timer := time.NewTimer(t.stall)
	defer timer.Stop()
	late := false
	select {
	case <-room:
	case <-timer.C:
		late = true
	}
	t.mu.Lock()
	if late && t.room == room {
		t.stalled = true
		t.wake()
	}
}

// Message sends a log line of the client's verbosity or below.
func (t *tunnel) Message(level activity.Level, text string) {
	if !t.shows(level) {
		return
	}
	if t.also != nil {
		t.also.Message(level, text)
	}
	t.sendLine(text)
}

func (t *tunnel) sendLine(text string) {
	t.send(false, func(w *protocol.Writer) { w.LogLine(text + "\n") })
}

// debugOp tells of a request that begins, to those who want to know
// everything (daemon.cc, processConnection).
func (t *tunnel) debugOp(op protocol.Op) {
	if t.shows(activity.Debug) {
		t.Message(activity.Debug, fmt.Sprintf("performing daemon worker op: %d", uint64(op)))
	}
}

// Start sends the start of an activity; to clients before 1.20, which know
// none, its text as a log line.
func (t *tunnel) Start(id activity.ID, level activity.Level, kind activity.Type, text string, fields []activity.Field, parent activity.ID) {
	if t.also != nil {
		t.also.Start(id, level, kind, text, fields, parent)
	}
	if !t.out.Version.AtLeast(20) {
		if text != "" && t.shows(level) {
			t.sendLine(text + "...")
		}
		return
	}
	t.send(true, func(w *protocol.Writer) { w.StartActivity(id, level, kind, text, fields, parent) })
}

// Stop sends the end of an activity.
func (t *tunnel) Stop(id activity.ID) {
	if t.also != nil {
		t.also.Stop(id)
	}
	if t.out.Version.AtLeast(20) {
		t.send(true, func(w *protocol.Writer) { w.StopActivity(id) })
	}
}

// Result sends a result of an activity.
func (t *tunnel) Result(id activity.ID, kind activity.ResultType, fields []activity.Field) {
	if t.also != nil {
		t.also.Result(id, kind, fields)
	}
	if t.out.Version.AtLeast(20) {
		t.send(false, func(w *protocol.Writer) { w.Result(id, kind, fields) })
	}
}

// warningPrefix is how upstream marks warnings (libutil/logging.cc, warn).
const warningPrefix = magenta + "warning:" + normal + " "

// warn sends a warning.
func (t *tunnel) warn(text string) {
	t.Message(activity.Warn, warningPrefix+strings.TrimSuffix(text, "\n"))
}
