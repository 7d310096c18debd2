package localstore

import (
	"context"
	"errors"
	"fmt"

	"nixdaemon/localstore/internal/db"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
)

// NotValidError says that something was asked of a path that is not valid. Path is a full store path.
type NotValidError struct{ Path string }

func (e *NotValidError) Error() string { return fmt.Sprintf("path '%s' is not valid", e.Path) }

func (s *Store) notValid(p storepath.Path) error { return &NotValidError{s.opts.StoreDir.Print(p)} }

// public turns the database's errors that callers tell apart into this package's.
func public(err error) error {
	if invalid := (*db.NotValidError)(nil); errors.As(err, &invalid) {
		return &NotValidError{invalid.Path}
	}
	if used := (*db.ReferrersError)(nil); errors.As(err, &used) {
		return &InUseError{Path: used.Path, Referrers: used.Referrers}
	}
	return err
}

// IsValid tells whether a path is valid.
func (s *Store) IsValid(ctx context.Context, p storepath.Path) (bool, error) {
	h := s.acquire()
	defer h.release()
	return s.isValid(ctx, h, p)
}

func (s *Store) isValid(ctx context.Context, h *handle, p storepath.Path) (bool, error) {
	v, known, ticket := h.cache.get(p)
	if known {
		return v.valid, nil
	}
	valid, err := h.db.IsValid(ctx, s.opts.StoreDir.Print(p))
	if err != nil {
		return false, err
	}
	if !valid && s.lower() != nil {
		// Not remembered: the lower store may get it.
		found, err := s.adopt(ctx, h, []storepath.Path{p})
		return len(found) == 1, err
	}
	h.cache.put(p, ticket, cached{valid: valid})
	return valid, nil
}

// PathInfo gives what is known of a path, or a [NotValidError]. The Info is shared: do not modify it.
func (s *Store) PathInfo(ctx context.Context, p storepath.Path) (*pathinfo.Info, error) {
	h := s.acquire()
	defer h.release()
	info, err := s.pathInfo(ctx, h, p)
	if err == nil && info == nil {
		err = s.notValid(p)
	}
	return info, err
}

// pathInfo is PathInfo with nil for what is not valid.
func (s *Store) pathInfo(ctx context.Context, h *handle, p storepath.Path) (*pathinfo.Info, error) {
	v, known, ticket := h.cache.get(p)
	if known && (!v.valid || v.info != nil) {
		return v.info, nil
	}
	if known {
		// Validity alone was known; what else there is to know replaces it.
		ticket = h.cache.ticket(p)
	}
	row, found, err := h.db.QueryPath(ctx, s.opts.StoreDir.Print(p))
	if err != nil {
		return nil, err
	}
	if !found && s.lower() != nil {
		return s.infoBelow(ctx, p)
	}
	if !found {
		h.cache.put(p, ticket, cached{})
		return nil, nil
	}
	info, err := s.fromRow(p, &row)
	if err != nil {
		return nil, err
	}
	h.cache.put(p, ticket, cached{true, info})
	return info, nil
}

// ValidPaths gives those of the paths that are valid, in their order.
func (s *Store) ValidPaths(ctx context.Context, paths []storepath.Path) ([]storepath.Path, error) {
	h := s.acquire()
	defer h.release()
	valid := make([]bool, len(paths))
	var open []int
	var tickets []ticket
	for i, p := range paths {
		v, known, ticket := h.cache.get(p)
		if known {
			valid[i] = v.valid
		} else {
			open, tickets = append(open, i), append(tickets, ticket)
		}
	}
	if len(open) > 0 {
		found, err := s.validOf(ctx, h, paths, open)
		if err != nil {
			return nil, err
		}
		var missing []storepath.Path
		for k, i := range open {
			_, valid[i] = found[s.opts.StoreDir.Print(paths[i])]
			if !valid[i] && s.lower() != nil {
				missing = append(missing, paths[i])
				continue
			}
			h.cache.put(paths[i], tickets[k], cached{valid: valid[i]})
		}
		if err := s.noteAdopted(ctx, h, missing, paths, valid); err != nil {
			return nil, err
		}
	}
	var out []storepath.Path
	for i, p := range paths {
		if valid[i] {
			out = append(out, p)
		}
	}
	return out, nil
}

