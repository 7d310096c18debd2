package forward

import (
	"context"
	"fmt"
	"io"

	"nixdaemon/localstore"
	"nixdaemon/protocol"
	"nixdaemon/protocol/client"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker/session"
)

// IsValid tells whether a path is valid.
func (b *Backend) IsValid(ctx context.Context, p storepath.Path) (bool, error) {
	return b.client.IsValid(ctx, p)
}

// PathInfo gives the metadata of a path, or a *localstore.NotValidError.
func (b *Backend) PathInfo(ctx context.Context, p storepath.Path) (*pathinfo.Info, error) {
	info, err := b.client.PathInfo(ctx, p)
	if err == nil && info == nil {
		err = &localstore.NotValidError{Path: b.Dir().Print(p)}
	}
	return info, err
}

// ValidPaths gives those of the paths that are valid.
func (b *Backend) ValidPaths(ctx context.Context, paths []storepath.Path) ([]storepath.Path, error) {
	return b.client.ValidPaths(ctx, paths, false)
}

// SubstituteValidPaths gives those of the paths that are valid after trying to
// substitute the others.
func (b *Backend) SubstituteValidPaths(ctx context.Context, paths []storepath.Path) ([]storepath.Path, error) {
	return b.client.ValidPaths(ctx, paths, true)
}

// AllValidPaths gives every valid path.
func (b *Backend) AllValidPaths(ctx context.Context) ([]storepath.Path, error) {
	return b.client.AllValidPaths(ctx)
}

// Referrers gives the valid paths that refer to a path.
func (b *Backend) Referrers(ctx context.Context, p storepath.Path) ([]storepath.Path, error) {
	return b.client.Referrers(ctx, p)
}

// ValidDerivers gives the valid derivations of which a path is an output.
func (b *Backend) ValidDerivers(ctx context.Context, p storepath.Path) ([]storepath.Path, error) {
	return b.client.ValidDerivers(ctx, p)
}

// PathFromHashPart gives the valid path with a hash part, or the zero path.
func (b *Backend) PathFromHashPart(ctx context.Context, hashPart string) (storepath.Path, error) {
	return b.client.PathFromHashPart(ctx, hashPart)
}

// ReadDerivation reads a derivation out of the store.
func (b *Backend) ReadDerivation(ctx context.Context, p storepath.Path) (*derivation.Derivation, error) {
	return b.client.ReadDerivation(ctx, p)
}

// Dump writes the NAR of a valid path.
func (b *Backend) Dump(ctx context.Context, p storepath.Path, w io.Writer) error {
	to := &begun{w: w}
	err := b.client.Dump(ctx, p, to)
	if err == nil || to.yes || b.o.Elsewhere && !b.o.Mounted {
		return err
	}
	// Upstream reads files of this machine itself, and says so of those that are not there
	// (libstore/include/nix/store/uds-remote-store.hh). Its daemons send their error in the place of the archive, and hang up.
	if valid, unknown := b.client.IsValid(ctx, p); unknown == nil && !valid {
		return fmt.Errorf("path '%s' is not a valid store path", b.Dir().Print(p))
	}
	return err
}

// begun tells whether anything was written.
type begun struct {
	w   io.Writer
	yes bool
}

// Write passes p on.
func (b *begun) Write(p []byte) (int, error) {
	b.yes = true
	return b.w.Write(p)
}

// SubstitutableInfos gives what is known of those of the paths that could be
// substituted.
func (b *Backend) SubstitutableInfos(ctx context.Context, _ *session.Session, paths map[storepath.Path]storepath.ContentAddress) ([]protocol.SubstitutableInfo, error) {
	return b.client.SubstitutableInfos(ctx, paths)
}

// SubstitutablePaths gives those of the paths that could be substituted from
// stores that want to be asked about many.
func (b *Backend) SubstitutablePaths(ctx context.Context, _ *session.Session, paths []storepath.Path) ([]storepath.Path, error) {
	return b.client.SubstitutablePaths(ctx, paths)
}

// realisations gives the connection on which an id can be expressed.
func (b *Backend) realisations(ctx context.Context, id pathinfo.DrvOutput) (*client.Client, error) {
	v, err := b.client.Negotiated(ctx)
	if err == nil && id.DrvPath.IsZero() && v.Has(protocol.FeatureRealisationWithPath) {
		return b.byHash, nil
	}
	return b.client, err
}

// QueryRealisation gives a realisation, nil if it is unknown.
func (b *Backend) QueryRealisation(ctx context.Context, id pathinfo.DrvOutput) (*pathinfo.Realisation, error) {
	c, err := b.realisations(ctx, id)
	if err != nil {
		return nil, err
	}
	return c.QueryRealisation(ctx, id)
}

// RegisterRealisation registers a realisation.
func (b *Backend) RegisterRealisation(ctx context.Context, r *pathinfo.Realisation) error {
	c, err := b.realisations(ctx, r.ID)
	if err != nil {
		return err
	}
	return c.RegisterRealisation(ctx, r)
}
