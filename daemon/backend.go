package daemon

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"sync"

	"github.com/rs/zerolog"

	"nixdaemon/daemon/config"
	"nixdaemon/localstore"
	"nixdaemon/localstore/gc"
	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/storepath"
	"nixdaemon/sandbox"
	"nixdaemon/sandbox/buildusers"
	"nixdaemon/worker"
	"nixdaemon/worker/build"
	"nixdaemon/worker/builtin"
	"nixdaemon/worker/builtin/builtinjob"
	"nixdaemon/worker/remote"
	"nixdaemon/worker/settings"
	"nixdaemon/worker/transfer/s3"
)

// backend is what stands behind all connections.
type backend interface {
	// serve is what the server does with a connection.
	serve(ctx context.Context, stream io.ReadWriter, peer Peer) error
	// converse is serve for a client of the serve protocol.
	converse(ctx context.Context, stream io.ReadWriter, peer Peer, write bool) error
	// building are the names of the builds that run here, the longest at it first.
	building() []string
	// retire gives back connections to other daemons as soon as nobody uses them: no new client comes, and the last ones
	// may be ourselves.
	retire()
	// close ends what still runs when the connections are gone.
	close() error
}

// assemble puts together what serves the configured store. own are the paths
// of the sockets that we listen on, supervisor the process that keeps us
// running, 0 without one.
func assemble(ctx context.Context, cfg *config.Config, supervisor int, log zerolog.Logger, watch *observers, own []string) (backend, error) {
	switch {
	case cfg.Store.Kind == config.StoreRemote && isAway(cfg.Store.Reference.Scheme):
		return newAway(cfg, log, watch)
	case cfg.Store.Kind == config.StoreRemote:
		return newForwarding(cfg, log, own)
	}
	return newLocal(ctx, cfg, supervisor, log, watch, own)
}

// local serves a store of this machine: one store, one scheduler, one
// collector.
type local struct {
	supervisor int // its process; 0 without one
	cfg        *config.Config
	log        zerolog.Logger
	watch      *observers
	store      *localstore.Store
	launcher   *sandbox.Launcher
	opener     opener
	subst      *substituter
	scheduler  *build.Scheduler
	remote     *remote.Builders
	builder    builder
	collector  collector
	auto       autoGC
	keys       keyring
	ids        activity.IDs
}

// newLocal opens the store and puts the parts together.
func newLocal(ctx context.Context, cfg *config.Config, supervisor int, log zerolog.Logger, watch *observers, own []string) (*local, error) {
	// The store's own parameter counts where the setting is not given
	// (unix/build/derivation-builder.cc).
	if cfg.Settings.BuildDir == "" && cfg.Store.BuildDir != "" {
		cfg.Settings = cfg.Settings.Clone()
		cfg.Settings.BuildDir = cfg.Store.BuildDir
	}
	b := &local{cfg: cfg, supervisor: supervisor, log: log, watch: watch}
	var err error
	if b.store, err = openStore(ctx, cfg, recoverable(storeOptions(cfg, log), watch), own); err != nil {
		return nil, &unopenedError{error: err}
	}
	if b.launcher, err = sandbox.NewLauncher(); err != nil {
		return nil, errors.Join(err, b.store.Close())
	}
	if err := b.buildAndCollect(); err != nil {
		return nil, errors.Join(err, b.close())
	}
	return b, nil
}

func (b *local) buildAndCollect() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cgroups, err := findCgroups(b.cfg, b.supervisor, b.log)
	if err != nil {
		return err
	}
	chain := s3.NewChain(nil)
	b.opener = newOpener(b.cfg, b.store, chain, &b.ids, b.log)
	b.subst = newSubstituter(b.opener, b.store, storeURI(b.cfg.Store.Reference), b.cfg.Store.RequireSigs, b.keys.trustedKeys, b.watch)
	b.remote = newRemote(b, self)
	b.scheduler = build.New(build.Options{
		Substituter: b.subst,
		Remote:      b.remote,
		Timed:       b.logTiming,
		Cgroups:     cgroups,
		Store:       b.store, Users: buildUsers(b.cfg), Launcher: b.launcher, IDs: &b.ids, Log: b.log,
		MaxTotalJobs: int(b.cfg.Settings.TotalJobs()), Features: b.cfg.Settings.ExperimentalFeatures,
		BuiltinCommand: func(name string) []string { return builtin.Command(self, name) },
		S3Keys:         s3Keys(chain, b.log),
		Getenv:         os.Getenv,
		SystemFeatures: append([]string{}, b.cfg.Store.SystemFeatures...),
		Nested:         b.serveBuilder,
		Observer:       b.watch,
		LogSpool:       spoolFor(b.cfg),
	})
	b.collector = collector{gc.New(gc.Options{
		Store: collected(b.store), IgnoreDeleteFailure: b.cfg.Store.IgnoreGCDeleteFailure, UseRootsDaemon: b.cfg.Store.UseRootsDaemon, Step: syncPoint,
		Observer: b.watch, Log: sinkFor(b.log),
	})}
	b.auto = autoGC{gc.NewAuto(b.collector.gc, freeSpace(b.store.RealDir()), sinkFor(b.log))}
	b.builder = builder{b.scheduler, b.auto}
	return nil
}

