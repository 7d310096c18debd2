package forward

import (
	"context"

	"nixdaemon/protocol"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker/session"
)

// BuildPaths makes the paths.
func (b *Backend) BuildPaths(ctx context.Context, _ *session.Session, paths []derivation.DerivedPath, mode derivation.BuildMode) error {
	return b.client.BuildPaths(ctx, paths, mode)
}

// BuildPathsWithResults makes the paths and tells how each went.
func (b *Backend) BuildPathsWithResults(ctx context.Context, _ *session.Session, paths []derivation.DerivedPath, mode derivation.BuildMode) ([]derivation.KeyedBuildResult, error) {
	return b.client.BuildPathsWithResults(ctx, paths, mode)
}

// BuildDerivation builds a derivation that the other daemon need not have.
func (b *Backend) BuildDerivation(ctx context.Context, _ *session.Session, drvPath storepath.Path, drv *derivation.BasicDerivation, mode derivation.BuildMode) (derivation.BuildResult, error) {
	return b.client.BuildDerivation(ctx, protocol.BuildDerivationRequest{DrvPath: drvPath, Derivation: drv, Mode: mode})
}

// EnsurePath makes a path valid, by substitution.
func (b *Backend) EnsurePath(ctx context.Context, _ *session.Session, p storepath.Path) error {
	return b.client.EnsurePath(ctx, p)
}

// RepairPath makes the contents of a valid path anew.
func (b *Backend) RepairPath(ctx context.Context, _ *session.Session, p storepath.Path) error {
	return b.client.BuildPaths(ctx, []derivation.DerivedPath{{Path: p}}, derivation.BuildRepair)
}

// QueryMissing tells what building the paths would take.
func (b *Backend) QueryMissing(ctx context.Context, _ *session.Session, paths []derivation.DerivedPath) (protocol.Missing, error) {
	return b.client.QueryMissing(ctx, paths)
}

// OutputMap gives the outputs of a derivation, with the zero path for those
// that are not known.
func (b *Backend) OutputMap(ctx context.Context, drv storepath.Path) (map[string]storepath.Path, error) {
	return b.client.OutputMap(ctx, drv)
}
