package dummystore

import (
	"context"
	"fmt"
	"sync"

	"nixdaemon/localstore"
	"nixdaemon/protocol"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
	"nixdaemon/protocol/wire"
	"nixdaemon/worker"
	"nixdaemon/worker/limited"
	"nixdaemon/worker/session"
)

// URI names every such store in messages.
const URI = "dummy://"

// Options make a [Store].
type Options struct {
	// Dir is the store directory.
	Dir storepath.Dir
	// ReadOnly refuses everything that adds a path.
	ReadOnly bool
	// Features are what derivations may say.
	Features derivation.Features
	// Memory is charged for what is held; nil is not asked.
	Memory wire.Ledger
	// Substitute makes paths valid from elsewhere, as far as it can; nil makes none.
	Substitute func(ctx context.Context, sess *session.Session, paths []storepath.Path) error
}

// Store is the store of one connection. Its methods may be called from any goroutine.
type Store struct {
	limited.Store
	o Options

	mu   sync.Mutex
	sess *session.Session // nil before the login
	used int64            // bytes
	// paths never change once they are there.
	paths        map[storepath.Path]object
	realisations map[pathinfo.DrvOutput]*pathinfo.Realisation
}

// object is a valid path.
type object struct {
	info *pathinfo.Info
	nar  []byte
}

var (
	_ worker.Forwarder = (*Store)(nil)
	_ worker.Collector = (*Store)(nil)
)

// New makes an empty store. Close it.
func New(o Options) *Store {
	return &Store{
		Store: limited.New(func() string { return URI }), o: o,
		paths: make(map[storepath.Path]object), realisations: make(map[pathinfo.DrvOutput]*pathinfo.Realisation),
	}
}

// Follow takes on the settings and the log of the connection.
func (s *Store) Follow(sess *session.Session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sess = sess
}

// Close gives up what the store holds.
func (s *Store) Close() error {
	s.mu.Lock()
	held := s.used
	clear(s.paths)
	clear(s.realisations)
	s.mu.Unlock()
	s.discharge(held)
	return nil
}

// URI names the store in messages.
func (s *Store) URI() string { return URI }

// Dir is the store directory.
func (s *Store) Dir() storepath.Dir { return s.o.Dir }

// Trust is given to everybody.
func (s *Store) Trust(context.Context) protocol.Trust { return protocol.Trusted }

// Roots takes temporary roots: nothing is collected. Closing them closes the store.
func (s *Store) Roots() worker.TempRoots { return limited.Roots(s.Close) }

func (s *Store) find(p storepath.Path) (object, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, ok := s.paths[p]
	return o, ok
}

func (s *Store) valid(p storepath.Path) (object, error) {
	o, ok := s.find(p)
	if !ok {
		return o, &localstore.NotValidError{Path: s.o.Dir.Print(p)}
	}
	return o, nil
}

// IsValid tells whether a path is valid.
func (s *Store) IsValid(_ context.Context, p storepath.Path) (bool, error) {
	_, ok := s.find(p)
	return ok, nil
}

// PathInfo gives the metadata of a path, or a *localstore.NotValidError.
func (s *Store) PathInfo(_ context.Context, p storepath.Path) (*pathinfo.Info, error) {
	o, err := s.valid(p)
	return o.info, err
}

// ValidPaths gives those of the paths that are valid.
func (s *Store) ValidPaths(_ context.Context, paths []storepath.Path) ([]storepath.Path, error) {
	var valid []storepath.Path
	for _, p := range paths {
		if _, ok := s.find(p); ok {
			valid = append(valid, p)
		}
	}
	return storepath.SortUnique(valid), nil
}

// SubstituteValidPaths gives those of the paths that are valid after trying to substitute the others.
func (s *Store) SubstituteValidPaths(ctx context.Context, paths []storepath.Path) ([]storepath.Path, error) {
	s.mu.Lock()
	sess := s.sess
	s.mu.Unlock()
	if sess != nil && s.o.Substitute != nil {
		if err := s.o.Substitute(ctx, sess, paths); err != nil {
			return nil, err
		}
	}
	return s.ValidPaths(ctx, paths)
}

// AllValidPaths is not supported.
func (s *Store) AllValidPaths(context.Context) ([]storepath.Path, error) {
	return nil, s.Unsupported("queryAllValidPaths")
}

// Referrers is not supported.
func (s *Store) Referrers(context.Context, storepath.Path) ([]storepath.Path, error) {
	return nil, s.Unsupported("queryReferrers")
}

// ValidDerivers knows of none.
func (s *Store) ValidDerivers(context.Context, storepath.Path) ([]storepath.Path, error) {
	return nil, nil
}

// PathFromHashPart is not supported.
func (s *Store) PathFromHashPart(context.Context, string) (storepath.Path, error) {
	return storepath.Path{}, s.Unsupported("queryPathFromHashPart")
}

// Closure gives everything that can be reached from start by references, itself included, sorted.
func (s *Store) Closure(_ context.Context, start []storepath.Path, _ localstore.ClosureOptions) ([]storepath.Path, error) {
	seen := make(map[storepath.Path]bool, len(start))
	todo := append([]storepath.Path{}, start...)
	var all []storepath.Path
	for len(todo) > 0 {
		p := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if seen[p] {
			continue
		}
		seen[p] = true
		o, err := s.valid(p)
		if err != nil {
			return nil, err
		}
		all = append(all, p)
		todo = append(todo, o.info.References...)
	}
	return storepath.SortUnique(all), nil
}

// QueryRealisation gives a realisation, nil if it is unknown.
func (s *Store) QueryRealisation(_ context.Context, id pathinfo.DrvOutput) (*pathinfo.Realisation, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.realisations[id], nil
}

// RegisterRealisation writes a realisation down, whoever tells it and even where nothing can be added: nobody else sees it.
func (s *Store) RegisterRealisation(_ context.Context, r *pathinfo.Realisation) error {
	if err := s.charge(overhead + int64(len(r.Dependent))*overhead); err != nil {
		return fmt.Errorf("register realisation: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.realisations[r.ID] = r
	return nil
}

// AddSignatures is not supported.
func (s *Store) AddSignatures(context.Context, storepath.Path, []pathinfo.Signature) error {
	return s.Unsupported("addSignatures")
}
