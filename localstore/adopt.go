package localstore

import (
	"context"
	"slices"

	"nixdaemon/localstore/internal/db"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
)

// adoptAtOnce is how many rows are copied from the lower store in one transaction.
const adoptAtOnce = 1024

// adoption is the rows that are missing of what a lower store has: of some paths, and of all that they refer to, for the
// database has only rows whose references have rows.
type adoption struct {
	s     *Store
	h     *handle
	infos map[storepath.Path]*pathinfo.Info
}

// adopt makes rows of those of the paths that the lower store has, none of which has a row as far as is known, and gives
// them. In a store that is only read there are no rows made.
func (s *Store) adopt(ctx context.Context, h *handle, paths []storepath.Path) ([]storepath.Path, error) {
	lower := s.lower()
	if lower == nil || len(paths) == 0 {
		return nil, nil
	}
	found, err := lower.PathInfos(ctx, paths)
	if err != nil || len(found) == 0 {
		return nil, err
	}
	valid := make([]storepath.Path, len(found))
	for i, info := range found {
		valid[i] = info.Path
	}
	if s.opts.ReadOnly {
		return valid, nil
	}
	a := &adoption{s: s, h: h, infos: make(map[storepath.Path]*pathinfo.Info, len(found))}
	if err := a.gather(ctx, found); err != nil {
		return nil, err
	}
	for some := range slices.Chunk(a.referencesFirst(valid), adoptAtOnce) {
		if err := a.insert(ctx, some); err != nil {
			return nil, err
		}
	}
	return valid, nil
}

// adoptMissing is adopt for paths some of which may have rows.
func (s *Store) adoptMissing(ctx context.Context, h *handle, paths []storepath.Path) ([]storepath.Path, error) {
	missing, err := s.withoutRows(ctx, h, paths)
	if err != nil {
		return nil, err
	}
	return s.adopt(ctx, h, missing)
}

// withoutRows gives those of the paths that have none.
func (s *Store) withoutRows(ctx context.Context, h *handle, paths []storepath.Path) ([]storepath.Path, error) {
	if len(paths) == 0 {
		return nil, nil
	}
	texts, err := h.db.ValidSubset(ctx, s.opts.StoreDir.PrintAll(paths))
	if err != nil {
		return nil, public(err)
	}
	rows := make(map[string]struct{}, len(texts))
	for _, text := range texts {
		rows[text] = struct{}{}
	}
	return slices.DeleteFunc(slices.Clone(paths), func(p storepath.Path) bool {
		_, has := rows[s.opts.StoreDir.Print(p)]
		return has
	}), nil
}

// gather asks for what the found paths refer to, level by level, as far as that has no rows.
func (a *adoption) gather(ctx context.Context, found []*pathinfo.Info) error {
	seen := make(map[storepath.Path]struct{}, len(found))
	for len(found) > 0 {
		var next []storepath.Path
		for _, info := range found {
			a.infos[info.Path] = info
			seen[info.Path] = struct{}{}
		}
		for _, info := range found {
			for _, ref := range info.References {
				if _, met := seen[ref]; !met {
					seen[ref] = struct{}{}
					next = append(next, ref)
				}
			}
		}
		missing, err := a.s.withoutRows(ctx, a.h, next)
		if err != nil {
			return err
		}
		if found, err = a.s.lower().PathInfos(ctx, missing); err != nil {
			return err
		}
	}
	return nil
}

// referencesFirst orders what was gathered.
func (a *adoption) referencesFirst(starts []storepath.Path) []*pathinfo.Info {
	type visit struct {
		info *pathinfo.Info
		next int // index of the next reference to look at
	}
	out := make([]*pathinfo.Info, 0, len(a.infos))
	begun := make(map[storepath.Path]struct{}, len(a.infos))
	var stack []visit
	push := func(p storepath.Path) {
		info := a.infos[p]
		if _, again := begun[p]; again || info == nil {
			return
		}
		begun[p] = struct{}{}
		stack = append(stack, visit{info: info})
	}
	for _, p := range starts {
		for push(p); len(stack) > 0; {
			top := &stack[len(stack)-1]
			if top.next < len(top.info.References) {
				top.next++
				push(top.info.References[top.next-1])
				continue
			}
			out = append(out, top.info)
			stack = stack[:len(stack)-1]
		}
	}
	return out
}

// insert makes rows of paths whose references have some, or are among them. What has got a row meanwhile keeps it.
func (a *adoption) insert(ctx context.Context, infos []*pathinfo.Info) error {
	s, h := a.s, a.h
	rows := make([]db.PathRow, len(infos))
	outputs := make(map[string]map[string]string)
	for i, info := range infos {
		rows[i] = s.toRow(info)
		if info.Path.IsDerivation() {
			known, err := s.outputsOf(h, info.Path)
			if err != nil {
				return err
			}
			outputs[rows[i].Path] = known
		}
	}
	for _, info := range infos {
		h.cache.begin(info.Path)
	}
	err := h.db.Write(ctx, func(tx *db.Tx) error {
		var fresh []db.PathRow
		for _, row := range rows {
			valid, err := tx.IsValid(row.Path)
			if err != nil {
				return err
			}
			if !valid {
				fresh = append(fresh, row)
			}
		}
		return tx.Register(fresh, outputs)
	})
	for _, info := range infos {
		h.cache.end(info.Path, err == nil)
	}
	if err == nil {
		err = s.syncRows(h)
	}
	if err != nil {
		return public(err)
	}
	s.syncs.registered(0)
	return s.step("adopted")
}

// outputsOf gives the output paths that a derivation of the lower store names. That it keeps to the rules was seen to when
// it was registered there.
func (s *Store) outputsOf(h *handle, p storepath.Path) (map[string]string, error) {
	drv, _, err := s.loadDerivation(h, p)
	if err != nil {
		return nil, err
	}
	return s.knownOutputs(drv)
}

// noteAdopted adopts what is missing and sets valid where paths are among it.
func (s *Store) noteAdopted(ctx context.Context, h *handle, missing, paths []storepath.Path, valid []bool) error {
	found, err := s.adopt(ctx, h, missing)
	if err != nil || len(found) == 0 {
		return err
	}
	found = storepath.SortUnique(found)
	for i, p := range paths {
		valid[i] = valid[i] || storepath.Contains(found, p)
	}
	return nil
}
