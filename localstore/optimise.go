package localstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync/atomic"

	"nixdaemon/localstore/internal/db"
	"nixdaemon/localstore/internal/fstree"
	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/storepath"
)

// OptimiseStats is what optimising gained.
type OptimiseStats struct {
	FilesLinked uint64
	BytesFreed  uint64
	// BlocksFreed are of 512 bytes each.
	BlocksFreed uint64
	// Layers says that nothing was linked: the store is on an overlay, and what its lower store has got, too, was deleted.
	Layers bool
}

// OptimiseProgress is called as a whole store is optimised: for each path that begins, giving what to call at its end;
// how many paths are done, and how many there are; and for each file that was linked. It may be called from any goroutine. Nil functions are not called.
type OptimiseProgress struct {
	Path   func(p storepath.Path) (finished func())
	Paths  func(done, expected uint64)
	Linked func(size, blocks uint64)
	Log    activity.Sink
}

// Optimise gives files of a path the same inode as equal files of others.
func (s *Store) Optimise(ctx context.Context, p storepath.Path) error {
	h := s.acquire()
	defer h.release()
	return s.optimise(ctx, h, p, &AddOptions{})
}

func (s *Store) optimise(ctx context.Context, h *handle, p storepath.Path, o *AddOptions) error {
	// A repaired path has an old row, see adding.replace.
	sync := o.Repair && s.opts.tracksDurability()
	return s.optimiser(h, o.log(), fstree.OptimiseOptions{Repair: o.Repair, Sync: sync}).Tree(ctx, p.Base())
}

// linking are the options for restoring what is added: with what it equals linked as it is written, if that is wanted.
func (s *Store) linking(h *handle, o *AddOptions) fstree.RestoreOptions {
	r := s.restoreOptions(h)
	if o.Optimise && !o.Repair {
		r.Link = s.optimiser(h, o.log(), fstree.OptimiseOptions{})
	}
	return r
}

func (s *Store) optimiser(h *handle, log activity.Sink, o fstree.OptimiseOptions) *fstree.Optimiser {
	message := func(level activity.Level) func(string) {
		return func(text string) { log.Message(level, text) }
	}
	o.Warn = func(text string) { log.Message(activity.Warn, "warning: "+text) }
	o.Info, o.Talkative = message(activity.Info), message(activity.Talkative)
	return fstree.NewOptimiser(h.root, h.links, o)
}

// OptimiseAll optimises every valid path, several at a time. Paths that are deleted meanwhile are left out.
func (s *Store) OptimiseAll(ctx context.Context, progress OptimiseProgress) (OptimiseStats, error) {
	h := s.acquire()
	defer h.release()
	if progress.Log == nil {
		progress.Log = activity.Discard{}
	}
	if progress.Path == nil {
		progress.Path = func(storepath.Path) func() { return func() {} }
	}
	if progress.Paths == nil {
		progress.Paths = func(_, _ uint64) {}
	}
	if s.lower() != nil {
		return OptimiseStats{Layers: true}, s.deduplicateAll(ctx, progress)
	}
	var files, bytes, blocks, done atomic.Uint64
	// Most paths lie before the durable mark: what they are linked to must be on disk, too.
	opt := s.optimiser(h, progress.Log, fstree.OptimiseOptions{Sync: s.opts.tracksDurability(), Linked: func(size, count uint64) {
		files.Add(1)
		bytes.Add(size)
		blocks.Add(count)
		if progress.Linked != nil {
			progress.Linked(size, count)
		}
	}})
	count, err := h.db.CountPaths(ctx)
	if err != nil {
		return OptimiseStats{}, public(err)
	}
	inodes, err := opt.Load()
	if err != nil {
		return OptimiseStats{}, err
	}
	progress.Log.Message(activity.Talkative, fmt.Sprintf("loaded %d hash inodes", inodes))
	progress.Paths(0, count)
	err = s.eachValid(ctx, h, func(ctx context.Context, p storepath.Path) error {
		finished := progress.Path(p)
		err := optimiseReplaced(ctx, opt, p)
		finished()
		now := done.Add(1)
		progress.Paths(now, max(now, count))
		return err
	})
	return OptimiseStats{FilesLinked: files.Load(), BytesFreed: bytes.Load(), BlocksFreed: blocks.Load()}, err
}

// optimiseReplaced optimises a path that may be replaced meanwhile, by a repair: what was being looked at is gone then.
func optimiseReplaced(ctx context.Context, opt *fstree.Optimiser, p storepath.Path) error {
	const tries = 5
	for try := 1; ; try++ {
		err := opt.Tree(ctx, p.Base())
		if !errors.Is(err, fs.ErrNotExist) || try == tries {
			return err
		}
	}
}

// rootedAtOnce is how many paths are temporary roots together while they are worked with.
const rootedAtOnce = 128

// eachValid runs f for all valid paths, on all processors, each a temporary root meanwhile. Those that are not valid any
// more are left out.
func (s *Store) eachValid(ctx context.Context, h *handle, f func(context.Context, storepath.Path) error) error {
	rows, err := s.newNameReader(ctx, h)
	if err != nil {
		return err
	}
	return onAllProcessors(ctx, func(ctx context.Context) error {
		for {
			some, err := rows.next(ctx, rootedAtOnce)
			if err != nil || len(some) == 0 {
				return err
			}
			if err := s.eachRooted(ctx, h, some, f); err != nil {
				return err
			}
		}
	})
}

func (s *Store) eachRooted(ctx context.Context, h *handle, rows []validRow, f func(context.Context, storepath.Path) error) (err error) {
	paths := make([]storepath.Path, len(rows))
	for i, r := range rows {
		paths[i] = r.path
	}
	roots := s.NewTempRoots()
	defer func() { err = errors.Join(err, roots.Close()) }()
	if err := roots.Add(ctx, paths...); err != nil {
		return err
	}
	valid, err := s.stillValid(ctx, h, rows)
	if err != nil {
		return err
	}
	for i, p := range paths {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if !valid[i] {
			continue
		}
		if err := f(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

// stillValid tells of each row whether its path is valid now. It leaves the cache alone: who goes through the whole store
// would fill it with what nobody else asks for.
func (s *Store) stillValid(ctx context.Context, h *handle, rows []validRow) ([]bool, error) {
	asked := make([]*db.PathRow, len(rows))
	for i, r := range rows {
		asked[i] = r.row
	}
	valid, err := h.db.StillThere(ctx, asked)
	if err != nil {
		return nil, public(err)
	}
	return valid, public(again(ctx, h.db, asked, valid))
}

// again looks for those that are not there by their paths: they may have been registered anew, with another number.
func again(ctx context.Context, d *db.DB, rows []*db.PathRow, valid []bool) error {
	var ask []string
	for i, r := range rows {
		if !valid[i] {
			ask = append(ask, r.Path)
		}
	}
	if len(ask) == 0 {
		return nil
	}
	found, err := d.ValidSubset(ctx, ask)
	for i, r := range rows {
		if len(found) > 0 && !valid[i] && found[0] == r.Path {
			valid[i], found = true, found[1:]
		}
	}
	return err
}
