package serving

import (
	"context"
	"errors"

	"nixdaemon/localstore"
	"nixdaemon/protocol/storepath"
)

// Closure implements serve.Handler. The outputs of a derivation count as far as
// they are known and valid (libstore/misc.cc, computeFSClosure).
func (h *handler) Closure(ctx context.Context, paths []storepath.Path, includeOutputs bool) ([]storepath.Path, error) {
	seen := make(map[storepath.Path]bool)
	var todo []storepath.Path
	add := func(paths ...storepath.Path) {
		for _, p := range paths {
			if !seen[p] {
				seen[p] = true
				todo = append(todo, p)
			}
		}
	}
	add(paths...)
	var closure []storepath.Path
	for len(todo) > 0 {
		p := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		info, err := h.o.Store.PathInfo(ctx, p)
		if err != nil {
			return nil, err
		}
		closure = append(closure, p)
		add(info.References...)
		if includeOutputs && p.IsDerivation() {
			outputs, err := h.validOutputs(ctx, p)
			if err != nil {
				return nil, err
			}
			add(outputs...)
		}
	}
	return storepath.SortUnique(closure), nil
}

func (h *handler) validOutputs(ctx context.Context, drv storepath.Path) ([]storepath.Path, error) {
	outputs, err := h.o.Builder.OutputMap(ctx, drv)
	if err != nil {
		return nil, err
	}
	var valid []storepath.Path
	for _, p := range outputs {
		if p.IsZero() {
			continue
		}
		_, err := h.o.Store.PathInfo(ctx, p)
		var invalid *localstore.NotValidError
		switch {
		case err == nil:
			valid = append(valid, p)
		case !errors.As(err, &invalid):
			return nil, err
		}
	}
	return valid, nil
}
