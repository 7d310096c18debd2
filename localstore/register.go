package localstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"nixdaemon/localstore/internal/db"
	"nixdaemon/localstore/internal/fstree"
	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
)

// CycleError says that paths to be registered refer to each other in a circle.
type CycleError struct{ Path, Parent string }

func (e *CycleError) Error() string {
	return fmt.Sprintf("cycle detected in the references of '%s' from '%s'", e.Path, e.Parent)
}

// Register makes paths valid whose contents are in place, or updates what is known of those that are valid: their
// deriver and registration time stay, references are added to (libstore/local-store.cc, registerValidPaths).
// All or none; they may refer to each other, but not in a circle ([CycleError]), and to valid paths
// ([NotValidError]). A derivation must be what its outputs' paths say. When Register returns the rows are
// committed, together with those of others that wait.
func (s *Store) Register(ctx context.Context, infos []*pathinfo.Info) error {
	h := s.acquire()
	defer h.release()
	return s.register(ctx, h, infos, known{})
}

// known is what a caller of register knows besides.
type known struct {
	// drv is the derivation that the only path is; nil to have it read.
	drv *derivation.Derivation
}

func (s *Store) register(ctx context.Context, h *handle, infos []*pathinfo.Info, k known) error {
	if len(infos) == 0 {
		return nil
	}
	if err := s.checkCycles(infos); err != nil {
		return err
	}
	if err := s.adoptFor(ctx, h, infos); err != nil {
		return err
	}
	rows, outputs, err := s.rows(ctx, h, infos, k.drv)
	if err != nil {
		return err
	}
	if s.opts.SyncBeforeRegistering || s.opts.FsyncStorePaths {
		if err := h.contents.do(h.root.SyncFS); err != nil {
			return err
		}
	}
	if err := s.step("register"); err != nil {
		return err
	}
	for _, info := range infos {
		h.cache.begin(info.Path)
	}
	err = public(h.db.Write(ctx, func(tx *db.Tx) error { return tx.Register(rows, outputs) }))
	for i, info := range infos {
		h.cache.endAs(info.Path, s.registered(info.Path, &rows[i], err))
	}
	if err == nil {
		err = s.syncRows(h)
	}
	if err != nil {
		return err
	}
	s.syncs.registered(sizeOf(infos))
	return s.step("registered")
}

// syncRows makes what was committed durable, before it is acknowledged, if that is wanted.
func (s *Store) syncRows(h *handle) error {
	if !s.opts.FsyncStorePaths {
		return nil
	}
	return h.rows.do(h.db.SyncLog)
}

func sizeOf(infos []*pathinfo.Info) (bytes int64) {
	for _, info := range infos {
		bytes += int64(min(info.NarSize, 1<<40))
	}
	return bytes
}

// registered is what is known of a path after its registration, nil for nothing. Of one that was valid before it is not
// all: what there was has been added to.
func (s *Store) registered(p storepath.Path, row *db.PathRow, err error) *cached {
	if err != nil {
		return nil
	}
	v := &cached{valid: true}
	if row.Inserted {
		row.References = intern(row.References)
		if info, err := s.fromRow(p, row); err == nil {
			v.info = info
		}
	}
	return v
}

// rows makes the database's rows, and checks what needs no database.
func (s *Store) rows(ctx context.Context, h *handle, infos []*pathinfo.Info, drv *derivation.Derivation) ([]db.PathRow, map[string]map[string]string, error) {
	now := time.Now().Unix()
	rows := make([]db.PathRow, len(infos))
	var outputs map[string]map[string]string
	for i, info := range infos {
		if info.RegistrationTime == 0 {
			info.RegistrationTime = now
		}
		rows[i] = s.toRow(info)
		if err := s.checkAddress(info); err != nil {
			return nil, nil, err
		}
		if !info.Path.IsDerivation() {
			continue
		}
		paths, err := s.checkDerivation(ctx, h, info.Path, drv, infos)
		if err != nil {
			return nil, nil, err
		}
		if outputs == nil {
			outputs = make(map[string]map[string]string)
		}
		outputs[rows[i].Path] = paths
	}
	return rows, outputs, nil
}

func (s *Store) checkAddress(info *pathinfo.Info) error {
	if info.CA.IsZero() || info.IsContentAddressed(s.opts.StoreDir) {
		return nil
	}
	path := s.opts.StoreDir.Print(info.Path)
	s.opts.Log(activity.Error, fmt.Sprintf("warning: path '%s' claims to be content-addressed but isn't", path))
	return fmt.Errorf("cannot add path '%s' to the Nix store because it claims to be content-addressed but isn't", path)
}

