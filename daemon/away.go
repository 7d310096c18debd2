package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/rs/zerolog"

	"nixdaemon/daemon/config"
	"nixdaemon/localstore"
	"nixdaemon/protocol"
	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/storepath"
	"nixdaemon/protocol/wire"
	"nixdaemon/worker"
	"nixdaemon/worker/build"
	"nixdaemon/worker/cachestore"
	"nixdaemon/worker/dummystore"
	"nixdaemon/worker/forward"
	"nixdaemon/worker/remote"
	"nixdaemon/worker/remote/peer"
	"nixdaemon/worker/serving"
	"nixdaemon/worker/session"
	"nixdaemon/worker/settings"
	"nixdaemon/worker/substitute"
	"nixdaemon/worker/transfer/s3"
)

// away serves a store that is no directory of this machine and has no daemon that would do our work: a binary cache,
// what another machine serves by the serve protocol, or one in memory. Each connection opens it anew, as with upstream.
type away struct {
	cfg    *config.Config
	log    zerolog.Logger
	watch  *observers
	self   string // this program
	opener opener
	keys   keyring
	ids    activity.IDs

	turn   chan struct{} // held by who makes shared, which may take long
	shared *awayBuilder  // nil before the first connection

	working awayBuilders
}

// awayStore is such a store, for one connection or for the scheduler.
type awayStore interface {
	worker.Forwarder
	worker.Collector
	build.Store
	// URI names the store in messages.
	URI() string
	// Roots are the connection's temporary roots.
	Roots() worker.TempRoots
	Close() error
}

var (
	_ awayStore = (*cachestore.Store)(nil)
	_ awayStore = (*forward.Served)(nil)
	_ awayStore = (*dummystore.Store)(nil)
)

// isAway tells of a scheme whether it leads to such a store.
func isAway(scheme string) bool { return isCache(scheme) || scheme == "ssh" || scheme == "dummy" }

func newAway(cfg *config.Config, log zerolog.Logger, watch *observers) (*away, error) {
	if err := checkReference(cfg.Store.Reference); err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	b := &away{cfg: cfg, log: log, watch: watch, self: self, turn: make(chan struct{}, 1)}
	b.opener = newOpener(cfg, nil, s3.NewChain(nil), &b.ids, log)
	return b, nil
}

// checkReference finds out at once what can be found out of a reference.
func checkReference(ref settings.StoreReference) error {
	switch {
	case ref.Scheme == "ssh":
		_, err := peer.Parse(ref, peer.Defaults{})
		return err
	case ref.Scheme == "dummy":
		if ref.Authority != "" {
			return fmt.Errorf("`dummy` store URIs must not contain an authority part %s", ref.Authority)
		}
		return nil
	case strings.HasPrefix(ref.Scheme, "http") && (ref.Authority == "" || strings.HasPrefix(ref.Authority, "/")):
		return errNoAuthority(ref.Scheme)
	}
	return cachestore.Check(ref)
}

// open opens the store. log is told what is wrong with its reference.
func (b *away) open(ctx context.Context, log activity.Sink, sub func(context.Context, *session.Session, []storepath.Path) error) (awayStore, error) {
	ref := b.cfg.Store.Reference
	features := worker.DerivationFeatures(b.cfg.Settings.ExperimentalFeatures)
	if ref.Scheme == "ssh" {
		p, err := b.opener.peerStore(ctx, ref)
		if err != nil {
			return nil, err
		}
		for _, name := range p.Config().Unknown {
			substitute.Warn(log, &settings.UnknownSettingError{Name: name})
		}
		return forward.NewServed(p, features), nil
	}
	cache, err := b.opener.openBinaryCache(ctx, substitute.Asker{Settings: b.cfg.Settings, Log: log}, ref)
	if err != nil {
		return nil, err
	}
	o := cachestore.Options{
		Cache: cache, Reference: ref, Settings: b.cfg.Settings, Encoded: true, Features: features, Substitute: sub,
		RequireSigs: b.cfg.Settings.RequireSigs, Keys: b.keys.trustedKeys,
	}
	if d, ok := cache.Objects().(*substitute.Directory); ok {
		o.Names, o.Trust, o.Encoded = d.Names, protocol.Trusted, false
	}
	store, err := cachestore.New(o)
	if err != nil {
		return nil, errors.Join(err, cache.Close())
	}
	return store, nil
}