// s3Keys finds keys for downloads of builtin:fetchurl with the daemon's own credentials. Without any the download is
// tried all the same: it may be public.
func s3Keys(chain *s3.Chain, log zerolog.Logger) func(ctx context.Context, url string) *builtinjob.Keys {
	return func(ctx context.Context, url string) *builtinjob.Keys {
		l, err := s3.Parse(url)
		if err != nil {
			return nil // the builder will say so
		}
		keys, err := chain.Keys(ctx, l.Profile)
		if err != nil {
			log.Debug().Err(err).Msg("no credentials for S3")
			return nil
		}
		return &builtinjob.Keys{AccessKeyID: keys.AccessKeyID, SecretAccessKey: keys.SecretAccessKey, SessionToken: keys.SessionToken}
	}
}

// logTiming notes how long the parts of a build took, for whoever looks for where the time goes.
func (b *local) logTiming(drvPath storepath.Path, t build.Timing) {
	b.log.Debug().Str("drv", drvPath.Base()).Dur("setup", t.Setup).Dur("run", t.Run).Dur("finish", t.Finish).Msg("built")
}

func (b *local) building() []string {
	return names(b.scheduler.Building())
}

// names are those of derivations as people know them.
func names(drvs []storepath.Path) []string {
	var all []string
	for _, p := range drvs {
		all = append(all, strings.TrimSuffix(p.Name(), ".drv"))
	}
	return all
}

func (b *local) retire() { retire(b.subst, b.remote, b.log) }

func retire(s *substituter, machines *remote.Builders, log zerolog.Logger) {
	var stores sync.WaitGroup
	stores.Go(s.Retire)
	if err := machines.Retire(); err != nil {
		log.Warn().Err(err).Msg("while closing connections to machines")
	}
	stores.Wait()
}

// close waits for what still runs, then closes the store.
func (b *local) close() error {
	var errs []error
	if b.scheduler != nil {
		ctx, cancel := context.WithCancel(context.Background())
		cancel() // the connections are gone: nobody waits for a build any more
		errs = append(errs, b.scheduler.Close(ctx), b.remote.Close())
	}
	if b.auto.Auto != nil {
		b.auto.Close()
	}
	if b.subst != nil {
		errs = append(errs, b.subst.Close(), b.opener.close())
	}
	errs = append(errs, b.launcher.Close(), b.store.Close())
	return errors.Join(errs...)
}

// recoverable has the store say how far its verification is.
func recoverable(o localstore.Options, watch *observers) localstore.Options {
	o.Recovering = watch.recovery.note
	return o
}

func storeOptions(cfg *config.Config, log zerolog.Logger) localstore.Options {
	s, st := cfg.Settings, cfg.Store
	return localstore.Options{
		StoreDir: storepath.Dir(st.StoreDir), RealDir: st.RealDir, StateDir: st.StateDir, LogDir: st.LogDir,
		ReadOnly: st.ReadOnly, BuildUsersGroup: s.BuildUsersGroup, AllowSymlinked: s.AllowSymlinkedStore,
		UseWAL: s.UseSQLiteWAL, FsyncMetadata: s.FsyncMetadata,
		CADerivations: s.ExperimentalFeatures.Enabled(settings.CADerivations), Features: worker.DerivationFeatures(s.ExperimentalFeatures),
		ReservedSpace: s.GCReservedSpace, FsyncStorePaths: s.FsyncStorePaths,
		SyncBeforeRegistering: s.SyncBeforeRegistering, CaseHack: s.UseCaseHack,
		PrivateMounts: hasOwnMounts(), IgnoredACLs: s.IgnoredACLs, Preallocate: s.PreallocateContents,
		NarBufferSize: int(s.NarBufferSize), Log: storeLog(log),
	}
}

// buildUsers is the pool of build users, nil when builds run as ourselves.
func buildUsers(cfg *config.Config) *buildusers.Pool {
	// Which of them a build gets, if any, is for the settings of whoever asks
	// for it.
	if os.Geteuid() != 0 {
		return nil
	}
	return buildusers.New(buildusers.Options{StateDir: cfg.Store.StateDir})
}
