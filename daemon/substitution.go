package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/rs/zerolog"

	"nixdaemon/daemon/config"
	"nixdaemon/localstore"
	"nixdaemon/protocol"
	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/compression"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker"
	"nixdaemon/worker/build"
	"nixdaemon/worker/cachestore"
	"nixdaemon/worker/remote/peer"
	"nixdaemon/worker/session"
	"nixdaemon/worker/settings"
	"nixdaemon/worker/substitute"
	"nixdaemon/worker/substitute/narinfocache"
	transferring "nixdaemon/worker/transfer"
	"nixdaemon/worker/transfer/s3"
)

// substituter lets the scheduler and the workers use the other stores: they do
// not know each other.
type substituter struct{ *substitute.Substituter }

var (
	_ build.Substituter  = (*substituter)(nil)
	_ worker.Substituter = (*substituter)(nil)
)

// newSubstituter makes the one substituter of a store, which is called uri in messages.
func newSubstituter(o opener, store substitute.Store, uri string, requireSigs bool, keys func(*settings.Settings) pathinfo.Keys, watch substitute.Observer) *substituter {
	return &substituter{substitute.New(substitute.Options{
		Store: store, Open: o.open, Keys: keys, IDs: o.ids, RequireSigs: requireSigs, ReadOnly: o.cfg.Store.ReadOnly, StoreURI: uri,
		Observer: watch,
	})}
}

// newOpener prepares to open other stores. own is ours if it is one of this machine, else nil.
func newOpener(cfg *config.Config, own *localstore.Store, chain *s3.Chain, ids *activity.IDs, log zerolog.Logger) opener {
	s := cfg.Settings
	infos := narinfocache.New(narinfocache.Options{
		Path: narinfoCacheFile(), UseWAL: s.UseSQLiteWAL,
		TTLs: narinfocache.TTLs{Positive: s.NarinfoCachePositiveTTL, Negative: s.NarinfoCacheNegativeTTL},
		Log:  func(err error) { log.Warn().Err(err).Msg("narinfo cache") },
	})
	return opener{
		cfg: cfg, own: own, dir: storepath.Dir(cfg.Store.StoreDir), infos: infos, ids: ids,
		engine: transferring.New(transferring.Options{}), chain: chain, decoders: new(compression.Decoders),
	}
}

// close is for when all that was opened is closed.
func (o opener) close() error {
	err := o.infos.Close()
	o.engine.Close()
	return err
}

// narinfoCacheFile is where upstream has it; "" if there is no place.
func narinfoCacheFile() string {
	dir := os.Getenv("NIX_CACHE_HOME")
	if dir == "" {
		home, err := os.UserCacheDir()
		if err != nil {
			return ""
		}
		dir = filepath.Join(home, "nix")
	}
	return filepath.Join(dir, narinfocache.FileName)
}

// storeURI is how upstream calls the daemon's own store (local-store.cc,
// getReference).
func storeURI(ref settings.StoreReference) string {
	if ref.Scheme == "local-overlay" {
		return "local-overlay://"
	}
	if len(ref.Params) == 0 && ref.Authority == "" {
		return "local"
	}
	return "local://"
}

// Find turns an offer into what the scheduler knows.
func (s *substituter) Find(ctx context.Context, sess *session.Session, p storepath.Path, ca storepath.ContentAddress, after *build.Offer) (*build.Offer, error) {
	o, err := s.Substituter.Find(ctx, sess, p, ca, offerBehind(after))
	return offer(o), err
}

// offerBehind is what the scheduler's offer was made of.
func offerBehind(o *build.Offer) *substitute.Offer {
	if o == nil {
		return nil
	}
	own, _ := o.Source.(*substitute.Offer)
	return own
}

// FindQuickly turns an offer into what the scheduler knows.
func (s *substituter) FindQuickly(ctx context.Context, sess *session.Session, p storepath.Path, ca storepath.ContentAddress, after *build.Offer) (*build.Offer, bool, error) {
	o, known, err := s.Substituter.FindQuickly(ctx, sess, p, ca, offerBehind(after))
	return offer(o), known, err
}

