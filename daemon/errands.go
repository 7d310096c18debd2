package daemon

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"nixdaemon/daemon/status/daemonlog"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker"
	"nixdaemon/worker/build"
	"nixdaemon/worker/session"
)

// errands are the requests to build that wait for another daemon, which has the work and its logs: what is known here is who
// waits for what since when, and how it ended.
type errands struct {
	dir  storepath.Dir
	name string // of the other daemon
	log  zerolog.Logger

	mu   sync.Mutex
	last build.BuildID
	open map[*errand]struct{}
}

// errand is one request.
type errand struct {
	first build.BuildID // of the first of drvs; the others follow
	drvs  []storepath.Path
	// builds and paths are how many derivations and other paths were asked for, listed or not.
	builds, paths uint64
	mode          derivation.BuildMode
	client        build.ClientID
	since         time.Time
}

// mostErrands bounds the derivations of one request that are listed.
const mostErrands = 100

func newErrands(dir storepath.Dir, name string, log zerolog.Logger) *errands {
	return &errands{dir: dir, name: name, log: log, open: make(map[*errand]struct{})}
}

// begin notes a request.
func (e *errands) begin(sess *session.Session, paths []derivation.DerivedPath, mode derivation.BuildMode) *errand {
	n := &errand{mode: mode, client: build.ClientID{User: sess.User, Client: sess.Client}, since: time.Now()}
	for _, p := range paths {
		drv := p.Base()
		if p.Drv == nil {
			n.paths++
			continue
		}
		n.builds++
		if len(n.drvs) < mostErrands && !slices.Contains(n.drvs, drv) {
			n.drvs = append(n.drvs, drv)
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	n.first, e.last = e.last+1, e.last+build.BuildID(len(n.drvs))
	e.open[n] = struct{}{}
	return n
}

// end notes how a request has ended, in the log, too. failed counts derivations of which it was said that they failed,
// why is what was said of the first.
func (e *errands) end(ctx context.Context, n *errand, failed int, why string, err error) {
	e.mu.Lock()
	delete(e.open, n)
	e.mu.Unlock()
	took, outcome := time.Since(n.since), "done"
	switch {
	case err != nil && ctx.Err() != nil:
		outcome, why = "given up", briefly(context.Cause(ctx))
	case err != nil:
		outcome, why = "failed", briefly(err)
	case failed > 0:
		outcome, why = "failed", briefly(fmt.Errorf("%d failed, the first: %s", failed, why))
	}
	event := e.log.Info().Str(daemonlog.EventKey, "build-request").Str("user", n.client.User).Uint64("connection", n.client.Client).
		Str("daemon", e.name).Str("status", outcome).Float64("seconds", seconds(took)).Uint64("derivations", n.builds).Uint64("paths", n.paths)
	if len(n.drvs) > 0 {
		event = event.Strs("drv", e.named(n.drvs))
	}
	if why != "" {
		event = event.Str("error", why)
		why = ": " + why
	}
	event.Msgf("build of %s for %s by '%s' ended after %s: %s%s", e.what(n), n.client.User, e.name, rounded(took), outcome, why)
}

// mostInLine bounds the derivations that a line of the log names.
const mostInLine = 20

func (e *errands) named(drvs []storepath.Path) []string {
	var names []string
	for _, p := range drvs[:min(len(drvs), mostInLine)] {
		names = append(names, e.dir.Print(p))
	}
	return names
}

// what a request is about, in words.
func (e *errands) what(n *errand) string {
	count := n.builds + n.paths
	switch {
	case len(n.drvs) == 0 && count == 1:
		return "a path"
	case len(n.drvs) == 0:
		return fmt.Sprintf("%d paths", count)
	case count == 1:
		return "'" + e.dir.Print(n.drvs[0]) + "'"
	}
	return fmt.Sprintf("'%s' and %d more", e.dir.Print(n.drvs[0]), count-1)
}

// status lists what is waited for, each derivation once.
func (e *errands) status() build.Status {
	type key struct {
		drv  storepath.Path
		mode derivation.BuildMode
	}
	var st build.Status
	at := make(map[key]int)
	for _, n := range e.oldest() {
		for i, drv := range n.drvs {
			k := key{drv, n.mode}
			b, known := at[k]
			if !known {
				b, at[k] = len(st.Builds), len(st.Builds)
				st.Builds = append(st.Builds, build.BuildStatus{
					ID: n.first + build.BuildID(i), Drv: drv, Mode: n.mode, State: "waiting", Reason: "another daemon", Machine: e.name,
					Since: n.since, Queued: n.since,
				})
			}
			st.Builds[b].Clients = append(st.Builds[b].Clients, n.client)
		}
		st.Requests = append(st.Requests, build.RequestStatus{
			ClientID: n.client, Since: n.since, Counts: build.Counts{Builds: build.Count{Open: n.builds}, Fetches: build.Count{Open: n.paths}},
		})
	}
	return st
}

func (e *errands) oldest() []*errand {
	e.mu.Lock()
	defer e.mu.Unlock()
	var list []*errand
	for n := range e.open {
		list = append(list, n)
	}
	slices.SortFunc(list, func(a, b *errand) int { return cmp.Or(a.since.Compare(b.since), cmp.Compare(a.first, b.first)) })
	return list
}

// noting is a builder whose requests are errands.
func (e *errands) noting(b worker.Builder) worker.Builder { return errandBuilder{b, e} }

type errandBuilder struct {
	worker.Builder
	errands *errands
}

// BuildPaths makes the paths.
func (b errandBuilder) BuildPaths(ctx context.Context, sess *session.Session, paths []derivation.DerivedPath, mode derivation.BuildMode) error {
	n := b.errands.begin(sess, paths, mode)
	err := b.Builder.BuildPaths(ctx, sess, paths, mode)
	b.errands.end(ctx, n, 0, "", err)
	return err
}

// BuildPathsWithResults makes the paths and tells how each went.
func (b errandBuilder) BuildPathsWithResults(ctx context.Context, sess *session.Session, paths []derivation.DerivedPath, mode derivation.BuildMode) ([]derivation.KeyedBuildResult, error) {
	n := b.errands.begin(sess, paths, mode)
	results, err := b.Builder.BuildPathsWithResults(ctx, sess, paths, mode)
	failed, why := 0, ""
	for _, r := range results {
		if !r.Status.Success() {
			failed, why = failed+1, cmp.Or(why, r.ErrorMsg, r.Status.String())
		}
	}
	b.errands.end(ctx, n, failed, why, err)
	return results, err
}

// BuildDerivation builds a derivation that the other daemon need not have.
func (b errandBuilder) BuildDerivation(ctx context.Context, sess *session.Session, drvPath storepath.Path, drv *derivation.BasicDerivation, mode derivation.BuildMode) (derivation.BuildResult, error) {
	n := b.errands.begin(sess, []derivation.DerivedPath{{Drv: &derivation.SingleDerivedPath{Path: drvPath}}}, mode)
	result, err := b.Builder.BuildDerivation(ctx, sess, drvPath, drv, mode)
	failed := 0
	if err == nil && !result.Status.Success() {
		failed = 1
	}
	why := ""
	if failed > 0 {
		why = cmp.Or(result.ErrorMsg, result.Status.String())
	}
	b.errands.end(ctx, n, failed, why, err)
	return result, err
}

// EnsurePath makes a path valid.
func (b errandBuilder) EnsurePath(ctx context.Context, sess *session.Session, p storepath.Path) error {
	n := b.errands.begin(sess, []derivation.DerivedPath{{Path: p}}, derivation.BuildNormal)
	err := b.Builder.EnsurePath(ctx, sess, p)
	b.errands.end(ctx, n, 0, "", err)
	return err
}

// RepairPath makes the contents of a path anew.
func (b errandBuilder) RepairPath(ctx context.Context, sess *session.Session, p storepath.Path) error {
	n := b.errands.begin(sess, []derivation.DerivedPath{{Path: p}}, derivation.BuildRepair)
	err := b.Builder.RepairPath(ctx, sess, p)
	b.errands.end(ctx, n, 0, "", err)
	return err
}
