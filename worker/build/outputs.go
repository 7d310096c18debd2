package build

import (
	"context"

	"nixdaemon/localstore"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker/settings"
)

// memoSize is how many hashes modulo are remembered.
const memoSize = 1 << 16

func (s *Scheduler) hasher() *derivation.Hasher {
	return &derivation.Hasher{Dir: s.store.Dir(), Load: s.store.ReadDerivation, Memo: s.memo}
}

// outputIDs tells under which names realisations of a derivation's outputs are known: its hash modulo for releases
// before 2.35, its path for later ones.
func (s *Scheduler) outputIDs(ctx context.Context, drvPath storepath.Path, drv *derivation.Derivation) (func(name string) pathinfo.DrvOutput, error) {
	hashes, err := s.hasher().StaticOutputHashes(ctx, drv)
	if err != nil {
		return nil, err
	}
	return func(name string) pathinfo.DrvOutput {
		return pathinfo.DrvOutput{DrvHash: hashes[name], DrvPath: drvPath, Output: name}
	}, nil
}

// OutputMap gives every output of a valid derivation, the zero path for those that are not known.
func (s *Scheduler) OutputMap(ctx context.Context, drvPath storepath.Path) (map[string]storepath.Path, error) {
	return s.outputMap(ctx, s.features, drvPath)
}

func (s *Scheduler) outputMap(ctx context.Context, features settings.FeatureSet, drvPath storepath.Path) (map[string]storepath.Path, error) {
	if !drvPath.IsDerivation() {
		// That nothing of the name is there comes before that it is the wrong name.
		if valid, err := s.store.IsValid(ctx, drvPath); err != nil {
			return nil, err
		} else if !valid {
			return nil, &localstore.NotValidError{Path: s.store.Dir().Print(drvPath)}
		}
	}
	drv, err := s.store.ReadDerivation(ctx, drvPath)
	if err != nil {
		return nil, err
	}
	return s.outputsOf(ctx, features, drvPath, drv)
}

// outputsOf is outputMap for a derivation that is at hand (libstore/store-api.cc, queryPartialDerivationOutputMap).
func (s *Scheduler) outputsOf(ctx context.Context, features settings.FeatureSet, drvPath storepath.Path, drv *derivation.Derivation) (map[string]storepath.Path, error) {
	outputs, err := drv.OutputPaths(s.store.Dir())
	if err != nil || !features.Enabled(settings.CADerivations) {
		return outputs, err
	}
	ids, err := s.outputIDs(ctx, drvPath, drv)
	if err != nil {
		return nil, err
	}
	for name := range outputs {
		real, err := s.store.QueryRealisation(ctx, ids(name))
		if err != nil {
			return nil, err
		}
		if real != nil {
			outputs[name] = real.OutPath
		}
	}
	return outputs, nil
}

// knownOutput finds the path of an output and whether it is valid. With ca-derivations what is found is remembered as
// a realisation, since the output may have been built without that feature (derivation-goal.cc, checkPathValidity).
func (s *Scheduler) knownOutput(ctx context.Context, features settings.FeatureSet, drvPath storepath.Path, drv *derivation.Derivation, name string) (storepath.Path, bool, error) {
	p, err := drv.Outputs[name].OutputPath(s.store.Dir(), drv.Name, name)
	if err != nil {
		return p, false, err
	}
	var id pathinfo.DrvOutput
	recorded := true
	if features.Enabled(settings.CADerivations) {
		ids, err := s.outputIDs(ctx, drvPath, drv)
		if err != nil {
			return p, false, err
		}
		id = ids(name)
		real, err := s.store.QueryRealisation(ctx, id)
		if err != nil {
			return p, false, err
		}
		if recorded = real != nil; recorded {
			p = real.OutPath
		}
	}
	if p.IsZero() {
		return p, false, nil
	}
	valid, err := s.store.IsValid(ctx, p)
	if err == nil && valid && !recorded {
		err = s.store.RegisterRealisation(ctx, &pathinfo.Realisation{ID: id, OutPath: p})
	}
	return p, valid, err
}