// Look turns an offer into what the scheduler knows.
func (s *substituter) Look(ctx context.Context, sess *session.Session, p storepath.Path, ca storepath.ContentAddress) (*build.Offer, error) {
	o, err := s.Substituter.Look(ctx, sess, p, ca)
	return offer(o), err
}

func offer(o *substitute.Offer) *build.Offer {
	if o == nil {
		return nil
	}
	return &build.Offer{Info: o.Info, DownloadSize: o.DownloadSize, Ahead: o.Ahead(), Source: o}
}

// Ahead gets the archive of an offer that came from Find.
func (s *substituter) Ahead(ctx context.Context, sess *session.Session, o *build.Offer) {
	if found, ok := o.Source.(*substitute.Offer); ok {
		s.Substituter.Ahead(ctx, sess, found)
	}
}

// goneError is an error that the scheduler knows as one about what is gone.
type goneError struct{ error }

func (e goneError) Unwrap() []error { return []error{e.error, build.ErrGone} }

// Fetch carries out an offer that came from Find.
func (s *substituter) Fetch(ctx context.Context, sess *session.Session, o *build.Offer, repair bool) error {
	found, ok := o.Source.(*substitute.Offer)
	if !ok {
		return fmt.Errorf("fetch %s: the offer is somebody else's", o.Info.Path)
	}
	err := s.Substituter.Fetch(ctx, sess, found, repair)
	if errors.Is(err, substitute.ErrGone) {
		return goneError{err}
	}
	return err
}

// SubstitutableInfos asks about all of the paths at once.
func (s *substituter) SubstitutableInfos(ctx context.Context, sess *session.Session, paths map[storepath.Path]storepath.ContentAddress) ([]protocol.SubstitutableInfo, error) {
	asked := make([]storepath.Path, 0, len(paths))
	for p := range paths {
		asked = append(asked, p)
	}
	found := make([]*substitute.Offer, len(asked))
	err := substitute.Each(ctx, len(asked), func(ctx context.Context, i int) (err error) {
		found[i], err = s.Substituter.Look(ctx, sess, asked[i], paths[asked[i]])
		return err
	})
	if err != nil {
		return nil, err
	}
	var infos []protocol.SubstitutableInfo
	for i, o := range found {
		if o != nil {
			infos = append(infos, protocol.SubstitutableInfo{
				Path: asked[i], Deriver: o.Info.Deriver, References: o.Info.References,
				DownloadSize: o.DownloadSize, NarSize: o.Info.NarSize,
			})
		}
	}
	return infos, nil
}

// SubstitutablePaths asks the stores that want to be asked.
func (s *substituter) SubstitutablePaths(ctx context.Context, sess *session.Session, paths []storepath.Path) ([]storepath.Path, error) {
	return s.Available(ctx, sess, paths)
}

// opener opens stores of every kind.
type opener struct {
	cfg   *config.Config
	own   *localstore.Store // nil if ours is none of this machine
	dir   storepath.Dir
	infos *narinfocache.Cache
	ids   *activity.IDs

	engine   *transferring.Engine
	chain    *s3.Chain
	decoders *compression.Decoders
}

func (o opener) open(ctx context.Context, a substitute.Asker, ref settings.StoreReference) (substitute.Source, error) {
	switch {
	case ref.Kind == settings.ReferenceAuto || ref.Scheme == "local" || ref.Scheme == "local-overlay":
		return o.openLocal(ctx, a, ref)
	case isCache(ref.Scheme):
		c, err := o.openBinaryCache(ctx, a, ref)
		if err != nil {
			return nil, err // not a nil *substitute.Cache as an interface
		}
		return c, nil
	case ref.Scheme == "dummy":
		return substitute.OpenDummy(a, ref, o.dir)
	case peer.Opens(ref.Scheme):
		return o.openPeer(ctx, a, ref)
	}
	return nil, fmt.Errorf("don't know how to open Nix store with scheme '%s'", ref.Scheme)
}

// isCache tells of a scheme whether it leads to a binary cache.
func isCache(scheme string) bool {
	return scheme == "file" || scheme == "http" || scheme == "https" || scheme == "s3"
}

