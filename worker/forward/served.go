package forward

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"nixdaemon/localstore"
	"nixdaemon/protocol"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/export"
	"nixdaemon/protocol/nar"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
	"nixdaemon/protocol/wire"
	"nixdaemon/worker"
	"nixdaemon/worker/limited"
	"nixdaemon/worker/remote/peer"
	"nixdaemon/worker/session"
)

// Served is the store of another machine that is spoken to by the serve protocol, for one connection of ours or for a
// scheduler. That protocol has no words for much of what clients ask; it is refused as upstream does
// (libstore/legacy-ssh-store.hh).
type Served struct {
	limited.Store
	peer     peer.Store
	features derivation.Features

	mu   sync.Mutex
	sess *session.Session // nil for nobody's
}

var (
	_ worker.Forwarder = (*Served)(nil)
	_ worker.Collector = (*Served)(nil)
)

// NewServed makes the store of a connection of what p leads to, which Close closes.
func NewServed(p peer.Store, features derivation.Features) *Served {
	return &Served{Store: limited.New(p.URI), peer: p, features: features}
}

// Close hangs up.
func (s *Served) Close() error { return s.peer.Close() }

// URI names the store in messages.
func (s *Served) URI() string { return s.peer.URI() }

// Dir is the store directory.
func (s *Served) Dir() storepath.Dir { return s.peer.Dir() }

// Trust is not known: the protocol does not tell.
func (s *Served) Trust(context.Context) protocol.Trust { return protocol.TrustUnknown }

// Follow takes on the settings of a connection, which go with builds.
func (s *Served) Follow(sess *session.Session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sess = sess
}

func (s *Served) unsupported(operation string) error {
	return &peer.Unsupported{Operation: operation, URI: s.peer.URI()}
}

// IsValid tells whether a path is valid.
func (s *Served) IsValid(ctx context.Context, p storepath.Path) (bool, error) {
	infos, err := s.peer.PathInfos(ctx, []storepath.Path{p})
	return len(infos) > 0, err
}

// PathInfo gives the metadata of a path, or a *localstore.NotValidError.
func (s *Served) PathInfo(ctx context.Context, p storepath.Path) (*pathinfo.Info, error) {
	infos, err := s.peer.PathInfos(ctx, []storepath.Path{p})
	if err != nil {
		return nil, err
	}
	if len(infos) == 0 {
		return nil, &localstore.NotValidError{Path: s.Dir().Print(p)}
	}
	return infos[0], nil
}

// ValidPaths gives those of the paths that are valid.
func (s *Served) ValidPaths(ctx context.Context, paths []storepath.Path) ([]storepath.Path, error) {
	return s.peer.ValidPaths(ctx, paths, false)
}

// SubstituteValidPaths gives those of the paths that are valid after the other machine has tried to substitute the
// others.
func (s *Served) SubstituteValidPaths(ctx context.Context, paths []storepath.Path) ([]storepath.Path, error) {
	return s.peer.ValidPaths(ctx, paths, true)
}

// AllValidPaths is not supported.
func (s *Served) AllValidPaths(context.Context) ([]storepath.Path, error) {
	return nil, s.unsupported("queryAllValidPaths")
}

// Referrers is not supported.
func (s *Served) Referrers(context.Context, storepath.Path) ([]storepath.Path, error) {
	return nil, s.unsupported("queryReferrers")
}

// ValidDerivers knows of none.
func (s *Served) ValidDerivers(context.Context, storepath.Path) ([]storepath.Path, error) {
	return nil, nil
}

// PathFromHashPart is not supported.
func (s *Served) PathFromHashPart(context.Context, string) (storepath.Path, error) {
	return storepath.Path{}, s.unsupported("queryPathFromHashPart")
}

// Closure gives the paths with all that they refer to, sorted.
func (s *Served) Closure(ctx context.Context, paths []storepath.Path, _ localstore.ClosureOptions) ([]storepath.Path, error) {
	return s.peer.Closure(ctx, paths)
}

