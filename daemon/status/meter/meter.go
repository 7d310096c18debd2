// Package meter counts what the daemon does, for those who watch it from afar: a
// [Meter] hears of connections, requests, builds, substitutions and collections
// as they happen, asks [Sources] for the rest when somebody reads, and keeps all
// of it in a metrics.Registry.
//
// Names begin with "nix_daemon_"; those of the process and of Go's runtime are
// Prometheus' own. Labels are bounded: operations are those of the protocol,
// users and caches at most [Members], beyond which they are "other".
package meter

import (
	"errors"
	"time"

	"nixdaemon/daemon/status/metrics"
	"nixdaemon/localstore/gc"
	"nixdaemon/protocol/derivation"
	"nixdaemon/worker/build"
	"nixdaemon/worker/settings"
	"nixdaemon/worker/substitute"
)

// Members is how many users, caches and machines are told apart.
const Members = 64

// Meter counts. Its methods may be called from any goroutine and return at once.
type Meter struct {
	Registry metrics.Registry

	users      users
	operations operations

	accepted    *metrics.CounterVec
	refused     *metrics.CounterVec
	connections metrics.Histogram

	builds     *metrics.CounterVec
	buildTime  [2]metrics.Histogram // failed, built
	buildWait  metrics.Histogram
	buildCPU   *metrics.CounterVec
	buildLogs  *metrics.Counter
	fetches    *metrics.CounterVec
	fetched    *metrics.CounterVec
	fetchTime  metrics.Histogram
	collected  *metrics.CounterVec
	deleted    *metrics.Counter
	freed      *metrics.Counter
	gcTime     metrics.Histogram
	privileged *metrics.CounterVec
}

var (
	_ build.Observer      = (*Meter)(nil)
	_ substitute.Observer = (*Meter)(nil)
	_ gc.Observer         = (*Meter)(nil)
)

// New makes a Meter for a release and a commit of the daemon.
func New(version, revision string) *Meter {
	m := &Meter{}
	r := &m.Registry
	r.Func(metrics.Desc{Name: "nix_daemon_info", Help: "Always 1; the labels tell which release and commit runs.", Kind: metrics.KindGauge, Labels: []string{"version", "revision"}},
		func(emit func(float64, ...string)) { emit(1, version, revision) })
	m.accepted = r.CounterVec("nix_daemon_connections_accepted_total", "Clients that were let in, by whether they are trusted.", 2, "trusted")
	m.refused = r.CounterVec("nix_daemon_connections_refused_total", "Clients that were not let in: by policy, by limit, or for an error.", 4, "reason")
	m.connections = r.Histogram("nix_daemon_connection_duration_seconds", "How long clients were connected, of those that are gone.", metrics.Bounds(time.Millisecond, time.Hour))
	m.operations.register(r)
	m.users.register(r)
	m.registerBuilds(r)
	m.fetches = r.CounterVec("nix_daemon_substitutions_total", "Paths that were fetched from other stores, or could not be.", 2*Members, "cache", "outcome")
	m.fetched = r.CounterVec("nix_daemon_substitution_nar_bytes_total", "Bytes of archives that came from other stores, as they are when unpacked.", Members, "cache")
	m.fetchTime = r.Histogram("nix_daemon_substitution_duration_seconds", "How long fetching a path took.", metrics.Bounds(time.Millisecond, time.Hour))
	m.collected = r.CounterVec("nix_daemon_gc_runs_total", "Collections that have ended.", 8, "action", "outcome")
	m.deleted = r.Counter("nix_daemon_gc_deleted_paths_total", "Paths that collections have deleted.")
	m.freed = r.Counter("nix_daemon_gc_freed_bytes_total", "Bytes that collections have freed.")
	m.gcTime = r.Histogram("nix_daemon_gc_duration_seconds", "How long collections took.", metrics.Bounds(time.Millisecond, time.Hour))
	m.privileged = r.CounterVec("nix_daemon_privileged_actions_total", "What was done, or refused, that takes more than a right to connect; the audit trail has each (of refusals 60 a minute for each user, then their count).", 32, "action", "outcome")
	registerProcess(r)
	return m
}

