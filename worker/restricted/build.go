package restricted

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"nixdaemon/protocol"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker/session"
)

// BuildPaths builds, and fails as the first of the paths that does.
func (s *Store) BuildPaths(ctx context.Context, sess *session.Session, paths []derivation.DerivedPath, mode derivation.BuildMode) error {
	results, err := s.BuildPathsWithResults(ctx, sess, paths, mode)
	if err != nil {
		return err
	}
	for _, res := range results {
		if !res.Status.Success() {
			return buildError(res.ErrorMsg)
		}
	}
	return nil
}

// buildError is a failure as a build's result tells it, marks and all.
type buildError string

func (e buildError) Error() string { return string(e) }

// Coloured gives the text as it is.
func (e buildError) Coloured() string { return string(e) }

// BuildPathsWithResults builds what the builder sees, for it to see the
// outputs.
func (s *Store) BuildPathsWithResults(ctx context.Context, _ *session.Session, paths []derivation.DerivedPath, mode derivation.BuildMode) ([]derivation.KeyedBuildResult, error) {
	if mode != derivation.BuildNormal {
		return nil, errors.New("unsupported build mode")
	}
	seen := make(map[storepath.Path]struct{})
	for _, p := range paths {
		if !s.build.MayUse(p.Base()) {
			return nil, s.cannotBuild(p.Format(s.Dir(), derivation.SeparatorCLI))
		}
		if p.Drv != nil {
			if err := s.mayBuild(ctx, p.Base(), seen); err != nil {
				return nil, err
			}
		}
	}
	return s.build.BuildPathsWithResults(ctx, paths)
}

func (s *Store) cannotBuild(what string) error {
	return fmt.Errorf("cannot build '%s' in recursive Nix because path is unknown", what)
}

// mayBuild refuses a derivation that has inputs which the builder does not see:
// a build within could show it their contents. What came with the outer build's
// inputs refers to its own inputs, so those are seen.
func (s *Store) mayBuild(ctx context.Context, drv storepath.Path, seen map[storepath.Path]struct{}) error {
	for queue := []storepath.Path{drv}; len(queue) > 0; {
		p := queue[len(queue)-1]
		queue = queue[:len(queue)-1]
		if _, again := seen[p]; again || storepath.Contains(s.build.Inputs(), p) {
			continue
		}
		seen[p] = struct{}{}
		d, err := s.next.ReadDerivation(ctx, p)
		if err != nil {
			return err
		}
		for _, input := range slices.Concat(d.InputSrcs, slices.Collect(maps.Keys(d.InputDrvs))) {
			if !s.build.MayUse(input) {
				return s.cannotBuild(s.Dir().Print(input))
			}
		}
		queue = slices.AppendSeq(queue, maps.Keys(d.InputDrvs))
	}
	return nil
}

// BuildDerivation is not for builders.
func (s *Store) BuildDerivation(context.Context, *session.Session, storepath.Path, *derivation.BasicDerivation, derivation.BuildMode) (derivation.BuildResult, error) {
	return derivation.BuildResult{}, unsupported("buildDerivation")
}

// EnsurePath does nothing for what the builder sees: that is valid.
func (s *Store) EnsurePath(_ context.Context, _ *session.Session, p storepath.Path) error {
	if !s.build.MayUse(p) {
		return s.unknown("cannot substitute unknown path '%s' in recursive Nix", p)
	}
	return nil
}

// RepairPath is not for builders.
func (s *Store) RepairPath(context.Context, *session.Session, storepath.Path) error {
	return unsupported("repairPath")
}

// QueryMissing calls what the builder does not see unknown. It does tell what
// else is there already, as upstream's.
func (s *Store) QueryMissing(ctx context.Context, _ *session.Session, paths []derivation.DerivedPath) (protocol.Missing, error) {
	var seen []derivation.DerivedPath
	var unknown []storepath.Path
	for _, p := range paths {
		if s.build.MayUse(p.Base()) {
			seen = append(seen, p)
		} else {
			unknown = append(unknown, p.Base())
		}
	}
	missing, err := s.build.QueryMissing(ctx, seen)
	missing.Unknown = storepath.SortUnique(slices.Concat(missing.Unknown, unknown))
	return missing, err
}

// OutputMap gives the outputs of a derivation that the builder sees.
func (s *Store) OutputMap(ctx context.Context, drv storepath.Path) (map[string]storepath.Path, error) {
	if !s.build.MayUse(drv) {
		return nil, s.unknown("cannot query output map for unknown path '%s' in recursive Nix", drv)
	}
	return s.build.OutputMap(ctx, drv)
}
