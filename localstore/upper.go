package localstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"nixdaemon/localstore/internal/fstree"
	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/storepath"
)

// Upper is a store on an overlay as its collector sees it: what may be deleted is in the upper layer, and only what has a
// row keeps anything from being deleted.
type Upper struct{ *Store }

// Upper gives the collector's view of a store on an overlay; ok is false for a plain store.
func (s *Store) Upper() (u Upper, ok bool) { return Upper{s}, s.opts.Overlay != nil }

// Referrers gives the paths with rows that refer to p.
func (u Upper) Referrers(ctx context.Context, p storepath.Path) ([]storepath.Path, error) {
	return u.ownReferrers(ctx, p)
}

// DeleteTree deletes a name of the store directory from the upper layer, or anything elsewhere.
func (u Upper) DeleteTree(ctx context.Context, realPath string) (freed uint64, err error) {
	h := u.acquire()
	defer h.release()
	name, ok := h.nameIn(realPath)
	if !ok {
		return u.Store.DeleteTree(ctx, realPath)
	}
	return u.deleteUpper(ctx, name)
}

// deleteUpper deletes a name from the upper layer. Deleting through the overlay what the lower store has, too, would hide
// it for good: that goes behind the overlay's back, which then may not know any more what is there.
func (s *Store) deleteUpper(ctx context.Context, name string) (uint64, error) {
	layer := s.opts.Overlay.UpperLayer
	if layer == "" {
		return 0, nil
	}
	upper, err := fstree.OpenRoot(layer)
	if err != nil {
		return 0, err
	}
	defer upper.Close()
	if there, err := upper.Exists(name); err != nil || !there {
		return 0, err
	}
	p, err := storepath.ParseBase(name)
	if err != nil {
		return s.DeleteTree(ctx, s.opts.RealDir+"/"+name)
	}
	info, err := s.infoBelow(ctx, p)
	if err != nil {
		return 0, err
	}
	if info == nil {
		return s.DeleteTree(ctx, s.RealPath(p))
	}
	s.remount.Store(true)
	freed, err := upper.Delete(ctx, name)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return freed, err
}

// Adopt makes rows of what the lower store has of the paths, so that it is seen what depends on them: with outputs of what
// derivations among them make, too, with derivers of what makes them.
func (u Upper) Adopt(ctx context.Context, paths []storepath.Path, outputs, derivers bool) error {
	h := u.acquire()
	defer h.release()
	if _, err := u.adoptMissing(ctx, h, paths); err != nil {
		return err
	}
	var more []storepath.Path
	for _, p := range paths {
		if derivers {
			drvs, err := u.lower().ValidDerivers(ctx, p)
			if err != nil {
				return err
			}
			more = append(more, drvs...)
		}
		if !outputs || !p.IsDerivation() {
			continue
		}
		if valid, err := u.isValid(ctx, h, p); err != nil {
			return err
		} else if !valid {
			continue
		}
		outs, err := u.DerivationOutputs(ctx, p)
		if err != nil {
			return err
		}
		for _, out := range outs {
			more = append(more, out)
		}
	}
	_, err := u.adoptMissing(ctx, h, storepath.SortUnique(more))
	return err
}

// adoptNames is how many names of the store directory are looked up at a time.
const adoptNames = 4096

// AdoptAll makes rows of all that the lower store has and the store directory shows.
func (u Upper) AdoptAll(ctx context.Context) error {
	h := u.acquire()
	defer h.release()
	var paths []storepath.Path
	err := h.root.EachName(func(name string) {
		if p, err := storepath.ParseBase(strings.Clone(name)); err == nil {
			paths = append(paths, p)
		}
	})
	if err != nil {
		return err
	}
	for some := range slices.Chunk(paths, adoptNames) {
		if _, err := u.adoptMissing(ctx, h, some); err != nil {
			return err
		}
	}
	return nil
}

// Remount has the store directory mounted anew if something was deleted behind the overlay's back, or warns that it should
// be.
func (s *Store) Remount(ctx context.Context, log activity.Sink) error {
	if !s.remount.Swap(false) {
		return nil
	}
	if s.opts.Overlay.Remount == nil {
		log.Message(activity.Warn, fmt.Sprintf("warning: \"%s\" needs remounting, set remount-hook to do this automatically", s.opts.RealDir))
		return nil
	}
	err := s.opts.Overlay.Remount(ctx, s.opts.RealDir)
	if err != nil {
		s.remount.Store(true)
	}
	return err
}

// deduplicateAll deletes from the upper layer what the lower store has got since.
func (s *Store) deduplicateAll(ctx context.Context, progress OptimiseProgress) error {
	paths, err := s.AllValidPaths(ctx)
	if err != nil {
		return err
	}
	total, done := uint64(len(paths)), uint64(0)
	progress.Paths(0, total)
	for some := range slices.Chunk(paths, adoptNames) {
		infos, err := s.lower().PathInfos(ctx, some)
		if err != nil {
			return err
		}
		below := make(map[storepath.Path]struct{}, len(infos))
		for _, info := range infos {
			below[info.Path] = struct{}{}
		}
		for _, p := range some {
			if _, ok := below[p]; ok {
				if _, err := s.deleteUpper(ctx, p.Base()); err != nil {
					return err
				}
			}
			done++
			progress.Paths(done, total)
		}
	}
	return s.Remount(ctx, progress.Log)
}

// exchange swaps two trees. A directory of the lower store cannot be moved: it is hidden, and swapped is false.
func (s *Store) exchange(from *fstree.Dir, name string, to *fstree.Dir, toName string) (swapped bool, err error) {
	err = from.Exchange(name, to, toName)
	if s.lower() == nil || !errors.Is(err, unix.EXDEV) {
		return err == nil, err
	}
	if _, err := to.Delete(context.Background(), toName); err != nil {
		return false, err
	}
	return false, from.Move(name, to, toName)
}