// QueryRealisation is not supported.
func (s *Served) QueryRealisation(ctx context.Context, id pathinfo.DrvOutput) (*pathinfo.Realisation, error) {
	return s.peer.Realisation(ctx, id)
}

// RegisterRealisation is not supported.
func (s *Served) RegisterRealisation(ctx context.Context, r *pathinfo.Realisation) error {
	return s.peer.RegisterRealisation(ctx, r)
}

// Dump writes the NAR of a valid path.
func (s *Served) Dump(ctx context.Context, p storepath.Path, w io.Writer) error {
	body, err := s.peer.NAR(ctx, p)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, body)
	return firstOf(err, body.Close())
}

// RealPath is what DumpFile calls a path by; nothing is there.
func (s *Served) RealPath(p storepath.Path) string { return s.Dir().Print(p) }

// DumpFile writes the archive of a path that RealPath has named.
func (s *Served) DumpFile(ctx context.Context, realPath string, w io.Writer) error {
	p, err := s.Dir().Parse(realPath)
	if err != nil {
		return err
	}
	return s.Dump(ctx, p, w)
}

// ReadDerivation reads a derivation through its archive.
func (s *Served) ReadDerivation(ctx context.Context, p storepath.Path) (*derivation.Derivation, error) {
	if err := p.RequireDerivation(); err != nil {
		return nil, err
	}
	body, err := s.peer.NAR(ctx, p)
	if err != nil {
		return nil, err
	}
	var text strings.Builder
	err = nar.Parse(body, limited.OneFile(func(contents io.Reader) error {
		n, err := io.CopyN(&text, contents, wire.MaxString+1)
		if n > wire.MaxString {
			return wire.ErrStringTooLong
		}
		if errors.Is(err, io.EOF) {
			err = nil
		}
		return err
	}))
	if err = firstOf(err, body.Close()); err != nil {
		return nil, err
	}
	return derivation.ParseFile(s.Dir(), p, text.String(), s.features)
}

// mayAdd refuses what a client that is not trusted may not add: the other machine checks no signatures, ever. That
// contents are what their content address says, it does check.
func (s *Served) mayAdd(info *pathinfo.Info, o localstore.AddOptions) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sess == nil || s.sess.Trusted || !o.RequireSigs || o.DontCheckSigs || o.TrustedKeys.CountValid(s.Dir(), info) > 0 {
		return nil
	}
	return fmt.Errorf("cannot add path '%s' because it lacks a signature by a trusted key", s.Dir().Print(info.Path))
}

// AddNAR adds a path.
func (s *Served) AddNAR(ctx context.Context, info *pathinfo.Info, data io.Reader, o localstore.AddOptions) error {
	a := &archive{stream: data}
	if err := s.mayAdd(info, o); err != nil {
		return firstOf(err, a.close())
	}
	err := s.peer.Import(ctx, []*pathinfo.Info{info}, func(_ context.Context, _ *pathinfo.Info, w io.Writer) error {
		_, err := a.WriteTo(w)
		return err
	}, peer.ImportOptions{Repair: o.Repair})
	return firstOf(err, a.close())
}

// firstOf is the first error: clients are told what went wrong, not what followed from it.
func firstOf(first, second error) error {
	if first == nil {
		return second
	}
	return first
}

// AddNARs adds the paths that next gives, one by one.
func (s *Served) AddNARs(ctx context.Context, next func() (*pathinfo.Info, io.Reader, error), o localstore.AddOptions) error {
	for {
		info, data, err := next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := s.AddNAR(ctx, info, data, o); err != nil {
			return err
		}
	}
}

// AddEntries adds the paths of an OpAddMultipleToStore.
func (s *Served) AddEntries(ctx context.Context, entries *protocol.Reader, o localstore.AddOptions) error {
	return s.AddNARs(ctx, limited.Entries(entries), o)
}

