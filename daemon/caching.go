package daemon

import (
	"context"
	"errors"
	"io"
	"sync"

	"github.com/rs/zerolog"

	"nixdaemon/daemon/config"
	"nixdaemon/protocol"
	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker"
	"nixdaemon/worker/build"
	"nixdaemon/worker/cachestore"
	"nixdaemon/worker/serving"
	"nixdaemon/worker/session"
	"nixdaemon/worker/substitute"
	"nixdaemon/worker/transfer/s3"
)

// caching serves a binary cache as our own store. Each connection opens it anew, as with upstream: what it lacks by then
// is made.
type caching struct {
	cfg    *config.Config
	log    zerolog.Logger
	watch  *observers
	opener opener
	keys   keyring
	ids    activity.IDs

	mu     sync.Mutex
	shared *awayBuilder // nil before the first connection
}

func newCaching(cfg *config.Config, log zerolog.Logger, watch *observers) *caching {
	c := &caching{cfg: cfg, log: log, watch: watch}
	c.opener = newOpener(cfg, nil, s3.NewChain(nil), &c.ids, log)
	return c
}

// builder makes the one scheduler, with the first connection that gets so far.
func (c *caching) builder(ctx context.Context) (*awayBuilder, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.shared != nil {
		return c.shared, nil
	}
	cache, err := c.opener.openBinaryCache(ctx, substitute.Asker{Settings: c.cfg.Settings, Log: sinkFor(c.log)}, c.cfg.Store.Reference)
	if err != nil {
		return nil, err
	}
	store, err := cachestore.New(c.options(cache))
	if err != nil {
		return nil, errors.Join(err, cache.Close())
	}
	subst := newSubstituter(c.opener, store, cache.URI(), c.cfg.Settings.RequireSigs, c.keys.trustedKeys, c.watch)
	c.shared = &awayBuilder{build.NewAway(store, build.Options{
		Substituter: subst, IDs: &c.ids, Log: c.log, Features: c.cfg.Settings.ExperimentalFeatures,
		SystemFeatures: append([]string{}, c.cfg.Store.SystemFeatures...),
	}), subst, cache}
	return c.shared, nil
}

func (c *caching) options(cache *substitute.Cache) cachestore.Options {
	o := cachestore.Options{
		Cache: cache, Reference: c.cfg.Store.Reference, Settings: c.cfg.Settings, Encoded: true,
		Features: worker.DerivationFeatures(c.cfg.Settings.ExperimentalFeatures),
	}
	if d, ok := cache.Objects().(*substitute.Directory); ok {
		o.Names, o.Trust, o.Encoded = d.Names, protocol.Trusted, false
	}
	return o
}

// open opens the cache for one connection.
func (c *caching) open(ctx context.Context) (*cachestore.Store, *awayBuilder, *substitute.Cache, error) {
	b, err := c.builder(ctx)
	if err != nil {
		return nil, nil, nil, err
	}
	asker := substitute.Asker{Settings: c.cfg.Settings, Log: activity.Discard{}} // who made the builder was told
	cache, err := c.opener.openBinaryCache(ctx, asker, c.cfg.Store.Reference)
	if err != nil {
		return nil, nil, nil, err
	}
	o := c.options(cache)
	o.Substitute = b.substitute
	store, err := cachestore.New(o)
	if err != nil {
		return nil, nil, nil, errors.Join(err, cache.Close())
	}
	return store, b, cache, nil
}

func (c *caching) serve(ctx context.Context, stream io.ReadWriter, peer Peer) (err error) {
	store, b, cache, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cache.Close()) }()
	return worker.Serve(ctx, stream, worker.Options{
		Store: store, Builder: b, Collector: store, Substituter: b.subst, Roots: store.Roots(),
		RequireSigs: c.cfg.Settings.RequireSigs, Keys: c.keys.trustedKeys, NixVersion: NixVersion,
		Settings: c.cfg.Settings, IDs: &c.ids, User: peer.User, Client: peer.Client, Trusted: peer.Trusted, Memory: peer.Memory, Log: c.log,
		Observer: peer.Observer,
		JSONLog:  jsonLog(c.cfg.Settings.JSONLogPath),
	})
}

// converse answers over the serve protocol.
func (c *caching) converse(ctx context.Context, stream io.ReadWriter, peer Peer, write bool) error {
	store, b, cache, err := c.open(ctx)
	if err != nil {
		return err
	}
	return errors.Join(conversation(ctx, stream, c.cfg, serving.Options{
		Store: store, Builder: b, Roots: store.Roots(), Write: write, User: peer.User, Client: peer.Client,
	}), cache.Close())
}

// building is 0: nothing is built in a cache.
func (c *caching) building() int { return 0 }

// close waits for what still runs.
func (c *caching) close() error {
	var err error
	if c.shared != nil {
		err = c.shared.close()
	}
	return errors.Join(err, c.opener.close())
}

// awayBuilder lets workers use the scheduler of a store that is not on this machine.
type awayBuilder struct {
	*build.Scheduler
	subst *substituter
	cache io.Closer
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
	return errors.Join(b.Scheduler.Close(ctx), b.subst.Substituter.Close(), b.cache.Close())
}
