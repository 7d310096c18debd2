package remote

import (
	"sync"

	"nixdaemon/protocol/activity"
)

// maxOpen bounds the activities that another machine may have open at once.
const maxOpen = 64 << 10

// renumber gives another machine's activities numbers of ours.
type renumber struct {
	to  activity.Sink
	ids *activity.IDs

	mu   sync.Mutex
	open map[activity.ID]activity.ID
}

var _ activity.Sink = (*renumber)(nil)

// Message passes a message on.
func (r *renumber) Message(level activity.Level, text string) { r.to.Message(level, text) }

// Start passes the start of an activity on.
func (r *renumber) Start(id activity.ID, level activity.Level, kind activity.Type, text string, fields []activity.Field, parent activity.ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, again := r.open[id]; again || len(r.open) >= maxOpen {
		return
	}
	if r.open == nil {
		r.open = make(map[activity.ID]activity.ID)
	}
	r.open[id] = r.ids.Next()
	r.to.Start(r.open[id], level, kind, text, fields, r.open[parent])
}

// Stop passes the end of an activity on.
func (r *renumber) Stop(id activity.ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if ours, ok := r.open[id]; ok {
		delete(r.open, id)
		r.to.Stop(ours)
	}
}

// Result passes a result on. Lines and phases are one text each; that is relied on.
func (r *renumber) Result(id activity.ID, kind activity.ResultType, fields []activity.Field) {
	r.mu.Lock()
	defer r.mu.Unlock()
	ours, ok := r.open[id]
	if ok && (kind == activity.BuildLogLine || kind == activity.SetPhase) {
		ok = len(fields) == 1 && fields[0].IsText
	}
	if ok {
		r.to.Result(ours, kind, fields)
	}
}

// end stops what was left open.
func (r *renumber) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, ours := range r.open {
		r.to.Stop(ours)
	}
	r.open = nil
}
