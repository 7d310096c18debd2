package restricted

import (
	"context"
	"errors"
	"fmt"
	"io"

	"nixdaemon/localstore"
	"nixdaemon/protocol"
	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker"
	"nixdaemon/worker/session"
)

// Build is the build whose builder is served.
type Build interface {
	// Submits tells that the builder says itself which paths its outputs are.
	Submits() bool
	// Log is for those who wait for the build.
	Log() activity.Sink
	// Inputs is the closure of the build's inputs, sorted.
	Inputs() []storepath.Path
	// Paths is all that the builder may see, sorted; MayUse asks for one path.
	Paths() []storepath.Path
	MayUse(p storepath.Path) bool
	// Add lets the builder see valid paths.
	Add(ctx context.Context, paths ...storepath.Path) error
	// KnowsOutput tells whether an output was built for the builder.
	KnowsOutput(id pathinfo.DrvOutput) bool
	// NewRefScanner looks for all that the builder may see.
	NewRefScanner() localstore.RefScanner
	// Submit notes an output.
	Submit(p *derivation.SingleDerivedPath, output string) error
	// BuildPathsWithResults builds, and lets the builder see the results.
	BuildPathsWithResults(ctx context.Context, paths []derivation.DerivedPath) ([]derivation.KeyedBuildResult, error)
	QueryMissing(ctx context.Context, paths []derivation.DerivedPath) (protocol.Missing, error)
	OutputMap(ctx context.Context, drv storepath.Path) (map[string]storepath.Path, error)
	// Session is for whom the build is done, with the roots that keep what is
	// added from being collected before the build has ended.
	Session() *session.Session
}

// Store is the part of a store that a builder sees. It is for any number of
// connections of the builder.
type Store struct {
	next  worker.Store
	build Build
}

// New makes the part of next that belongs to a build.
func New(next worker.Store, build Build) *Store { return &Store{next, build} }

var (
	_ worker.Store     = (*Store)(nil)
	_ worker.Builder   = (*Store)(nil)
	_ worker.Collector = (*Store)(nil)
	_ worker.Nested    = (*Store)(nil)
	_ worker.TempRoots = (*Store)(nil)
)

// unsupported is upstream's refusal of what a restricted store cannot do. The
// store's name there is that of the daemon's without parameters.
func unsupported(operation string) error {
	return fmt.Errorf("operation '%s' is not supported by store 'local'", operation)
}

// unknown is upstream's refusal of a path that the builder does not see.
func (s *Store) unknown(format string, p storepath.Path) error {
	return fmt.Errorf(format, s.Dir().Print(p))
}

// Dir is the store directory.
func (s *Store) Dir() storepath.Dir { return s.next.Dir() }

// Submits tells which requests there are.
func (s *Store) Submits() bool { return s.build.Submits() }

// Log is for those who wait for the build.
func (s *Store) Log() activity.Sink { return s.build.Log() }

// NewRefScanner looks for all that the builder may see.
func (s *Store) NewRefScanner() localstore.RefScanner { return s.build.NewRefScanner() }

// SubmitOutput notes an output of the build.
func (s *Store) SubmitOutput(_ context.Context, p *derivation.SingleDerivedPath, output string) error {
	return s.build.Submit(p, output)
}

// MayDump refuses what the builder does not see.
func (s *Store) MayDump(p storepath.Path) error {
	if !s.build.MayUse(p) {
		return s.unknown("cannot dump unknown path '%s' in recursive Nix", p)
	}
	return nil
}

// IsValid tells whether the builder sees a path.
func (s *Store) IsValid(ctx context.Context, p storepath.Path) (bool, error) {
	if !s.build.MayUse(p) {
		return false, nil
	}
	return s.next.IsValid(ctx, p)
}

// PathInfo gives what follows from a path's contents.
func (s *Store) PathInfo(ctx context.Context, p storepath.Path) (*pathinfo.Info, error) {
	if !s.build.MayUse(p) {
		return nil, s.notValid(p)
	}
	info, err := s.next.PathInfo(ctx, p)
	if err != nil {
		return nil, err
	}
	return censored(info), nil
}

func (s *Store) notValid(p storepath.Path) error {
	return &localstore.NotValidError{Path: s.Dir().Print(p)}
}

