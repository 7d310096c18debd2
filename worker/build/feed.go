package build

import (
	"slices"
	"sync"

	"nixdaemon/protocol/activity"
)

// replayBytes bounds what a feed keeps of its past for those who join late and for the tail of a failure's text.
const replayBytes = 256 << 10

// feed passes what one job tells to all who subscribe to it, and keeps the recent past.
// It is itself a Sink. Once closed it drops everything.
type feed struct {
	mu     sync.Mutex
	sinks  []activity.Sink
	closed bool
	live   []started // activities that have not stopped, in order
	ended  []started // builds that have stopped, for who joins late
	past   []event   // recent results and messages, oldest first, behind gone ones that were dropped
	gone   int
	size   int // bytes in past

	latest latest
}

// latest is what people want to know first about a builder. It has a mutex of its own, which is never held for long: that
// of a feed is while clients take what they are told.
type latest struct {
	phases func(phase string) // is told of phases; set before there are any, may be nil

	mu          sync.Mutex
	phase, line string // what the builder has announced last, and the last line of its log
}

// keptBuilds is how many of the builds that have stopped are remembered: a job has more than one only when machines fail.
const keptBuilds = 8

type started struct {
	id     activity.ID
	level  activity.Level
	kind   activity.Type
	text   string
	fields []activity.Field
	parent activity.ID
}

// event is a message (id 0) or a result.
type event struct {
	id     activity.ID
	level  activity.Level
	text   string
	kind   activity.ResultType
	fields []activity.Field
	nested bool // of a build within this one
}

var _ activity.Sink = (*feed)(nil)

// join adds a subscriber and tells it what has happened. Builds that are over are told of to sure, which may be another
// way to the same subscriber: one on which nothing is held back because of a failure, which may be that very build's.
func (f *feed) join(sink, sure activity.Sink) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, a := range f.ended {
		sure.Start(a.id, a.level, a.kind, a.text, a.fields, a.parent)
		for _, e := range f.recent() {
			if e.id == a.id {
				sure.Result(e.id, e.kind, e.fields)
			}
		}
		sure.Stop(a.id)
	}
	if f.closed {
		sink = sure
	} else {
		f.sinks = append(f.sinks, sink)
	}
	for _, a := range f.live {
		sink.Start(a.id, a.level, a.kind, a.text, a.fields, a.parent)
	}
	for _, e := range f.recent() {
		if e.id == 0 {
			sink.Message(e.level, e.text)
		} else if f.isLive(e.id) {
			sink.Result(e.id, e.kind, e.fields)
		}
	}
}

// leave removes a subscriber; for it, everything stops.
func (f *feed) leave(sink activity.Sink) {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := slices.Index(f.sinks, sink)
	if i < 0 {
		return
	}
	f.sinks = slices.Delete(f.sinks, i, i+1)
	for _, a := range slices.Backward(f.live) {
		sink.Stop(a.id)
	}
}

// close stops what still runs and forgets the subscribers; the past stays for [feed.tail].
func (f *feed) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, a := range slices.Backward(f.live) {
		for _, s := range f.sinks {
			s.Stop(a.id)
		}
		f.end(a)
	}
	f.sinks, f.live, f.closed = nil, nil, true
}

// Message passes a message on.
func (f *feed) Message(level activity.Level, text string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.sinks {
		s.Message(level, text)
	}
	f.remember(event{level: level, text: text}, len(text))
}

// Start passes the start of an activity on.
func (f *feed) Start(id activity.ID, level activity.Level, kind activity.Type, text string, fields []activity.Field, parent activity.ID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.sinks {
		s.Start(id, level, kind, text, fields, parent)
	}
	if !f.closed {
		f.live = append(f.live, started{id, level, kind, text, fields, parent})
	}
}

// Stop passes the end of an activity on.
func (f *feed) Stop(id activity.ID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := slices.IndexFunc(f.live, func(a started) bool { return a.id == id })
	if i < 0 {
		return
	}
	f.end(f.live[i])
	f.live = slices.Delete(f.live, i, i+1)
	for _, s := range f.sinks {
		s.Stop(id)
	}
}

// end notes that an activity has stopped.
func (f *feed) end(a started) {
	if a.kind != activity.Build {
		return
	}
	if len(f.ended) == keptBuilds {
		f.ended = slices.Delete(f.ended, 0, 1)
	}
	f.ended = append(f.ended, a)
}

// Result passes a result on.
func (f *feed) Result(id activity.ID, kind activity.ResultType, fields []activity.Field) {
	f.latest.note(kind, fields)
	f.result(id, kind, fields, false)
}

// note takes in what a builder says.
func (l *latest) note(kind activity.ResultType, fields []activity.Field) {
	if kind != activity.BuildLogLine && kind != activity.SetPhase || len(fields) == 0 {
		return
	}
	text := fields[0].Text
	l.mu.Lock()
	if kind == activity.BuildLogLine {
		l.line = text
	} else {
		l.phase = text
	}
	l.mu.Unlock()
	if kind == activity.SetPhase && l.phases != nil {
		l.phases(text)
	}
}

func (l *latest) get() (phase, line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.phase, l.line
}

func (f *feed) result(id activity.ID, kind activity.ResultType, fields []activity.Field, nested bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.sinks {
		s.Result(id, kind, fields)
	}
	if kind == activity.BuildLogLine || kind == activity.SetPhase {
		f.remember(event{id: id, kind: kind, fields: fields, nested: nested}, len(fields[0].Text))
	}
}

// remember keeps an event and drops the oldest ones beyond the bound.
func (f *feed) remember(e event, size int) {
	const overhead = 64
	f.past = append(f.past, e)
	f.size += size + overhead
	for f.size > replayBytes && f.gone < len(f.past)-1 {
		f.size -= f.past[f.gone].bytes() + overhead
		f.past[f.gone] = event{}
		f.gone++
	}
	// Moving what is left costs more than the event, so that is done only when as many have gone.
	if f.gone > 0 && f.gone >= len(f.past)/2 {
		f.past = slices.Delete(f.past, 0, f.gone)
		f.gone = 0
	}
}

// recent are the events that are remembered.
func (f *feed) recent() []event { return f.past[f.gone:] }

func (e *event) bytes() int {
	if e.id == 0 {
		return len(e.text)
	}
	return len(e.fields[0].Text)
}

func (f *feed) isLive(id activity.ID) bool {
	return slices.ContainsFunc(f.live, func(a started) bool { return a.id == id })
}

// tail is the last lines of the builder's log, at most n of them.
func (f *feed) tail(n uint64) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var lines []string
	for _, e := range slices.Backward(f.recent()) {
		if uint64(len(lines)) >= n {
			break
		}
		if e.kind == activity.BuildLogLine && !e.nested {
			lines = append(lines, e.fields[0].Text)
		}
	}
	slices.Reverse(lines)
	return lines
}
