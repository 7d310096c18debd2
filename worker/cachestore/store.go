package cachestore

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"nixdaemon/localstore"
	"nixdaemon/protocol"
	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/narinfo"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker"
	"nixdaemon/worker/limited"
	"nixdaemon/worker/session"
	"nixdaemon/worker/settings"
	"nixdaemon/worker/substitute"
)

// Options make a [Store].
type Options struct {
	// Cache is the binary cache, which belongs to the store, and Reference what it was opened by.
	Cache     *substitute.Cache
	Reference settings.StoreReference
	// Names lists the names of the cache's objects; nil where nobody can.
	Names func() ([]string, error)
	// Trust is what the cache thinks of us: unknown but for directories.
	Trust protocol.Trust
	// Encoded says that objects may be uploaded with a content encoding.
	Encoded bool
	// Settings are the daemon's.
	Settings *settings.Settings
	// RequireSigs wants signatures of what clients that are not trusted add, by those of Keys.
	RequireSigs bool
	Keys        func(*settings.Settings) pathinfo.Keys
	// Features are what derivations may say.
	Features derivation.Features
	// Substitute makes paths valid from elsewhere, as far as it can; nil makes none.
	Substitute func(ctx context.Context, sess *session.Session, paths []storepath.Path) error
}

// Store is a binary cache as the store of one connection, or of a scheduler.
type Store struct {
	limited.Store
	o      Options
	params params

	mu   sync.Mutex
	sess *session.Session // nil for nobody's
}

var (
	_ worker.Forwarder = (*Store)(nil)
	_ substitute.Store = (*Store)(nil)
)

// New makes the store of one connection. Close it. It fails where a parameter is wrong or a secret key cannot be read.
func New(o Options) (*Store, error) {
	p, err := parseParams(o.Reference)
	if err == nil {
		err = p.readKeys()
	}
	if err != nil {
		return nil, err
	}
	return &Store{Store: limited.New(o.Cache.URI), o: o, params: p}, nil
}

// Follow takes on the settings and the log of a connection.
func (s *Store) Follow(sess *session.Session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sess = sess
}

func (s *Store) session() *session.Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sess
}

// asker is on whose behalf the cache is asked.
func (s *Store) asker() substitute.Asker {
	if sess := s.session(); sess != nil {
		return substitute.Asker{Settings: sess.Settings, Log: sess.Log}
	}
	return substitute.Asker{Settings: s.o.Settings, Log: activity.Discard{}}
}

// Close closes the cache.
func (s *Store) Close() error { return s.o.Cache.Close() }

// URI names the cache in messages.
func (s *Store) URI() string { return s.o.Cache.URI() }

// Dir is the store directory.
func (s *Store) Dir() storepath.Dir { return s.o.Cache.Dir() }

// Trust is what the cache thinks of us.
func (s *Store) Trust(context.Context) protocol.Trust { return s.o.Trust }

// Roots takes temporary roots, which a cache has no use for. Closing them closes the store.
func (s *Store) Roots() worker.TempRoots { return limited.Roots(s.Close) }

// missingName stands for names that are not known (libstore/store-api.hh).
const missingName = "x"

// info gives a narinfo, nil if there is none about the path.
func (s *Store) info(ctx context.Context, p storepath.Path) (*narinfo.NarInfo, error) {
	info, err := s.o.Cache.PathInfo(ctx, s.asker(), p)
	if err != nil || info == nil {
		return nil, err
	}
	if info.Path.HashPart() != p.HashPart() || p.Name() != missingName && info.Path.Name() != p.Name() {
		return nil, nil
	}
	return info, nil
}

func (s *Store) validInfo(ctx context.Context, p storepath.Path) (*narinfo.NarInfo, error) {
	info, err := s.info(ctx, p)
	if err == nil && info == nil {
		err = &localstore.NotValidError{Path: s.Dir().Print(p)}
	}
	return info, err
}

// IsValid tells whether there is a narinfo for a path.
func (s *Store) IsValid(ctx context.Context, p storepath.Path) (bool, error) {
	return s.o.Cache.Has(ctx, s.asker(), p)
}

// PathInfo gives the metadata of a path, or a *localstore.NotValidError.
func (s *Store) PathInfo(ctx context.Context, p storepath.Path) (*pathinfo.Info, error) {
	info, err := s.validInfo(ctx, p)
	if err != nil {
		return nil, err
	}
	return &info.Info, nil
}

