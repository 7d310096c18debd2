package daemon

import (
	"time"

	"nixdaemon/localstore/gc"
	"nixdaemon/protocol"
	"nixdaemon/worker"
	"nixdaemon/worker/build"
	"nixdaemon/worker/substitute"
)

// Connection is a client that was let in.
type Connection struct {
	Peer
	// Since is when it connected.
	Since time.Time
}

// ConnectionObserver is told of clients, for status, metrics and logs. Its
// methods are called on the connection's goroutine and return at once.
type ConnectionObserver interface {
	// Connected tells of a client that was let in. What it gives is told of the
	// client's requests, and of its end.
	Connected(c Connection) ClientObserver
}

// ClientObserver is told what one client does.
type ClientObserver interface {
	worker.Observer
	// Disconnected tells that the connection has ended, err being why if that
	// was not the client's doing.
	Disconnected(err error)
}

// observers are all who are told what the daemon does; each list is in the
// order in which they are told. It is not changed once the daemon serves.
type observers struct {
	builds      []build.Observer
	fetches     []substitute.Observer
	collections []gc.Observer
	connections []ConnectionObserver
	recovery    recovery
}

var (
	_ build.Observer      = (*observers)(nil)
	_ substitute.Observer = (*observers)(nil)
	_ gc.Observer         = (*observers)(nil)
	_ ConnectionObserver  = (*observers)(nil)
)

// add has somebody told of everything that it has methods for.
func (o *observers) add(who any) {
	if b, ok := who.(build.Observer); ok {
		o.builds = append(o.builds, b)
	}
	if f, ok := who.(substitute.Observer); ok {
		o.fetches = append(o.fetches, f)
	}
	if c, ok := who.(gc.Observer); ok {
		o.collections = append(o.collections, c)
	}
	if c, ok := who.(ConnectionObserver); ok {
		o.connections = append(o.connections, c)
	}
}

// BuildQueued tells all.
func (o *observers) BuildQueued(b build.QueuedBuild) {
	for _, to := range o.builds {
		to.BuildQueued(b)
	}
}

// BuildWaits tells all.
func (o *observers) BuildWaits(id build.BuildID, reason string) {
	for _, to := range o.builds {
		to.BuildWaits(id, reason)
	}
}

// BuildRuns tells all.
func (o *observers) BuildRuns(id build.BuildID) {
	for _, to := range o.builds {
		to.BuildRuns(id)
	}
}

// BuildBegan tells all.
func (o *observers) BuildBegan(id build.BuildID, machine string) {
	for _, to := range o.builds {
		to.BuildBegan(id, machine)
	}
}

// BuildPhase tells all.
func (o *observers) BuildPhase(id build.BuildID, phase string) {
	for _, to := range o.builds {
		to.BuildPhase(id, phase)
	}
}

// BuildEnded tells all.
func (o *observers) BuildEnded(id build.BuildID, b build.EndedBuild) {
	for _, to := range o.builds {
		to.BuildEnded(id, b)
	}
}

// FetchBegan tells all.
func (o *observers) FetchBegan(f substitute.Fetch) {
	for _, to := range o.fetches {
		to.FetchBegan(f)
	}
}

// FetchEnded tells all.
func (o *observers) FetchEnded(f substitute.Fetch, e substitute.FetchEnd) {
	for _, to := range o.fetches {
		to.FetchEnded(f, e)
	}
}

// CollectionBegan tells all.
func (o *observers) CollectionBegan(c gc.Collection) {
	for _, to := range o.collections {
		to.CollectionBegan(c)
	}
}

// CollectionEnded tells all.
func (o *observers) CollectionEnded(c gc.Collection, e gc.CollectionEnd) {
	for _, to := range o.collections {
		to.CollectionEnded(c, e)
	}
}

// Connected tells all.
func (o *observers) Connected(c Connection) ClientObserver {
	all := make(clientObservers, len(o.connections))
	for i, to := range o.connections {
		all[i] = to.Connected(c)
	}
	return all
}

// clientObservers are told what one client does.
type clientObservers []ClientObserver

// OpBegan tells all.
func (o clientObservers) OpBegan(op protocol.Op) {
	for _, to := range o {
		to.OpBegan(op)
	}
}

// OpEnded tells all.
func (o clientObservers) OpEnded(op protocol.Op, err error) {
	for _, to := range o {
		to.OpEnded(op, err)
	}
}

// Disconnected tells all.
func (o clientObservers) Disconnected(err error) {
	for _, to := range o {
		to.Disconnected(err)
	}
}