func censored(info *pathinfo.Info) *pathinfo.Info {
	c := *info
	c.Deriver, c.RegistrationTime, c.Ultimate, c.Sigs = storepath.Path{}, 0, false, nil
	return &c
}

// ValidPaths gives those that the builder sees.
func (s *Store) ValidPaths(ctx context.Context, paths []storepath.Path) ([]storepath.Path, error) {
	var seen []storepath.Path
	for _, p := range paths {
		if s.build.MayUse(p) {
			seen = append(seen, p)
		}
	}
	if len(seen) == 0 {
		return nil, nil
	}
	return s.next.ValidPaths(ctx, seen)
}

// AllValidPaths gives all that the builder sees.
func (s *Store) AllValidPaths(context.Context) ([]storepath.Path, error) { return s.build.Paths(), nil }

// Referrers knows none: who else refers to a path is not the build's business.
func (s *Store) Referrers(context.Context, storepath.Path) ([]storepath.Path, error) { return nil, nil }

// ValidDerivers knows none.
func (s *Store) ValidDerivers(context.Context, storepath.Path) ([]storepath.Path, error) {
	return nil, nil
}

// PathFromHashPart is not for builders. The text is all that upstream says.
func (s *Store) PathFromHashPart(context.Context, string) (storepath.Path, error) {
	return storepath.Path{}, errors.New("queryPathFromHashPart")
}

// ReadDerivation reads one that the builder sees.
func (s *Store) ReadDerivation(ctx context.Context, p storepath.Path) (*derivation.Derivation, error) {
	if !s.build.MayUse(p) {
		return nil, s.notValid(p)
	}
	return s.next.ReadDerivation(ctx, p)
}

// Dump writes the archive of a path that the builder sees.
func (s *Store) Dump(ctx context.Context, p storepath.Path, w io.Writer) error {
	if err := s.MayDump(p); err != nil {
		return err
	}
	return s.next.Dump(ctx, p, w)
}

// ExportPath writes a path that the builder sees.
func (s *Store) ExportPath(ctx context.Context, p storepath.Path, w io.Writer) error {
	if err := s.MayDump(p); err != nil {
		return err
	}
	return s.next.ExportPath(ctx, p, w)
}

// QueryRealisation knows what was built for the builder.
func (s *Store) QueryRealisation(ctx context.Context, id pathinfo.DrvOutput) (*pathinfo.Realisation, error) {
	if !s.build.KnowsOutput(id) {
		return nil, nil
	}
	return s.next.QueryRealisation(ctx, id)
}

// RegisterRealisation is not for builders.
func (s *Store) RegisterRealisation(context.Context, *pathinfo.Realisation) error {
	return errors.New("registerDrvOutput")
}

// AddSignatures is not for builders.
func (s *Store) AddSignatures(context.Context, storepath.Path, []pathinfo.Signature) error {
	return unsupported("addSignatures")
}

// AddBuildLog is not for builders.
func (s *Store) AddBuildLog(context.Context, storepath.Path, io.Reader) error {
	return unsupported("addBuildLog")
}

// AddIndirectRoot does nothing: what a builder sees stays as long as its build.
func (s *Store) AddIndirectRoot(context.Context, string) error { return nil }

// AddPermRoot is not for builders.
func (s *Store) AddPermRoot(context.Context, storepath.Path, string) (string, error) {
	return "", unsupported("addPermRoot")
}

// Add does nothing: what a builder names is kept once it sees it.
func (s *Store) Add(context.Context, ...storepath.Path) error { return nil }

// Close does nothing: roots belong to the build, not to a connection.
func (s *Store) Close() error { return nil }

// OptimiseAll does nothing.
func (s *Store) OptimiseAll(context.Context, localstore.OptimiseProgress) (localstore.OptimiseStats, error) {
	return localstore.OptimiseStats{}, nil
}

// Verify finds nothing.
func (s *Store) Verify(context.Context, localstore.VerifyOptions) (bool, error) { return false, nil }

// FindRoots finds none.
func (s *Store) FindRoots(context.Context, *session.Session, bool) ([]protocol.Root, error) {
	return nil, nil
}

// Collect deletes nothing.
func (s *Store) Collect(context.Context, *session.Session, protocol.GCRequest) (protocol.GCResults, error) {
	return protocol.GCResults{}, nil
}
