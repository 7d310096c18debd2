package activity

import "sync"

// Relay is a Sink whose destination may change while something tells it
// things, such as that of a connection which serves one asker after the other.
// The zero value drops everything.
type Relay struct {
	mu sync.RWMutex
	to Sink
}

var _ Sink = (*Relay)(nil)

// Turn has everything from now on go to another sink; nil drops it.
func (r *Relay) Turn(to Sink) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.to = to
}

func (r *Relay) sink() Sink {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if r.to == nil {
		return Discard{}
	}
	return r.to
}

// Message passes a message on.
func (r *Relay) Message(level Level, text string) { r.sink().Message(level, text) }

// Start passes the start of an activity on.
func (r *Relay) Start(id ID, level Level, kind Type, text string, fields []Field, parent ID) {
	r.sink().Start(id, level, kind, text, fields, parent)
}

// Stop passes the end of an activity on.
func (r *Relay) Stop(id ID) { r.sink().Stop(id) }

// Result passes a result on.
func (r *Relay) Result(id ID, kind ResultType, fields []Field) { r.sink().Result(id, kind, fields) }
