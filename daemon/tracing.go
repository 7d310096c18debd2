package daemon

import (
	"sync"
	"time"

	"github.com/rs/zerolog"

	"nixdaemon/daemon/status/meter"
	"nixdaemon/daemon/status/traces"
	"nixdaemon/localstore/gc"
	"nixdaemon/protocol"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker/build"
	"nixdaemon/worker/settings"
	"nixdaemon/worker/substitute"
)

// tracer makes spans of what the daemon does: each connection is a trace, with
// the builds that it was the first to want, the builders that ran for these,
// their phases, and the paths that were fetched for it. Collections are traces
// of their own.
type tracer struct {
	exporter *traces.Exporter
	dir      storepath.Dir

	mu      sync.Mutex
	clients map[uint64]place
	builds  map[build.BuildID]*tracedBuild
}

// place is where spans of a connection hang.
type place struct {
	trace traces.TraceID
	span  traces.SpanID
}

// tracedBuild is a build that has not ended.
type tracedBuild struct {
	in         place
	id, runs   traces.SpanID
	phase      string
	phaseBegan time.Time
}

var (
	_ build.Observer      = (*tracer)(nil)
	_ substitute.Observer = (*tracer)(nil)
	_ gc.Observer         = (*tracer)(nil)
	_ ConnectionObserver  = (*tracer)(nil)
)

// startTracer begins to send spans to an endpoint.
func startTracer(endpoint string, dir storepath.Dir, log zerolog.Logger) (*tracer, error) {
	e, err := traces.Start(traces.Options{Endpoint: endpoint, Version: NixVersion, Log: func(err error) {
		log.Warn().Err(err).Msg("cannot send traces")
	}})
	if err != nil {
		return nil, err
	}
	return &tracer{exporter: e, dir: dir, clients: make(map[uint64]place), builds: make(map[build.BuildID]*tracedBuild)}, nil
}

// of is where the spans of a client hang: in a trace of their own if it has gone.
func (t *tracer) of(client uint64) place {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.ofLocked(client)
}

func (t *tracer) ofLocked(client uint64) place {
	if p, ok := t.clients[client]; ok {
		return p
	}
	return place{trace: traces.NewTrace()}
}

// Connected begins a trace.
func (t *tracer) Connected(c Connection) ClientObserver {
	p := place{traces.NewTrace(), traces.NewSpan()}
	t.mu.Lock()
	t.clients[c.Client] = p
	t.mu.Unlock()
	return &tracedClient{t: t, c: c, in: p}
}

// tracedClient is a client that is connected.
type tracedClient struct {
	t        *tracer
	c        Connection
	in       place
	requests int64
}

// OpBegan is part of worker.Observer.
func (c *tracedClient) OpBegan(protocol.Op) { c.requests++ }

// OpEnded is part of worker.Observer.
func (c *tracedClient) OpEnded(protocol.Op, error) {}

// Disconnected ends the span of the connection.
func (c *tracedClient) Disconnected(err error) {
	c.t.mu.Lock()
	delete(c.t.clients, c.c.Client)
	c.t.mu.Unlock()
	s := traces.Span{
		Trace: c.in.trace, ID: c.in.span, Name: "connection", Server: true, Start: c.c.Since, End: time.Now(),
		Attributes: []traces.Attribute{{Name: "user", Value: c.c.User}, {Name: "trusted", Value: c.c.Trusted}, {Name: "requests", Value: c.requests}},
	}
	if reason := endReason(err); reason != "" {
		s.Failed, s.Error = true, reason
	}
	c.t.exporter.End(s)
}

// BuildQueued notes where a build hangs.
func (t *tracer) BuildQueued(b build.QueuedBuild) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.builds[b.ID] = &tracedBuild{in: t.ofLocked(b.For.Client), id: traces.NewSpan(), runs: traces.NewSpan()}
}

// BuildWaits is part of build.Observer.
func (t *tracer) BuildWaits(build.BuildID, string) {}

// BuildRuns is part of build.Observer.
func (t *tracer) BuildRuns(build.BuildID) {}

// BuildBegan begins to tell phases apart.
func (t *tracer) BuildBegan(id build.BuildID, _ string) { t.enters(id, "", time.Now()) }