// checkCycles goes through the graph depth first, in the order of upstream, whose text names what it finds first.
func (s *Store) checkCycles(infos []*pathinfo.Info) error {
	if len(infos) == 1 {
		return nil
	}
	byPath := make(map[storepath.Path]*pathinfo.Info, len(infos))
	paths := make([]storepath.Path, len(infos))
	for i, info := range infos {
		byPath[info.Path] = info
		paths[i] = info.Path
	}
	const open, done = 1, 2
	state := make(map[storepath.Path]int, len(infos))
	type visit struct {
		path storepath.Path
		next int // index of the next reference to look at
	}
	var stack []visit
	for _, start := range storepath.SortUnique(paths) {
		if state[start] != 0 {
			continue
		}
		state[start] = open
		stack = append(stack[:0], visit{path: start})
		for len(stack) > 0 {
			top := &stack[len(stack)-1]
			refs := byPath[top.path].References
			if top.next == len(refs) {
				state[top.path] = done
				stack = stack[:len(stack)-1]
				continue
			}
			ref := refs[top.next]
			top.next++
			switch {
			case ref == top.path || byPath[ref] == nil || state[ref] == done:
			case state[ref] == open:
				return &CycleError{s.opts.StoreDir.Print(ref), s.opts.StoreDir.Print(top.path)}
			default:
				state[ref] = open
				stack = append(stack, visit{path: ref})
			}
		}
	}
	return nil
}

// AddSignatures adds to the signatures of a valid path.
func (s *Store) AddSignatures(ctx context.Context, p storepath.Path, sigs []pathinfo.Signature) error {
	h := s.acquire()
	defer h.release()
	if err := s.adoptOne(ctx, h, p); err != nil {
		return err
	}
	path := s.opts.StoreDir.Print(p)
	h.cache.begin(p)
	err := h.db.Write(ctx, func(tx *db.Tx) error {
		row, found, err := tx.QueryPath(path)
		if err != nil {
			return err
		}
		if !found {
			return &db.NotValidError{Path: path}
		}
		old, err := splitSignatures(row.Sigs)
		if err != nil {
			return err
		}
		all := pathinfo.MergeSignatures(old, slices.Clone(sigs))
		return tx.SetSignatures(path, joinSignatures(all))
	})
	h.cache.end(p, false)
	if err == nil {
		err = s.syncRows(h)
	}
	return public(err)
}

// InUseError says that a path cannot be made invalid because others refer to it. All are full store paths.
type InUseError struct {
	Path      string
	Referrers []string
}

func (e *InUseError) Error() string {
	return (&db.ReferrersError{Path: e.Path, Referrers: e.Referrers}).Error()
}

// Invalidate makes a path invalid and leaves its files, which are garbage from then on. It tells whether the path was
// valid; while other valid paths refer to it, it gives an [InUseError]. Not even a power cut makes it valid again,
// so that its files may be deleted.
func (s *Store) Invalidate(ctx context.Context, p storepath.Path) (bool, error) {
	found, err := s.InvalidateAll(ctx, []storepath.Path{p})
	return found == 1, err
}

// InvalidateAll makes paths invalid in one transaction. It tells how many were valid.
func (s *Store) InvalidateAll(ctx context.Context, paths []storepath.Path) (int, error) {
	found := 0
	err := s.dropping(paths, func(h *handle, names []string) error {
		return h.db.Write(ctx, func(tx *db.Tx) (err error) { found, err = tx.InvalidateAll(names); return err })
	})
	if err == nil && found > 0 {
		err = s.SyncDropped()
	}
	if err != nil {
		return 0, err
	}
	return found, s.step("invalidated")
}

// DropRows makes the first of the paths invalid in one transaction, as many as there is time for while others wait to
// write, and tells how many. Only a path itself and those before it may refer to it. rows are the paths' by [Store.Graph].
// Until SyncDropped has returned a power cut could make the paths valid again, so that their files must stay.
func (s *Store) DropRows(ctx context.Context, paths []storepath.Path, rows db.Rows) (done int, err error) {
	err = s.dropping(paths, func(h *handle, names []string) (err error) {
		done, err = h.db.Drop(ctx, names, rows)
		return err
	})
	return done, err
}

// dropping calls drop, which makes some of the paths invalid, so that the caches know it.
func (s *Store) dropping(paths []storepath.Path, drop func(h *handle, names []string) error) error {
	h := s.acquire()
	defer h.release()
	for _, p := range paths {
		h.cache.begin(p)
	}
	err := drop(h, s.opts.StoreDir.PrintAll(paths))
	for _, p := range paths {
		h.cache.end(p, false)
		s.drvs.drop(p)
	}
	return public(err)
}

// SyncDropped makes durable what DropRows has done.
func (s *Store) SyncDropped() error {
	if !s.opts.FsyncMetadata {
		return nil
	}
	h := s.acquire()
	defer h.release()
	return public(h.rows.do(h.db.SyncLog))
}

// DeletePath makes a path invalid and deletes its files. It returns how many bytes that freed, and an [InUseError] if
// other paths refer to it. The caller sees to it that nobody needs it: roots are not looked at.
func (s *Store) DeletePath(ctx context.Context, p storepath.Path) (freed uint64, err error) {
	if _, err := s.Invalidate(ctx, p); err != nil {
		return 0, err
	}
	return s.DeleteTree(ctx, s.RealPath(p))
}

// DeleteTree deletes whatever is at that place, in the store or elsewhere, and tells how many bytes that freed.
// It is no error if there is nothing.
func (s *Store) DeleteTree(ctx context.Context, realPath string) (freed uint64, err error) {
	var deleteErr error
	err = s.at(realPath, func(_ *handle, dir *fstree.Dir, name string) error {
		freed, deleteErr = dir.Delete(ctx, name)
		return nil
	})
	// What is not there is where it would be. What is missing within it says that not all is gone.
	if errors.Is(err, fs.ErrNotExist) {
		return freed, nil
	}
	return freed, errors.Join(err, deleteErr)
}