// builder makes the one scheduler, with the first connection that gets so far.
func (b *away) builder(ctx context.Context) (*awayBuilder, error) {
	select {
	case b.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	defer func() { <-b.turn }()
	if b.shared != nil {
		return b.shared, nil
	}
	store, err := b.open(ctx, sinkFor(b.log), nil)
	if err != nil {
		return nil, err
	}
	b.shared = b.newBuilder(store)
	return b.shared, nil
}

// newBuilder makes the scheduler of a store, which belongs to it. Other machines may build into the store; how busy they
// are is noted in the state directory that would be ours (build-remote.cc).
func (b *away) newBuilder(store awayStore) *awayBuilder {
	subst := newSubstituter(b.opener, store, store.URI(), b.cfg.Settings.RequireSigs, b.keys.trustedKeys, b.watch)
	machines := remote.New(remote.Options{
		Store: store, StoreURI: store.URI(), Dir: store.Dir(), StateDir: b.cfg.StateDir, SocketPath: b.cfg.SocketPath,
		Self: b.self, IDs: &b.ids, Log: b.log,
	})
	made := &awayBuilder{build.NewAway(store, &localstore.BuildLogs{Dir: b.cfg.LogDir}, build.Options{
		Substituter: subst, Remote: machines, IDs: &b.ids, Log: b.log, Features: b.cfg.Settings.ExperimentalFeatures,
		SystemFeatures: append([]string{}, b.cfg.Store.SystemFeatures...),
		Observer:       b.watch, LogSpool: spoolFor(b.cfg), Numbers: &b.working.numbers,
	}), subst, machines, store}
	b.working.add(made)
	return made
}

// inMemory makes the store of one connection that is nobody else's, and its scheduler.
func (b *away) inMemory(memory wire.Ledger) (*dummystore.Store, *awayBuilder) {
	var own *awayBuilder
	store := dummystore.New(dummystore.Options{
		Dir: storepath.Dir(b.cfg.Store.StoreDir), ReadOnly: b.cfg.Store.ReadOnly, Memory: memory,
		Features: worker.DerivationFeatures(b.cfg.Settings.ExperimentalFeatures),
		Substitute: func(ctx context.Context, sess *session.Session, paths []storepath.Path) error {
			return own.substitute(ctx, sess, paths)
		},
	})
	own = b.newBuilder(store)
	return store, own
}

// connect opens the store for one connection, with who builds in it. The connection calls done when it has ended.
func (b *away) connect(ctx context.Context, memory wire.Ledger) (_ awayStore, _ worker.Builder, _ worker.Substituter, done func() error, err error) {
	if b.cfg.Store.Reference.Scheme == "dummy" {
		store, own := b.inMemory(memory)
		return store, own, own.subst, func() error {
			b.working.remove(own)
			return own.close()
		}, nil
	}
	store, builder, subst, err := b.connectShared(ctx)
	return store, builder, subst, func() error { return nil }, err
}

func (b *away) connectShared(ctx context.Context) (awayStore, worker.Builder, worker.Substituter, error) {
	shared, err := b.builder(ctx)
	if err != nil {
		return nil, nil, nil, err
	}
	store, err := b.open(ctx, activity.Discard{}, shared.substitute) // who made the builder was told
	if err != nil {
		return nil, nil, nil, err
	}
	if served, ok := store.(*forward.Served); ok {
		return store, servedBuilder{served, shared}, servedSubstituter{shared.subst, served}, nil
	}
	return store, shared, shared.subst, nil
}

func (b *away) serve(ctx context.Context, stream io.ReadWriter, peer Peer) (err error) {
	store, builder, subst, done, err := b.connect(ctx, peer.Memory)
	if err != nil {
		return &unopenedError{error: err}
	}
	defer func() { err = errors.Join(err, done()) }()
	return worker.Serve(ctx, stream, worker.Options{
		Store: store, Builder: builder, Collector: store, Substituter: subst, Roots: store.Roots(),
		RequireSigs: b.cfg.Settings.RequireSigs, Keys: b.keys.trustedKeys, NixVersion: NixVersion,
		Settings: b.cfg.Settings, IDs: &b.ids, User: peer.User, Client: peer.Client, Trusted: peer.Trusted, Memory: peer.Memory, Log: b.log,
		Observer: peer.Observer, Audit: peer.Audit,
		JSONLog: jsonLog(b.cfg.Settings.JSONLogPath),
	})
}

// converse answers over the serve protocol.
func (b *away) converse(ctx context.Context, stream io.ReadWriter, peer Peer, write bool) (err error) {
	store, builder, _, done, err := b.connect(ctx, peer.Memory)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	return conversation(ctx, stream, b.cfg, serving.Options{
		Store: store, Builder: builder, Roots: store.Roots(), Write: write, User: peer.User, Client: peer.Client, Observer: peer.Observer,
	})
}

// close waits for what still runs.
func (b *away) close() error {
	var err error
	if b.shared != nil {
		err = b.shared.close()
	}
	return errors.Join(err, b.opener.close())
}

// awayBuilder lets workers use the scheduler of such a store.
type awayBuilder struct {
	*build.Scheduler
	subst    *substituter
	machines *remote.Builders
	store    awayStore
}

var _ worker.Builder = (*awayBuilder)(nil)

// QueryMissing puts the scheduler's answer into the protocol's words.
func (b *awayBuilder) QueryMissing(ctx context.Context, sess *session.Session, paths []derivation.DerivedPath) (protocol.Missing, error) {
	m, err := b.Scheduler.QueryMissing(ctx, sess, paths)
	return missing(m), err
}

// substitute fetches what it can. What fails is told to the session (libstore/store-api.cc, substitutePaths).
func (b *awayBuilder) substitute(ctx context.Context, sess *session.Session, paths []storepath.Path) error {
	var wanted []derivation.DerivedPath
	for _, p := range paths {
		if !p.IsDerivation() {
			wanted = append(wanted, derivation.DerivedPath{Path: p})
		}
	}
	m, err := b.Scheduler.QueryMissing(ctx, sess, wanted)
	if err != nil || len(m.WillSubstitute) == 0 {
		return err
	}
	wanted = wanted[:0]
	for _, p := range m.WillSubstitute {
		wanted = append(wanted, derivation.DerivedPath{Path: p})
	}
	err = b.BuildPaths(ctx, sess, wanted, derivation.BuildNormal)
	if err != nil && ctx.Err() == nil {
		substitute.Warn(sess.Log, err)
	}
	return ctx.Err()
}

func (b *awayBuilder) close() error {
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // the connections are gone: nobody waits any more
	return errors.Join(b.Scheduler.Close(ctx), b.machines.Close(), b.subst.Close(), b.store.Close())
}

// servedBuilder has the other machine build, and asks the scheduler what that would take.
type servedBuilder struct {
	*forward.Served
	shared *awayBuilder
}

var _ worker.Builder = servedBuilder{}

// QueryMissing tells what is missing there.
func (b servedBuilder) QueryMissing(ctx context.Context, sess *session.Session, paths []derivation.DerivedPath) (protocol.Missing, error) {
	return b.shared.QueryMissing(ctx, sess, paths)
}

// OutputMap gives the outputs of a derivation.
func (b servedBuilder) OutputMap(ctx context.Context, drv storepath.Path) (map[string]storepath.Path, error) {
	return b.shared.OutputMap(ctx, drv)
}

// servedSubstituter tells of the stores that we know; the other machine has its own.
type servedSubstituter struct {
	*substituter
	served *forward.Served
}

var _ worker.Substituter = servedSubstituter{}

// SubstitutablePaths knows of none.
func (s servedSubstituter) SubstitutablePaths(ctx context.Context, sess *session.Session, paths []storepath.Path) ([]storepath.Path, error) {
	return s.served.SubstitutablePaths(ctx, sess, paths)
}

// peerStore opens another program's store.
func (o opener) peerStore(ctx context.Context, ref settings.StoreReference) (peer.Store, error) {
	return peer.Open(ctx, ref, peer.Options{
		Defaults: peer.Defaults{Dir: o.dir, SocketPath: o.cfg.SocketPath, SystemFeatures: o.cfg.Settings.SystemFeatures},
		Features: worker.DerivationFeatures(o.cfg.Settings.ExperimentalFeatures),
	})
}
