package substitute

import (
	"slices"
	"sync"

	"nixdaemon/protocol/activity"
)

// audience is all those who wait for one piece of work: a Sink that passes on what it is told. Who comes late is told
// of the activities that are under way and how far they are.
type audience struct {
	mu    sync.Mutex
	sinks []activity.Sink
	live  []running // in the order in which they began
}

// running is an activity that has not stopped.
type running struct {
	id       activity.ID
	level    activity.Level
	kind     activity.Type
	text     string
	fields   []activity.Field
	parent   activity.ID
	progress []activity.Field // the last result of that kind; nil for none
}

var _ activity.Sink = (*audience)(nil)

func (l *audience) join(sink activity.Sink) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sinks = append(l.sinks, sink)
	for _, r := range l.live {
		sink.Start(r.id, r.level, r.kind, r.text, r.fields, r.parent)
		if r.progress != nil {
			sink.Result(r.id, activity.Progress, r.progress)
		}
	}
}

// leave takes a sink out; for it, everything stops.
func (l *audience) leave(sink activity.Sink) {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.Index(l.sinks, sink)
	if i < 0 {
		return
	}
	l.sinks = slices.Delete(l.sinks, i, i+1)
	for _, r := range slices.Backward(l.live) {
		sink.Stop(r.id)
	}
}

// Message passes a message on.
func (l *audience) Message(level activity.Level, text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.sinks {
		s.Message(level, text)
	}
}

// Start passes the start of an activity on.
func (l *audience) Start(id activity.ID, level activity.Level, kind activity.Type, text string, fields []activity.Field, parent activity.ID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.sinks {
		s.Start(id, level, kind, text, fields, parent)
	}
	l.live = append(l.live, running{id: id, level: level, kind: kind, text: text, fields: fields, parent: parent})
}

// Stop passes the end of an activity on.
func (l *audience) Stop(id activity.ID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := l.find(id)
	if i < 0 {
		return
	}
	l.live = slices.Delete(l.live, i, i+1)
	for _, s := range l.sinks {
		s.Stop(id)
	}
}

// Result passes a result on.
func (l *audience) Result(id activity.ID, kind activity.ResultType, fields []activity.Field) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.sinks {
		s.Result(id, kind, fields)
	}
	if i := l.find(id); i >= 0 && kind == activity.Progress {
		l.live[i].progress = fields
	}
}

func (l *audience) find(id activity.ID) int {
	return slices.IndexFunc(l.live, func(r running) bool { return r.id == id })
}
