package daemon

import (
	"context"
	"net"

	"nixdaemon/protocol"
	"nixdaemon/protocol/derivation"
	"nixdaemon/worker"
	"nixdaemon/worker/build"
	"nixdaemon/worker/restricted"
)

// nested lets a restricted store use a build: they do not know each other.
type nested struct{ *build.Nested }

var _ restricted.Build = nested{}

// QueryMissing puts the scheduler's answer into the protocol's words.
func (n nested) QueryMissing(ctx context.Context, paths []derivation.DerivedPath) (protocol.Missing, error) {
	m, err := n.Nested.QueryMissing(ctx, paths)
	return missing(m), err
}

// serveBuilder serves a connection that a builder has made to the daemon of its
// build. Whoever asked for the build is trusted or not; the builder is not.
func (b *local) serveBuilder(ctx context.Context, conn net.Conn, n *build.Nested) error {
	store := restricted.New(b.store, nested{n})
	sess := n.Session()
	return worker.Serve(ctx, conn, worker.Options{
		Store: store, Builder: store, Collector: store, Substituter: b.subst, Roots: store, Nested: store,
		RequireSigs: b.cfg.Store.RequireSigs, Keys: b.keys.trustedKeys, NixVersion: NixVersion,
		Settings: sess.Settings, IDs: &b.ids, User: sess.User, Client: sess.Client, Memory: n, Log: b.log,
		MakeRoom: b.auto.makeRoom,
	})
}