func (o opener) openBinaryCache(ctx context.Context, a substitute.Asker, ref settings.StoreReference) (*substitute.Cache, error) {
	// What is wrong about writing counts even where nothing is written.
	if err := cachestore.CheckKeys(ref); err != nil {
		return nil, err
	}
	switch ref.Scheme {
	case "file":
		return o.openDirectory(ctx, a, ref)
	case "s3":
		return o.openS3(ctx, a, ref)
	}
	return o.openHTTP(ctx, a, ref)
}

func (o opener) openDirectory(ctx context.Context, a substitute.Asker, ref settings.StoreReference) (*substitute.Cache, error) {
	d, err := substitute.OpenDirectory(ref)
	if err != nil {
		return nil, err
	}
	return substitute.OpenCache(ctx, a, substitute.CacheOptions{
		Reference: ref, URI: d.URI(), Dir: o.dir, Objects: d, Decoders: o.decoders, IDs: o.ids, Local: true,
	})
}

func (o opener) openHTTP(ctx context.Context, a substitute.Asker, ref settings.StoreReference) (*substitute.Cache, error) {
	if ref.Authority == "" || strings.HasPrefix(ref.Authority, "/") {
		return nil, errNoAuthority(ref.Scheme)
	}
	at := ref.Scheme + "://" + strings.TrimRight(ref.Authority, "/")
	certificate, _ := ref.Param("tls-certificate")
	key, _ := ref.Param("tls-private-key")
	objects, err := transferring.NewHTTP(o.engine, at, certificate, key)
	if err != nil {
		return nil, err
	}
	return o.openCache(ctx, a, ref, transferring.Shown(at), objects)
}

func errNoAuthority(scheme string) error {
	return &settings.UsageError{Msg: "`" + scheme + "` Store requires a non-empty authority in Store URL"}
}

// openS3 opens a cache in a bucket. Its name has the parameters that say where the bucket is: there may be two of a name.
func (o opener) openS3(ctx context.Context, a substitute.Asker, ref settings.StoreReference) (*substitute.Cache, error) {
	if ref.Authority == "" {
		return nil, errNoAuthority(ref.Scheme)
	}
	params := make(map[string]string, len(ref.Params))
	for _, p := range ref.Params {
		params[p.Name] = p.Value
	}
	objects, err := s3.New(o.engine, o.chain, "s3://"+ref.Authority, params)
	if err != nil {
		return nil, err
	}
	return o.openCache(ctx, a, ref, objects.String(), objects)
}

func (o opener) openCache(ctx context.Context, a substitute.Asker, ref settings.StoreReference, uri string, objects transferring.Objects) (*substitute.Cache, error) {
	return substitute.OpenCache(ctx, a, substitute.CacheOptions{
		Reference: ref, URI: uri, Dir: o.dir, Objects: substitute.NewTransferred(objects, o.ids), Infos: o.infos,
		Decoders: o.decoders, IDs: o.ids,
	})
}

// openLocal opens another store of this machine, as upstream does: for
// writing, since reading a database that others write to needs that. It may
// turn out to be our own.
func (o opener) openLocal(ctx context.Context, a substitute.Asker, ref settings.StoreReference) (substitute.Source, error) {
	st, _, err := config.ResolveStore(config.Process(), o.cfg, ref)
	if err != nil {
		return nil, err
	}
	if st.Kind == config.StoreRemote {
		ref.Kind, ref.Scheme = settings.ReferenceURL, "unix"
		return o.openPeer(ctx, a, ref)
	}
	if o.own != nil && st.StateDir == o.cfg.Store.StateDir && st.RealDir == o.cfg.Store.RealDir {
		return substitute.OpenLocal(a, ref, storeURI(ref), o.own, false)
	}
	other := *o.cfg
	other.Store = st
	opts := storeOptions(&other, zerolog.Nop())
	opts.SyncEvery, opts.ReservedSpace = -1, -1
	store, err := openStore(ctx, &other, opts, nil)
	if err != nil {
		return nil, err
	}
	return substitute.OpenLocal(a, ref, storeURI(ref), store, true)
}

func (o opener) openPeer(ctx context.Context, a substitute.Asker, ref settings.StoreReference) (substitute.Source, error) {
	store, err := o.peerStore(ctx, ref)
	if err != nil {
		return nil, err
	}
	return substitute.OpenPeer(a, store), nil
}