// AddDump is not supported.
func (s *Served) AddDump(context.Context, localstore.DumpSpec, io.Reader, localstore.AddOptions) (*pathinfo.Info, error) {
	return nil, s.unsupported("addToStore")
}

// ExportPath writes one path in the format of "nix-store --export".
func (s *Served) ExportPath(ctx context.Context, p storepath.Path, w io.Writer) error {
	return export.Path(ctx, s, p, w)
}

// ImportPaths adds the paths of a stream in the format of "nix-store --export" and gives them in their order.
func (s *Served) ImportPaths(ctx context.Context, r io.Reader, o localstore.AddOptions) ([]storepath.Path, error) {
	return export.Read(ctx, r, s.Dir(), keepArchive, func(ctx context.Context, info *pathinfo.Info, archive io.Reader) error {
		return s.AddNAR(ctx, info, archive, o)
	})
}

// AddSignatures is not supported.
func (s *Served) AddSignatures(ctx context.Context, p storepath.Path, sigs []pathinfo.Signature) error {
	return s.peer.AddSignatures(ctx, p, sigs)
}

// AddBuildLog is not supported.
func (s *Served) AddBuildLog(context.Context, storepath.Path, io.Reader) error {
	return s.Lacks("Build log storage and retrieval")
}

// options are what the settings of the connection say about builds.
func (s *Served) options(mode derivation.BuildMode) peer.BuildOptions {
	o := peer.BuildOptions{Mode: mode}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sess != nil {
		set := s.sess.Settings
		o.MaxSilentTime, o.BuildTimeout = uint64(set.MaxSilentTime), uint64(set.Timeout)
		o.MaxLogSize, o.KeepFailed = set.MaxBuildLogSize, set.KeepFailed
	}
	return o
}

// BuildPaths makes the paths, on the other machine.
func (s *Served) BuildPaths(ctx context.Context, _ *session.Session, paths []derivation.DerivedPath, mode derivation.BuildMode) error {
	_, err := s.BuildPathsWithResults(ctx, nil, paths, mode)
	return err
}

// BuildPathsWithResults makes the paths, on the other machine. The first failure is an error.
func (s *Served) BuildPathsWithResults(ctx context.Context, _ *session.Session, paths []derivation.DerivedPath, mode derivation.BuildMode) ([]derivation.KeyedBuildResult, error) {
	if i := slices.IndexFunc(paths, func(p derivation.DerivedPath) bool { return p.Drv == nil && p.Path.IsDerivation() }); i >= 0 {
		return nil, fmt.Errorf("wanted to fetch '%s' but the legacy ssh protocol doesn't support merely substituting drv files via the build paths command. "+
			"It would build them instead. Try using ssh-ng://", s.Dir().Print(paths[i].Path))
	}
	return s.peer.BuildPathsWithResults(ctx, paths, s.options(mode))
}

// BuildDerivation builds a derivation that the other machine need not have.
func (s *Served) BuildDerivation(ctx context.Context, _ *session.Session, drvPath storepath.Path, drv *derivation.BasicDerivation, mode derivation.BuildMode) (derivation.BuildResult, error) {
	return s.peer.BuildDerivation(ctx, drvPath, drv, s.options(mode))
}

// EnsurePath is not supported.
func (s *Served) EnsurePath(context.Context, *session.Session, storepath.Path) error {
	return s.unsupported("ensurePath")
}

// RepairPath is not supported.
func (s *Served) RepairPath(context.Context, *session.Session, storepath.Path) error {
	return s.unsupported("repairPath")
}

// SubstitutablePaths knows of none (libstore/legacy-ssh-store.hh).
func (s *Served) SubstitutablePaths(context.Context, *session.Session, []storepath.Path) ([]storepath.Path, error) {
	return nil, nil
}

// Roots takes temporary roots, for which the protocol has no words. Closing them closes the store.
func (s *Served) Roots() worker.TempRoots { return limited.Roots(s.Close) }
