// Package limited has what stores share that are no directory of this machine: binary caches, other machines that speak
// the serve protocol, stores in memory. A [Store] is the part of a [worker.Forwarder] that none of them has: most of it is
// refused in upstream's words, the rest does nothing (the defaults of libstore/store-api.hh).
package limited

import (
	"context"
	"fmt"

	"nixdaemon/localstore"
	"nixdaemon/protocol"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker/session"
)

// Store refuses. It is embedded.
type Store struct{ uri func() string }

// New makes the refusals of a store that uri names.
func New(uri func() string) Store { return Store{uri} }

// Unsupported refuses what the store cannot do (libstore/store-api.hh, unsupported).
func (s Store) Unsupported(operation string) error {
	return fmt.Errorf("operation '%s' is not supported by store '%s'", operation, s.uri())
}

// Lacks refuses what only other kinds of stores can do (libstore/store-cast.hh).
func (s Store) Lacks(what string) error {
	return fmt.Errorf("%s not supported by store '%s'", what, s.uri())
}

// AddIndirectRoot is refused.
func (s Store) AddIndirectRoot(context.Context, string) error {
	return s.Lacks("Indirect GC roots registration")
}

// AddPermRoot is refused.
func (s Store) AddPermRoot(context.Context, storepath.Path, string) (string, error) {
	return "", s.Lacks("Local Filesystem Store")
}

// FindRoots is refused.
func (s Store) FindRoots(context.Context, *session.Session, bool) ([]protocol.Root, error) {
	return nil, s.Lacks("Garbage collection")
}

// Collect is refused.
func (s Store) Collect(context.Context, *session.Session, protocol.GCRequest) (protocol.GCResults, error) {
	return protocol.GCResults{}, s.Lacks("Garbage collection")
}

// OptimiseStore does nothing.
func (s Store) OptimiseStore(context.Context) error { return nil }

// OptimiseAll does nothing.
func (s Store) OptimiseAll(context.Context, localstore.OptimiseProgress) (localstore.OptimiseStats, error) {
	return localstore.OptimiseStats{}, nil
}

// Verify finds nothing.
func (s Store) Verify(context.Context, localstore.VerifyOptions) (bool, error) { return false, nil }

// Roots are the temporary roots of a store that collects nothing. Closing them calls the function.
type Roots func() error

// Add does nothing.
func (Roots) Add(context.Context, ...storepath.Path) error { return nil }

// Close ends the connection's use of its store.
func (r Roots) Close() error { return r() }
