package forward

import (
	"context"
	"fmt"
	"strings"

	"nixdaemon/localstore"
	"nixdaemon/protocol"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker"
	"nixdaemon/worker/session"
)

// Roots are the temporary roots of the backend's connection. Closing them
// closes the backend.
func (b *Backend) Roots() worker.TempRoots { return tempRoots{b} }

type tempRoots struct{ b *Backend }

// Add makes temporary roots of the paths.
func (r tempRoots) Add(ctx context.Context, paths ...storepath.Path) error {
	for _, p := range paths {
		if err := r.b.client.AddTempRoot(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

// Close hangs up.
func (r tempRoots) Close() error { return r.b.Close() }

// AddIndirectRoot makes a root of a link.
func (b *Backend) AddIndirectRoot(ctx context.Context, link string) error {
	if b.o.Elsewhere {
		return b.notHere("Indirect GC roots registration")
	}
	return b.client.AddIndirectRoot(ctx, link)
}

// AddPermRoot creates a link to a path, as a root, and gives the link's path.
func (b *Backend) AddPermRoot(ctx context.Context, p storepath.Path, link string) (string, error) {
	if b.o.Elsewhere && !b.o.Mounted {
		return "", b.notHere("Local Filesystem Store")
	}
	return b.client.AddPermRoot(ctx, p, link)
}

// notHere refuses what needs the store's files on this machine
// (libstore/store-cast.hh).
func (b *Backend) notHere(what string) error {
	return fmt.Errorf("%s not supported by store '%s'", what, b.o.Name)
}

// censored stands for who uses a path (libstore/gc.cc).
const censored = "{censored}"

// FindRoots lists the roots. The other daemon censors them for us as it trusts
// us; what our client may not see is then our business, which upstream forgets
// (RemoteStore::findRoots).
func (b *Backend) FindRoots(ctx context.Context, _ *session.Session, censor bool) ([]protocol.Root, error) {
	roots, err := b.client.Roots(ctx)
	if err != nil || !censor {
		return roots, err
	}
	seen := make(map[protocol.Root]bool, len(roots))
	kept := roots[:0]
	for _, root := range roots {
		if telltale(root.Link) {
			root.Link = censored
		}
		if !seen[root] {
			seen[root] = true
			kept = append(kept, root)
		}
	}
	return kept, nil
}

// telltale tells runtime and temporary roots, which name processes, from
// links.
func telltale(link string) bool {
	return strings.HasPrefix(link, "/proc/") || !strings.HasPrefix(link, "/")
}

// Collect runs a collection.
func (b *Backend) Collect(ctx context.Context, _ *session.Session, req protocol.GCRequest) (protocol.GCResults, error) {
	return b.client.CollectGarbage(ctx, req)
}

// OptimiseStore hard-links equal files. Progress goes to our client.
func (b *Backend) OptimiseStore(ctx context.Context) error { return b.client.Optimise(ctx) }

// OptimiseAll is OptimiseStore; neither progress nor numbers are known.
func (b *Backend) OptimiseAll(ctx context.Context, _ localstore.OptimiseProgress) (localstore.OptimiseStats, error) {
	return localstore.OptimiseStats{}, b.OptimiseStore(ctx)
}

// Verify checks the store and tells whether errors were found. Repairs are the
// other daemon's own.
func (b *Backend) Verify(ctx context.Context, o localstore.VerifyOptions) (bool, error) {
	return b.client.Verify(ctx, o.CheckContents, o.Repair)
}
