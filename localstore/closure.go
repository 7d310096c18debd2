package localstore

import (
	"context"

	"nixdaemon/protocol/storepath"
)

// ClosureOptions say which edges a closure follows. The zero value follows references.
type ClosureOptions struct {
	// Referrers turns the direction: from a path to what refers to it.
	Referrers bool
	// IncludeOutputs goes from derivations to their valid outputs, or backwards with Referrers.
	IncludeOutputs bool
	// IncludeDerivers goes from paths to their valid derivers, or backwards with Referrers.
	IncludeDerivers bool
}

// Closure gives everything that can be reached from start, itself included, sorted. All of start must be valid, or it
// is a [NotValidError] (libstore/misc.cc, computeFSClosure).
func (s *Store) Closure(ctx context.Context, start []storepath.Path, o ClosureOptions) ([]storepath.Path, error) {
	h := s.acquire()
	defer h.release()
	seen := make(map[storepath.Path]struct{}, len(start))
	var queue []storepath.Path
	add := func(paths ...storepath.Path) {
		for _, p := range paths {
			if _, ok := seen[p]; !ok {
				seen[p] = struct{}{}
				queue = append(queue, p)
			}
		}
	}
	add(start...)
	for i := 0; i < len(queue); i++ {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		next, err := s.neighbours(ctx, h, queue[i], o)
		if err != nil {
			return nil, err
		}
		add(next...)
	}
	return storepath.SortUnique(queue), nil
}

func (s *Store) neighbours(ctx context.Context, h *handle, p storepath.Path, o ClosureOptions) ([]storepath.Path, error) {
	info, err := s.pathInfo(ctx, h, p)
	if err != nil {
		return nil, err
	}
	if info == nil {
		return nil, s.notValid(p)
	}
	forwards, backwards := o.IncludeOutputs, o.IncludeDerivers
	next := info.References
	if o.Referrers {
		forwards, backwards = backwards, forwards
		if next, err = s.Referrers(ctx, p); err != nil {
			return nil, err
		}
	}
	if forwards && p.IsDerivation() {
		more, err := s.validOutputs(ctx, p)
		if err != nil {
			return nil, err
		}
		next = append(next[:len(next):len(next)], more...)
	}
	if backwards {
		more, err := s.derivers(ctx, h, p, info.Deriver, o.Referrers)
		if err != nil {
			return nil, err
		}
		next = append(next[:len(next):len(next)], more...)
	}
	return next, nil
}

func (s *Store) validOutputs(ctx context.Context, drv storepath.Path) ([]storepath.Path, error) {
	outputs, err := s.DerivationOutputs(ctx, drv)
	if err != nil {
		return nil, err
	}
	var paths []storepath.Path
	for _, p := range outputs {
		paths = append(paths, p)
	}
	return s.ValidPaths(ctx, paths)
}

// derivers are those that are recorded to have made p or, backwards from outputs, all that would.
func (s *Store) derivers(ctx context.Context, h *handle, p, deriver storepath.Path, all bool) ([]storepath.Path, error) {
	if all {
		return s.ValidDerivers(ctx, p)
	}
	if deriver.IsZero() {
		return nil, nil
	}
	valid, err := s.isValid(ctx, h, deriver)
	if err != nil || !valid {
		return nil, err
	}
	return []storepath.Path{deriver}, nil
}
