package worker

import (
	"context"
	"io"

	"nixdaemon/localstore"
	"nixdaemon/protocol"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker/session"
)

// Store is what the requests need of a store; *localstore.Store is one.
type Store interface {
	Dir() storepath.Dir

	IsValid(ctx context.Context, p storepath.Path) (bool, error)
	PathInfo(ctx context.Context, p storepath.Path) (*pathinfo.Info, error)
	ValidPaths(ctx context.Context, paths []storepath.Path) ([]storepath.Path, error)
	AllValidPaths(ctx context.Context) ([]storepath.Path, error)
	Referrers(ctx context.Context, p storepath.Path) ([]storepath.Path, error)
	ValidDerivers(ctx context.Context, p storepath.Path) ([]storepath.Path, error)
	PathFromHashPart(ctx context.Context, hashPart string) (storepath.Path, error)
	ReadDerivation(ctx context.Context, p storepath.Path) (*derivation.Derivation, error)
	Dump(ctx context.Context, p storepath.Path, w io.Writer) error

	AddNAR(ctx context.Context, info *pathinfo.Info, nar io.Reader, o localstore.AddOptions) error
	// AddNARs adds the paths that next gives, each after those that it refers
	// to; next ends with io.EOF.
	AddNARs(ctx context.Context, next func() (*pathinfo.Info, io.Reader, error), o localstore.AddOptions) error
	AddDump(ctx context.Context, spec localstore.DumpSpec, data io.Reader, o localstore.AddOptions) (*pathinfo.Info, error)
	// ExportPath and ImportPaths write one path, and read any number, in the format of
	// "nix-store --export".
	ExportPath(ctx context.Context, p storepath.Path, w io.Writer) error
	ImportPaths(ctx context.Context, r io.Reader, o localstore.AddOptions) ([]storepath.Path, error)
	AddSignatures(ctx context.Context, p storepath.Path, sigs []pathinfo.Signature) error
	AddBuildLog(ctx context.Context, drv storepath.Path, log io.Reader) error
	AddIndirectRoot(ctx context.Context, path string) error
	AddPermRoot(ctx context.Context, p storepath.Path, link string) (string, error)

	OptimiseAll(ctx context.Context, progress localstore.OptimiseProgress) (localstore.OptimiseStats, error)
	Verify(ctx context.Context, o localstore.VerifyOptions) (bool, error)

	QueryRealisation(ctx context.Context, id pathinfo.DrvOutput) (*pathinfo.Realisation, error)
	RegisterRealisation(ctx context.Context, r *pathinfo.Realisation) error
}

// TempRoots are the temporary roots of one connection.
type TempRoots interface {
	session.Roots
	// Close drops them.
	Close() error
}

// Forwarder is a Store for one connection that hands requests on to another
// daemon, which decides and tells what a local store leaves to the worker.
type Forwarder interface {
	Store
	// Trust is what the other daemon said of our standing there.
	Trust(ctx context.Context) protocol.Trust
	// Follow is told of the session when it begins and when the client has
	// changed its settings.
	Follow(sess *session.Session)
	// SubstituteValidPaths gives those of the paths that are valid after trying
	// to substitute the others.
	SubstituteValidPaths(ctx context.Context, paths []storepath.Path) ([]storepath.Path, error)
	// AddEntries adds the paths of an OpAddMultipleToStore, which come as they
	// were sent: their number, then metadata and a NAR each.
	AddEntries(ctx context.Context, entries *protocol.Reader, o localstore.AddOptions) error
	// OptimiseStore hard-links equal files. Its progress goes to the session's log.
	OptimiseStore(ctx context.Context) error
}

// Builder makes what clients ask for.
type Builder interface {
	BuildPaths(ctx context.Context, sess *session.Session, paths []derivation.DerivedPath, mode derivation.BuildMode) error
	BuildPathsWithResults(ctx context.Context, sess *session.Session, paths []derivation.DerivedPath, mode derivation.BuildMode) ([]derivation.KeyedBuildResult, error)
	BuildDerivation(ctx context.Context, sess *session.Session, drvPath storepath.Path, drv *derivation.BasicDerivation, mode derivation.BuildMode) (derivation.BuildResult, error)
	EnsurePath(ctx context.Context, sess *session.Session, p storepath.Path) error
	// RepairPath makes the contents of a valid path anew.
	RepairPath(ctx context.Context, sess *session.Session, p storepath.Path) error
	QueryMissing(ctx context.Context, sess *session.Session, paths []derivation.DerivedPath) (protocol.Missing, error)
	// OutputMap gives every output of a derivation, with the zero path for
	// those that are not known.
	OutputMap(ctx context.Context, drv storepath.Path) (map[string]storepath.Path, error)
}

// Collector finds roots and collects garbage.
type Collector interface {
	FindRoots(ctx context.Context, sess *session.Session, censor bool) ([]protocol.Root, error)
	Collect(ctx context.Context, sess *session.Session, req protocol.GCRequest) (protocol.GCResults, error)
}

// Substituter knows what other stores have.
type Substituter interface {
	// SubstitutableInfos gives what is known of those of the paths that could
	// be substituted; a content address helps where store directories differ.
	SubstitutableInfos(ctx context.Context, sess *session.Session, paths map[storepath.Path]storepath.ContentAddress) ([]protocol.SubstitutableInfo, error)
	// SubstitutablePaths gives those that could be substituted from stores
	// that want to be asked about many paths.
	SubstitutablePaths(ctx context.Context, sess *session.Session, paths []storepath.Path) ([]storepath.Path, error)
}