// scanThreshold is from how many unknown paths on the whole list of valid ones is read instead of asking for each:
// one row of a scan costs a tenth of a lookup.
const scanThreshold = 5000

func (s *Store) validOf(ctx context.Context, h *handle, paths []storepath.Path, open []int) (map[string]struct{}, error) {
	var texts []string
	var err error
	if len(open) >= scanThreshold {
		texts, err = h.db.AllPaths(ctx)
	} else {
		ask := make([]string, len(open))
		for k, i := range open {
			ask[k] = s.opts.StoreDir.Print(paths[i])
		}
		texts, err = h.db.ValidSubset(ctx, ask)
	}
	if err != nil {
		return nil, err
	}
	found := make(map[string]struct{}, len(texts))
	for _, text := range texts {
		found[text] = struct{}{}
	}
	return found, nil
}

// listed reads paths as the database has them.
func (s *Store) listed(ask func(*handle) ([]string, error)) ([]storepath.Path, error) {
	h := s.acquire()
	defer h.release()
	texts, err := ask(h)
	if err != nil {
		return nil, err
	}
	return s.parsePaths(texts)
}

// AllValidPaths gives every valid path, sorted.
func (s *Store) AllValidPaths(ctx context.Context) ([]storepath.Path, error) {
	return s.listed(func(h *handle) ([]string, error) { return h.db.AllPaths(ctx) })
}

// Referrers gives the valid paths that refer to p, sorted, itself included if it does. An invalid path has none.
func (s *Store) Referrers(ctx context.Context, p storepath.Path) ([]storepath.Path, error) {
	own, err := s.ownReferrers(ctx, p)
	if err != nil {
		return nil, err
	}
	return s.withBelow(own, func(l Lower) ([]storepath.Path, error) { return l.Referrers(ctx, p) })
}

// ownReferrers is Referrers without those that the lower store alone knows.
func (s *Store) ownReferrers(ctx context.Context, p storepath.Path) ([]storepath.Path, error) {
	return s.listed(func(h *handle) ([]string, error) { return h.db.Referrers(ctx, s.opts.StoreDir.Print(p)) })
}

// ValidDerivers gives the valid derivations that have p among their outputs, sorted; p itself need not be valid.
func (s *Store) ValidDerivers(ctx context.Context, p storepath.Path) ([]storepath.Path, error) {
	own, err := s.listed(func(h *handle) ([]string, error) { return h.db.ValidDerivers(ctx, s.opts.StoreDir.Print(p)) })
	if err != nil {
		return nil, err
	}
	return s.withBelow(own, func(l Lower) ([]storepath.Path, error) { return l.ValidDerivers(ctx, p) })
}

// DerivationOutputs gives the output paths of a valid derivation that are known without building it, by output name;
// a [NotValidError] if it is not valid.
func (s *Store) DerivationOutputs(ctx context.Context, drv storepath.Path) (map[string]storepath.Path, error) {
	h := s.acquire()
	defer h.release()
	if err := s.adoptOne(ctx, h, drv); err != nil {
		return nil, err
	}
	texts, err := h.db.DerivationOutputs(ctx, s.opts.StoreDir.Print(drv))
	if err != nil {
		return nil, public(err)
	}
	out := make(map[string]storepath.Path, len(texts))
	for name, text := range texts {
		if out[name], err = s.opts.StoreDir.Parse(text); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// PathFromHashPart gives the valid path with that hash part; the zero Path if there is none.
func (s *Store) PathFromHashPart(ctx context.Context, hashPart string) (storepath.Path, error) {
	if len(hashPart) != storepath.HashLen {
		return storepath.Path{}, errors.New("invalid hash part")
	}
	h := s.acquire()
	defer h.release()
	text, found, err := h.db.PathFromHashPart(ctx, string(s.opts.StoreDir)+"/"+hashPart)
	if err == nil && !found && s.lower() != nil {
		return s.lower().PathFromHashPart(ctx, hashPart)
	}
	if err != nil || !found {
		return storepath.Path{}, err
	}
	return s.opts.StoreDir.Parse(text)
}
