package cachestore

import (
	"context"

	"nixdaemon/localstore"
	"nixdaemon/protocol"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker"
	"nixdaemon/worker/session"
)

// What a store in a directory of this machine can do, and a cache cannot: most of it is refused, the rest does nothing
// (the defaults of libstore/store-api.hh).

// Roots takes temporary roots, which a cache has no use for. Closing them closes the store.
func (s *Store) Roots() worker.TempRoots { return noRoots{s} }

type noRoots struct{ s *Store }

// Add does nothing: nothing is collected.
func (noRoots) Add(context.Context, ...storepath.Path) error { return nil }

// Close closes the store.
func (r noRoots) Close() error { return r.s.Close() }

// AddIndirectRoot is refused.
func (s *Store) AddIndirectRoot(context.Context, string) error {
	return s.lacks("Indirect GC roots registration")
}

// AddPermRoot is refused.
func (s *Store) AddPermRoot(context.Context, storepath.Path, string) (string, error) {
	return "", s.lacks("Local Filesystem Store")
}

// FindRoots is refused.
func (s *Store) FindRoots(context.Context, *session.Session, bool) ([]protocol.Root, error) {
	return nil, s.lacks("Garbage collection")
}

// Collect is refused.
func (s *Store) Collect(context.Context, *session.Session, protocol.GCRequest) (protocol.GCResults, error) {
	return protocol.GCResults{}, s.lacks("Garbage collection")
}

// OptimiseStore does nothing.
func (s *Store) OptimiseStore(context.Context) error { return nil }

// OptimiseAll does nothing.
func (s *Store) OptimiseAll(context.Context, localstore.OptimiseProgress) (localstore.OptimiseStats, error) {
	return localstore.OptimiseStats{}, nil
}

// Verify finds nothing.
func (s *Store) Verify(context.Context, localstore.VerifyOptions) (bool, error) { return false, nil }
