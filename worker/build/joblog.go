package build

import (
	"sync"
	"sync/atomic"

	"nixdaemon/protocol/activity"
)

// jobLog is a client's log as the jobs of one request see it. From the moment that one of them fails until the request
// has told its client of that, what others say waits: upstream, with one thread, starts the next build only then, and
// not at all if the failure ends the request.
type jobLog struct {
	sink activity.Sink
	held atomic.Int32

	mu     sync.Mutex
	queue  []logged
	unseen map[activity.ID]struct{} // activities whose start was dropped
}

// logged is one call that waits.
type logged struct {
	id    activity.ID // 0 for a message
	start bool
	pass  func()
}

// maxHeld bounds how many calls wait; when there are more none does.
const maxHeld = 1000

var _ activity.Sink = (*jobLog)(nil)

// hold lets calls wait. It takes no lock, since a client may be slow to take a call that is being passed on.
func (l *jobLog) hold() { l.held.Add(1) }

// release undoes so many calls of hold.
func (l *jobLog) release(holds int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held.Add(-int32(holds)) == 0 {
		l.flush()
	}
}

// tell passes on what waits, however many have failed.
func (l *jobLog) tell() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.flush()
}

func (l *jobLog) flush() {
	for _, call := range l.queue {
		call.pass()
	}
	l.queue = nil
}

// end ends all waiting for good. Activities that began meanwhile are not told of.
func (l *jobLog) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	const never = -1 << 30
	l.held.Store(never)
	l.unseen = make(map[activity.ID]struct{})
	for _, call := range l.queue {
		if call.start {
			l.unseen[call.id] = struct{}{}
		} else if _, unseen := l.unseen[call.id]; !unseen {
			call.pass()
		}
	}
	l.queue = nil
}

func (l *jobLog) call(c logged) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, unseen := l.unseen[c.id]; unseen {
		return
	}
	if l.held.Load() > 0 && len(l.queue) < maxHeld {
		l.queue = append(l.queue, c)
		return
	}
	l.flush()
	c.pass()
}

// Message passes a message on.
func (l *jobLog) Message(level activity.Level, text string) {
	l.call(logged{pass: func() { l.sink.Message(level, text) }})
}

// Start passes the start of an activity on.
func (l *jobLog) Start(id activity.ID, level activity.Level, kind activity.Type, text string, fields []activity.Field, parent activity.ID) {
	l.call(logged{id: id, start: true, pass: func() { l.sink.Start(id, level, kind, text, fields, parent) }})
}

// Stop passes the end of an activity on.
func (l *jobLog) Stop(id activity.ID) { l.call(logged{id: id, pass: func() { l.sink.Stop(id) }}) }

// Result passes a result on.
func (l *jobLog) Result(id activity.ID, kind activity.ResultType, fields []activity.Field) {
	l.call(logged{id: id, pass: func() { l.sink.Result(id, kind, fields) }})
}
