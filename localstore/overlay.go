package localstore

import (
	"context"
	"errors"
	"slices"

	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
)

// Overlay says that a store's directory is an overlay file system, which shows what another store has beneath what this
// one has made. The database has rows of what this one has made, of all that it refers to, and of what somebody has asked
// for (libstore/local-overlay-store.cc). Nothing of the lower store is ever changed.
type Overlay struct {
	Lower Lower
	// UpperLayer is the directory where the overlay puts what is made; empty if that is not known, and then nothing
	// is deleted.
	UpperLayer string
	// Check, unless nil, tells whether the overlay is mounted, before anything is opened or made in the store directory.
	Check func() error
	// Remount, unless nil, mounts the store directory anew after something was deleted behind the overlay's back.
	Remount func(ctx context.Context, storeDir string) error
}

// Lower is what a store on an overlay asks the one beneath it. Its paths are printed with the same directory.
type Lower interface {
	// PathInfos gives the metadata of those of the paths that are valid. They are shared: nobody modifies them.
	PathInfos(ctx context.Context, paths []storepath.Path) ([]*pathinfo.Info, error)
	// Referrers gives the valid paths that refer to p, none if that is not valid.
	Referrers(ctx context.Context, p storepath.Path) ([]storepath.Path, error)
	// ValidDerivers gives the valid derivations that have p among their outputs.
	ValidDerivers(ctx context.Context, p storepath.Path) ([]storepath.Path, error)
	// PathFromHashPart gives the valid path with that hash part; the zero Path if there is none.
	PathFromHashPart(ctx context.Context, hashPart string) (storepath.Path, error)
	// QueryRealisation gives what is known of an output, or nil.
	QueryRealisation(ctx context.Context, id pathinfo.DrvOutput) (*pathinfo.Realisation, error)
	// Refresh is [Store.Refresh].
	Refresh(ctx context.Context) error
	Close() error
}

// lower is what is beneath the store; nil for a plain one.
func (s *Store) lower() Lower {
	if s.opts.Overlay == nil {
		return nil
	}
	return s.opts.Overlay.Lower
}

// infoBelow gives what the lower store knows of a path; nil if that is not valid there, or if there is none.
func (s *Store) infoBelow(ctx context.Context, p storepath.Path) (*pathinfo.Info, error) {
	lower := s.lower()
	if lower == nil {
		return nil, nil
	}
	infos, err := lower.PathInfos(ctx, []storepath.Path{p})
	if err != nil || len(infos) == 0 {
		return nil, err
	}
	return infos[0], nil
}

// withBelow adds what the lower store gives to a sorted set.
func (s *Store) withBelow(own []storepath.Path, ask func(Lower) ([]storepath.Path, error)) ([]storepath.Path, error) {
	lower := s.lower()
	if lower == nil {
		return own, nil
	}
	more, err := ask(lower)
	if err != nil || len(more) == 0 {
		return own, err
	}
	return storepath.SortUnique(slices.Concat(own, more)), nil
}

// adoptOne makes a row of a path that the lower store has, if there is none, for what is about to change it or to ask the
// database alone.
func (s *Store) adoptOne(ctx context.Context, h *handle, p storepath.Path) error {
	if s.lower() == nil {
		return nil
	}
	_, err := s.isValid(ctx, h, p)
	return err
}

// adoptFor makes rows of what is about to be registered or referred to, as far as the lower store has it: what is known
// there is added to and not hidden.
func (s *Store) adoptFor(ctx context.Context, h *handle, infos []*pathinfo.Info) error {
	if s.lower() == nil {
		return nil
	}
	var paths []storepath.Path
	for _, info := range infos {
		paths = append(append(paths, info.Path), info.References...)
	}
	_, err := s.adoptMissing(ctx, h, storepath.SortUnique(paths))
	return err
}

// adoptRealisation records what the lower store knows of an output before more is recorded, and makes a row of the path.
func (s *Store) adoptRealisation(ctx context.Context, h *handle, r *pathinfo.Realisation) error {
	lower := s.lower()
	if lower == nil {
		return nil
	}
	known, err := lower.QueryRealisation(ctx, r.ID)
	if err != nil {
		return err
	}
	if err := s.adoptOne(ctx, h, r.OutPath); err != nil || known == nil {
		return err
	}
	if valid, err := s.isValid(ctx, h, known.OutPath); err != nil || !valid {
		return err
	}
	return s.registerRealisation(ctx, h, &pathinfo.Realisation{ID: r.ID, OutPath: known.OutPath, Sigs: known.Sigs})
}

// closeLower closes the store beneath.
func (s *Store) closeLower() error {
	if lower := s.lower(); lower != nil {
		return lower.Close()
	}
	return nil
}

// refreshLower is Refresh for the store beneath.
func (s *Store) refreshLower(ctx context.Context) error {
	if lower := s.lower(); lower != nil {
		return lower.Refresh(ctx)
	}
	return nil
}

// AsLower gives a store as one beneath another.
func (s *Store) AsLower() Lower { return localLower{s} }

// localLower is a store of this machine beneath another.
type localLower struct{ *Store }

// PathInfos implements Lower.
func (l localLower) PathInfos(ctx context.Context, paths []storepath.Path) ([]*pathinfo.Info, error) {
	infos := make([]*pathinfo.Info, 0, len(paths))
	for _, p := range paths {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		info, err := l.PathInfo(ctx, p)
		if invalid := (*NotValidError)(nil); errors.As(err, &invalid) {
			continue
		}
		if err != nil {
			return nil, err
		}
		infos = append(infos, info)
	}
	return infos, nil
}