// BuildPhase ends the phase before.
func (t *tracer) BuildPhase(id build.BuildID, phase string) { t.enters(id, phase, time.Now()) }

// mostPhase bounds the names of phases, which builders choose, in bytes.
const mostPhase = 100

func (t *tracer) enters(id build.BuildID, phase string, now time.Time) {
	phase = phase[:min(len(phase), mostPhase)]
	t.mu.Lock()
	defer t.mu.Unlock()
	if b := t.builds[id]; b != nil {
		t.phaseEnds(b, now)
		b.phase, b.phaseBegan = phase, now
	}
}

func (t *tracer) phaseEnds(b *tracedBuild, now time.Time) {
	if b.phase != "" {
		t.exporter.End(traces.Span{Trace: b.in.trace, ID: traces.NewSpan(), Parent: b.runs, Name: "phase " + b.phase, Start: b.phaseBegan, End: now})
	}
}

// BuildEnded ends the spans of a build and of its builder.
func (t *tracer) BuildEnded(id build.BuildID, e build.EndedBuild) {
	t.mu.Lock()
	b := t.builds[id]
	delete(t.builds, id)
	if b != nil {
		t.phaseEnds(b, e.Ended)
	}
	t.mu.Unlock()
	if b == nil {
		return
	}
	s := traces.Span{
		Trace: b.in.trace, ID: b.id, Parent: b.in.span, Name: "build", Start: e.Time, End: e.Ended,
		Attributes: []traces.Attribute{{Name: "derivation", Value: t.dir.Print(e.Drv)}, {Name: "user", Value: e.For.User}, {Name: "status", Value: meter.BuildOutcome(e)}},
	}
	if e.Err != nil {
		s.Failed, s.Error = true, briefly(e.Err)
	}
	t.exporter.End(s)
	if e.Began.IsZero() {
		return
	}
	machine := "local"
	if e.Machine != "" {
		machine = settings.ShownReference(e.Machine)
	}
	t.exporter.End(traces.Span{
		Trace: b.in.trace, ID: b.runs, Parent: b.id, Name: "builder", Start: e.Began, End: e.Ended, Failed: s.Failed, Error: s.Error,
		Attributes: []traces.Attribute{{Name: "machine", Value: machine}, {Name: "cpu_seconds", Value: seconds(e.CPUUser + e.CPUSystem)}},
	})
}

// FetchBegan is part of substitute.Observer.
func (t *tracer) FetchBegan(substitute.Fetch) {}

// FetchEnded makes the span of a substitution.
func (t *tracer) FetchEnded(f substitute.Fetch, e substitute.FetchEnd) {
	in := t.of(f.Client)
	s := traces.Span{
		Trace: in.trace, ID: traces.NewSpan(), Parent: in.span, Name: "substitution", Start: f.Began, End: e.Ended,
		Attributes: []traces.Attribute{
			{Name: "path", Value: t.dir.Print(f.Path)}, {Name: "cache", Value: settings.ShownReference(f.Cache)},
			{Name: "user", Value: f.User}, {Name: "nar_bytes", Value: int64(e.Done)},
		},
	}
	if e.Err != nil {
		s.Failed, s.Error = true, briefly(e.Err)
	}
	t.exporter.End(s)
}

// CollectionBegan is part of gc.Observer.
func (t *tracer) CollectionBegan(gc.Collection) {}

// CollectionEnded makes the span of a collection.
func (t *tracer) CollectionEnded(c gc.Collection, e gc.CollectionEnd) {
	s := traces.Span{
		Trace: traces.NewTrace(), ID: traces.NewSpan(), Name: "collection", Start: c.Began, End: e.Ended,
		Attributes: []traces.Attribute{
			{Name: "action", Value: meter.GCAction(c.Action)}, {Name: "user", Value: c.For},
			{Name: "paths", Value: int64(e.Paths)}, {Name: "freed_bytes", Value: int64(e.BytesFreed)},
		},
	}
	if e.Err != nil {
		s.Failed, s.Error = true, briefly(e.Err)
	}
	t.exporter.End(s)
}