func (m *Meter) registerBuilds(r *metrics.Registry) {
	m.builds = r.CounterVec("nix_daemon_builds_total", "Builds that have ended, by status and by machine.", 4*Members, "status", "machine")
	m.buildTime = [2]metrics.Histogram{metrics.NewHistogram(buildBounds), metrics.NewHistogram(buildBounds)}
	r.Histograms(metrics.Desc{Name: "nix_daemon_build_duration_seconds", Help: "How long builders ran.", Labels: []string{"outcome"}}, func(emit func(metrics.Histogram, ...string)) {
		for i, outcome := range []string{"failed", "built"} {
			emit(m.buildTime[i], outcome)
		}
	})
	m.buildWait = r.Histogram("nix_daemon_build_wait_seconds", "How long builds waited for a slot, a machine, a lock or a user before their builders started.", buildBounds)
	m.buildCPU = r.CounterVec("nix_daemon_build_cpu_seconds_total", "Processor time of builders on this machine.", 2, "mode")
	m.buildLogs = r.Counter("nix_daemon_build_log_bytes_total", "Bytes that builders have printed.")
}

var buildBounds = metrics.Bounds(time.Millisecond, time.Hour)

// Refused counts a client that was not let in.
func (m *Meter) Refused(reason string) { m.refused.With(reason).Inc() }

// Privileged counts a privileged deed.
func (m *Meter) Privileged(action string, refused bool, err error) {
	m.privileged.With(action, privilegedOutcome(refused, err)).Inc()
}

func privilegedOutcome(refused bool, err error) string {
	switch {
	case refused:
		return "refused"
	case err != nil:
		return "failed"
	}
	return "done"
}

// BuildQueued is part of build.Observer.
func (m *Meter) BuildQueued(build.QueuedBuild) {}

// BuildWaits is part of build.Observer.
func (m *Meter) BuildWaits(build.BuildID, string) {}

// BuildRuns is part of build.Observer.
func (m *Meter) BuildRuns(build.BuildID) {}

// BuildBegan is part of build.Observer.
func (m *Meter) BuildBegan(build.BuildID, string) {}

// BuildPhase is part of build.Observer.
func (m *Meter) BuildPhase(build.BuildID, string) {}

// BuildEnded counts a build.
func (m *Meter) BuildEnded(_ build.BuildID, b build.EndedBuild) {
	machine := "local"
	if b.Machine != "" {
		machine = settings.ShownReference(b.Machine)
	}
	m.builds.With(BuildOutcome(b), machine).Inc()
	m.buildLogs.Add(b.LogSize)
	if b.Began.IsZero() {
		return
	}
	took := b.Ended.Sub(b.Began)
	outcome := 0
	if b.Err == nil {
		outcome = 1
	}
	m.buildTime[outcome].Observe(took)
	m.buildWait.Observe(b.Began.Sub(b.Time))
	if b.Machine == "" {
		m.buildCPU.With("user").AddDuration(b.CPUUser)
		m.buildCPU.With("system").AddDuration(b.CPUSystem)
	}
	u := m.users.named(b.For.User)
	u.builds.Inc()
	u.building.AddDuration(took)
}

// BuildOutcome names how a build ended: its status, or "Abandoned" if that was
// not decided.
func BuildOutcome(b build.EndedBuild) string {
	var failure *build.Failure
	if b.Err != nil && !errors.As(b.Err, &failure) {
		return "Abandoned"
	}
	if b.Err != nil && b.Status.Success() {
		return derivation.StatusMiscFailure.String()
	}
	return b.Status.String()
}

// FetchBegan is part of substitute.Observer.
func (m *Meter) FetchBegan(substitute.Fetch) {}

// FetchEnded counts a substitution.
func (m *Meter) FetchEnded(f substitute.Fetch, e substitute.FetchEnd) {
	cache := settings.ShownReference(f.Cache)
	m.fetches.With(cache, Outcome(e.Err)).Inc()
	m.fetched.With(cache).Add(e.Done)
	m.fetchTime.Observe(e.Ended.Sub(f.Began))
}

// Outcome tells success from failure.
func Outcome(err error) string {
	if err != nil {
		return "failed"
	}
	return "done"
}

// CollectionBegan is part of gc.Observer.
func (m *Meter) CollectionBegan(gc.Collection) {}

// CollectionEnded counts a collection.
func (m *Meter) CollectionEnded(c gc.Collection, e gc.CollectionEnd) {
	m.collected.With(GCAction(c.Action), Outcome(e.Err)).Inc()
	m.gcTime.Observe(e.Ended.Sub(c.Began))
	if c.Action == gc.DeleteDead || c.Action == gc.DeleteSpecific {
		m.deleted.Add(uint64(e.Paths))
		m.freed.Add(e.BytesFreed)
	}
}

// GCAction names what a collection does.
func GCAction(a gc.Action) string {
	names := [...]string{"return-live", "return-dead", "delete-dead", "delete-specific"}
	if int(a) < len(names) {
		return names[a]
	}
	return metrics.Other
}
