package build

import (
	"context"
	"io"

	"nixdaemon/localstore"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
)

// Store is what planning needs of a store; *localstore.Store is one. What carries out builds uses that directly.
type Store interface {
	Dir() storepath.Dir
	RealPath(p storepath.Path) string
	IsValid(ctx context.Context, p storepath.Path) (bool, error)
	PathInfo(ctx context.Context, p storepath.Path) (*pathinfo.Info, error)
	Closure(ctx context.Context, start []storepath.Path, o localstore.ClosureOptions) ([]storepath.Path, error)
	ReadDerivation(ctx context.Context, p storepath.Path) (*derivation.Derivation, error)
	QueryRealisation(ctx context.Context, id pathinfo.DrvOutput) (*pathinfo.Realisation, error)
	RegisterRealisation(ctx context.Context, r *pathinfo.Realisation) error
	AddDump(ctx context.Context, spec localstore.DumpSpec, data io.Reader, o localstore.AddOptions) (*pathinfo.Info, error)
	DumpFile(ctx context.Context, realPath string, w io.Writer) error
}

var _ Store = (*localstore.Store)(nil)
