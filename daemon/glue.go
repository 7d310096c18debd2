package daemon

import (
	"context"
	"maps"
	"slices"

	"nixdaemon/localstore/gc"
	"nixdaemon/protocol"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker"
	"nixdaemon/worker/build"
	"nixdaemon/worker/session"
)

// builder lets a worker use the scheduler: they do not know each other.
type builder struct {
	*build.Scheduler
	auto autoGC
}

var _ worker.Builder = builder{}

// QueryMissing puts the scheduler's answer into the protocol's words.
func (b builder) QueryMissing(ctx context.Context, sess *session.Session, paths []derivation.DerivedPath) (protocol.Missing, error) {
	m, err := b.Scheduler.QueryMissing(ctx, sess, paths)
	return missing(m), err
}

func missing(m build.Missing) protocol.Missing {
	return protocol.Missing{
		WillBuild: m.WillBuild, WillSubstitute: m.WillSubstitute, Unknown: m.Unknown,
		DownloadSize: m.DownloadSize, NarSize: m.NarSize,
	}
}

// collector lets a worker use the garbage collector.
type collector struct{ gc *gc.Collector }

var _ worker.Collector = collector{}

// FindRoots lists the roots by target, then by link.
func (c collector) FindRoots(ctx context.Context, sess *session.Session, censor bool) ([]protocol.Root, error) {
	found, err := c.gc.FindRoots(ctx, censor, sess.Log)
	if err != nil {
		return nil, err
	}
	var roots []protocol.Root
	for _, target := range slices.SortedFunc(maps.Keys(found), storepath.Compare) {
		for _, link := range found[target] {
			roots = append(roots, protocol.Root{Link: link, Target: target})
		}
	}
	return roots, nil
}

// Collect runs a collection with the client's settings.
func (c collector) Collect(ctx context.Context, sess *session.Session, req protocol.GCRequest) (protocol.GCResults, error) {
	res, err := c.gc.Collect(ctx, gc.Request{
		Action: gc.Action(req.Action), WholeStore: req.WholeStore, Paths: req.Paths,
		DeleteReferrers: req.DeleteReferrers, MaxFreed: req.MaxFreed,
		KeepOutputs: sess.Settings.KeepOutputs, KeepDerivations: sess.Settings.KeepDerivations,
		Log: sess.Log, For: sess.User,
	})
	return protocol.GCResults{Paths: res.Paths, BytesFreed: res.BytesFreed}, err
}