// ValidPaths gives those of the paths that are valid.
func (s *Store) ValidPaths(ctx context.Context, paths []storepath.Path) ([]storepath.Path, error) {
	has := make([]bool, len(paths))
	err := substitute.Each(ctx, len(paths), func(ctx context.Context, i int) error {
		info, err := s.info(ctx, paths[i])
		has[i] = info != nil
		return err
	})
	if err != nil {
		return nil, err
	}
	var valid []storepath.Path
	for i, p := range paths {
		if has[i] {
			valid = append(valid, p)
		}
	}
	return storepath.SortUnique(valid), nil
}

// SubstituteValidPaths gives those of the paths that are valid after trying to substitute the others.
func (s *Store) SubstituteValidPaths(ctx context.Context, paths []storepath.Path) ([]storepath.Path, error) {
	if sess := s.session(); sess != nil && s.o.Substitute != nil {
		if err := s.o.Substitute(ctx, sess, paths); err != nil {
			return nil, err
		}
	}
	return s.ValidPaths(ctx, paths)
}

// AllValidPaths gives all paths of a cache in a directory. Their names are in their narinfos, which upstream does not
// read for this (libstore/local-binary-cache-store.cc).
func (s *Store) AllValidPaths(context.Context) ([]storepath.Path, error) {
	if s.o.Names == nil {
		return nil, s.Unsupported("queryAllValidPaths")
	}
	names, err := s.o.Names()
	if err != nil {
		return nil, err
	}
	var paths []storepath.Path
	for _, name := range names {
		hash, ok := strings.CutSuffix(name, ".narinfo")
		if !ok || len(name) != 40 {
			continue
		}
		p, err := storepath.ParseBase(hash + "-" + missingName)
		if err != nil {
			return nil, err
		}
		paths = append(paths, p)
	}
	return storepath.SortUnique(paths), nil
}

// Referrers is not supported.
func (s *Store) Referrers(context.Context, storepath.Path) ([]storepath.Path, error) {
	return nil, s.Unsupported("queryReferrers")
}

// ValidDerivers knows of none.
func (s *Store) ValidDerivers(context.Context, storepath.Path) ([]storepath.Path, error) {
	return nil, nil
}

// PathFromHashPart gives the valid path with a hash part, or the zero path.
func (s *Store) PathFromHashPart(ctx context.Context, hashPart string) (storepath.Path, error) {
	p, err := storepath.ParseBase(hashPart + "-" + missingName)
	if err != nil {
		return storepath.Path{}, err
	}
	info, err := s.info(ctx, p)
	if err != nil || info == nil {
		return storepath.Path{}, err
	}
	return info.Path, nil
}

// Closure gives everything that can be reached from start by references, itself included, sorted.
func (s *Store) Closure(ctx context.Context, start []storepath.Path, _ localstore.ClosureOptions) ([]storepath.Path, error) {
	seen := make(map[storepath.Path]bool, len(start))
	var all []storepath.Path
	level := storepath.SortUnique(slices.Clone(start))
	for len(level) > 0 {
		infos := make([]*narinfo.NarInfo, len(level))
		err := substitute.Each(ctx, len(level), func(ctx context.Context, i int) (err error) {
			infos[i], err = s.validInfo(ctx, level[i])
			return err
		})
		if err != nil {
			return nil, err
		}
		all = append(all, level...)
		for _, p := range level {
			seen[p] = true
		}
		var next []storepath.Path
		for _, info := range infos {
			for _, ref := range info.References {
				if !seen[ref] {
					seen[ref] = true
					next = append(next, ref)
				}
			}
		}
		level = next
	}
	return storepath.SortUnique(all), nil
}

// QueryRealisation gives a realisation, nil if it is unknown.
func (s *Store) QueryRealisation(ctx context.Context, id pathinfo.DrvOutput) (*pathinfo.Realisation, error) {
	return s.o.Cache.Realisation(ctx, s.asker(), id)
}

// RegisterRealisation writes a realisation down. From a client that is not trusted it must be signed: it says what others
// will run.
func (s *Store) RegisterRealisation(ctx context.Context, r *pathinfo.Realisation) error {
	sess := s.session()
	if sess != nil && !sess.Trusted && s.o.RequireSigs && s.o.Keys(sess.Settings).CountRealisation(r) == 0 {
		return fmt.Errorf("cannot register realisation '%s' because it lacks a signature by a trusted key", r.OutPath.Base())
	}
	return s.o.Cache.PutRealisation(ctx, s.asker(), r)
}
