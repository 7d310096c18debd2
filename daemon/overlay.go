package daemon

import (
	"context"
	"errors"
	"path"
	"strings"

	"github.com/rs/zerolog"

	"nixdaemon/daemon/config"
	"nixdaemon/localstore"
	"nixdaemon/localstore/gc"
	"nixdaemon/localstore/overlay"
	"nixdaemon/protocol"
	"nixdaemon/protocol/client"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker"
	"nixdaemon/worker/remote/peer"
	"nixdaemon/worker/settings"
)

// openStore opens the configured store, which is one of this machine, and what is beneath it if its directory is an
// overlay. own are the paths of our sockets.
func openStore(ctx context.Context, cfg *config.Config, o localstore.Options, own []string) (*localstore.Store, error) {
	if cfg.Store.Overlay == nil {
		return localstore.Open(ctx, o)
	}
	var err error
	if o.Overlay, err = openOverlay(ctx, cfg, own); err != nil {
		return nil, err
	}
	store, err := localstore.Open(ctx, o)
	if err != nil {
		return nil, errors.Join(err, o.Overlay.Lower.Close())
	}
	return store, nil
}

// openOverlay opens the lower store.
func openOverlay(ctx context.Context, cfg *config.Config, own []string) (*localstore.Overlay, error) {
	c := cfg.Store.Overlay
	ref, err := settings.ParseStoreReference(c.LowerStore)
	if err != nil {
		return nil, err
	}
	st, _, err := config.ResolveStore(config.Process(), cfg, ref)
	if err != nil {
		return nil, err
	}
	lower, err := openLower(ctx, cfg, st, own)
	if err != nil {
		return nil, err
	}
	o := &localstore.Overlay{Lower: lower, UpperLayer: c.UpperLayer}
	if c.CheckMount {
		o.Check = overlay.Mount{Dir: cfg.Store.RealDir, Lower: realDirOf(st), Upper: c.UpperLayer}.Check
	}
	if c.RemountHook != "" {
		o.Remount = overlay.Hook(c.RemountHook)
	}
	return o, nil
}

// errNotHere is what upstream says of a lower store whose files are not in this machine's file system.
var errNotHere = errors.New("null pointer cast to ref")

// openLower opens a store of this machine, or one that another daemon serves while its files are here, too.
func openLower(ctx context.Context, cfg *config.Config, st config.StoreConfig, own []string) (localstore.Lower, error) {
	switch {
	case st.Kind == config.StoreLocal:
		other := *cfg
		other.Store = st
		o := storeOptions(&other, zerolog.Nop())
		o.SyncEvery, o.ReservedSpace = -1, -1
		store, err := openStore(ctx, &other, o, own)
		if err != nil {
			return nil, err
		}
		return store.AsLower(), nil
	case st.SocketPath != "":
		dial := notOurselves(st.SocketPath, own, client.Unix(st.SocketPath))
		return newDaemonLower(cfg, st.Reference.String(), storepath.Dir(st.StoreDir), dial, nil), nil
	case st.Reference.Scheme == "mounted-ssh-ng":
		return dialLower(cfg, st)
	}
	return nil, errNotHere
}

// dialLower prepares to ask the daemon of the machine whose store is mounted here.
func dialLower(cfg *config.Config, st config.StoreConfig) (localstore.Lower, error) {
	c, err := peer.Parse(st.Reference, peer.Defaults{Dir: storepath.Dir(st.StoreDir), SystemFeatures: cfg.Settings.SystemFeatures})
	if err != nil {
		return nil, err
	}
	master, err := c.Master(nil, cfg.Settings.Verbosity >= settings.LevelChatty, nil)
	if err != nil {
		return nil, err
	}
	return newDaemonLower(cfg, c.URI, c.Dir, peer.Dialer(master, c.Command()), master.Close), nil
}

// realDirOf is where the files of a store are that may be another daemon's (libstore/local-fs-store.hh).
func realDirOf(st config.StoreConfig) string {
	if st.Kind == config.StoreLocal {
		return st.RealDir
	}
	if real, ok := st.Reference.Param("real"); ok && strings.HasPrefix(real, "/") {
		return path.Clean(real)
	}
	if root, ok := st.Reference.Param("root"); ok && strings.HasPrefix(root, "/") {
		return path.Join(root, "nix/store")
	}
	return st.StoreDir
}

// daemonLower is a lower store that another daemon serves.
type daemonLower struct {
	*client.Client
	// byHash asks for realisations by the older kind of key, which a connection has instead of the newer one.
	byHash *client.Client
	done   func() error // nil for nothing more to close
}

var _ localstore.Lower = daemonLower{}

func newDaemonLower(cfg *config.Config, name string, dir storepath.Dir, dial dialer, done func() error) daemonLower {
	o := client.Options{
		Dial: dial, Dir: dir, Name: name, Features: worker.DerivationFeatures(cfg.Settings.ExperimentalFeatures),
	}
	older := o
	older.Version = protocol.Version{Number: protocol.Latest}
	return daemonLower{client.New(o), client.New(older), done}
}

// QueryRealisation implements localstore.Lower. A daemon that knows only the older kind of key knows nothing of the newer.
func (d daemonLower) QueryRealisation(ctx context.Context, id pathinfo.DrvOutput) (*pathinfo.Realisation, error) {
	v, err := d.Negotiated(ctx)
	if err != nil {
		return nil, err
	}
	byPath := v.Has(protocol.FeatureRealisationWithPath)
	switch {
	case byPath && id.DrvPath.IsZero():
		return d.byHash.QueryRealisation(ctx, id)
	case !byPath && id.DrvHash.IsZero():
		return nil, nil
	}
	return d.Client.QueryRealisation(ctx, id)
}

// Refresh implements localstore.Lower: the other daemon sees to that.
func (d daemonLower) Refresh(context.Context) error { return nil }

// Close hangs up.
func (d daemonLower) Close() error {
	err := errors.Join(d.Client.Close(), d.byHash.Close())
	if d.done != nil {
		err = errors.Join(err, d.done())
	}
	return err
}

// collected is a store as its collector sees it.
func collected(s *localstore.Store) gc.Store {
	if u, ok := s.Upper(); ok {
		return u
	}
	return s
}

var _ gc.Overlay = localstore.Upper{}
