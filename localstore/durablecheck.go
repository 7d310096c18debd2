package localstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"nixdaemon/localstore/internal/db"
	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/nixhash"
)

const (
	// checkBatch is how many rows are in memory at a time.
	checkBatch = 1024

	// checkpointEvery is how much work is lost at most if the check is interrupted.
	checkpointEvery = 10 * time.Second
)

// checkDurable looks, as the store is opened, whether the machine was restarted since the mark was written. If so it
// verifies what was registered after it, and makes invalid what did not survive along with all that refers to it.
// It tells whether there is something to be synced.
func (s *Store) checkDurable(ctx context.Context, h *handle) (unsynced bool, err error) {
	if !s.opts.tracksDurability() {
		return false, nil
	}
	last, err := h.db.LastID(ctx)
	if err != nil {
		return false, err
	}
	mark, err := s.opts.readMark()
	var fits bool
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		s.opts.Log(activity.Error, fmt.Sprintf("cannot read '%s', so everything is verified: %v", s.opts.durableFile(), err))
		mark, fits = durableMark{}, true
	default:
		if fits, err = mark.fits(ctx, h, last); err != nil {
			return false, err
		}
	}
	if !fits {
		return last > 0, s.setMark(ctx, h, s.boot, last)
	}
	if mark.Boot == s.boot && s.boot != "" || mark.ID == last {
		return mark.ID < last, nil
	}
	return false, s.recover(ctx, h, mark)
}

// setMark begins a new history. Even the first mark has to be durable: without one, rows that reached the disk before it
// would be taken for those of a store that has always been there.
func (s *Store) setMark(ctx context.Context, h *handle, boot string, id int64) error {
	mark, err := s.markOf(ctx, h, boot, id)
	if err != nil {
		return err
	}
	err = s.opts.writeMark(mark, true)
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		// Whoever wants to make room must be able to start us. At worst more is verified than needs be.
		s.opts.Log(activity.Error, err.Error())
		return nil
	}
	return err
}

// recover verifies all rows beyond the mark, in their order, and moves the mark along.
func (s *Store) recover(ctx context.Context, h *handle, mark durableMark) error {
	s.opts.Log(activity.Info, "the machine was restarted: verifying the store paths that were registered shortly before")
	total, err := h.db.CountBeyond(ctx, mark.ID)
	if err != nil {
		return err
	}
	var done atomic.Uint64
	one := func() { now := done.Add(1); s.opts.Recovering(now, max(now, total)) }
	s.opts.Recovering(0, total)
	checked, removed, id, saved := 0, 0, mark.ID, time.Now()
	for {
		rows, err := h.db.RowsBeyond(ctx, id, checkBatch)
		if err != nil {
			return err
		}
		if len(rows) == 0 {
			break
		}
		n, err := s.recoverBatch(ctx, h, rows, one)
		if err != nil {
			return fmt.Errorf("verify what was registered before the restart: %w", err)
		}
		id, checked, removed = rows[len(rows)-1].ID, checked+len(rows), removed+n
		if time.Since(saved) < checkpointEvery {
			continue
		}
		if err := s.checkpoint(ctx, h, mark.Boot, id); err != nil {
			return err
		}
		saved = time.Now()
	}
	s.opts.Log(activity.Info, fmt.Sprintf("verified %d store paths, %d are not valid any more", checked, removed))
	return s.checkpoint(ctx, h, s.boot, id)
}

// checkpoint makes the removal of rows durable before the mark that will not look at them again.
func (s *Store) checkpoint(ctx context.Context, h *handle, boot string, id int64) error {
	err := s.syncAll(h)
	if lost := (*syncError)(nil); errors.As(err, &lost) {
		// What was verified is served all the same, and verified again the next time.
		s.opts.Log(activity.Error, err.Error())
		return nil
	}
	if err != nil {
		return err
	}
	return s.setMark(ctx, h, boot, id)
}

// recoverBatch calls one for each path that was looked at, and tells how many paths it made invalid.
func (s *Store) recoverBatch(ctx context.Context, h *handle, rows []db.PathRow, one func()) (int, error) {
	var mu sync.Mutex
	var damaged []db.PathRow
	err := inParallel(ctx, rows, func(ctx context.Context, row db.PathRow) error {
		err := s.survived(ctx, h, &row)
		one()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil || !isDamage(err) {
			return err
		}
		s.opts.Log(activity.Error, fmt.Sprintf("path '%s' did not survive the restart of the machine: %v", row.Path, err))
		mu.Lock()
		defer mu.Unlock()
		damaged = append(damaged, row)
		return nil
	})
	if err != nil || len(damaged) == 0 {
		return 0, err
	}
	if err := s.dropLinks(h, damaged); err != nil {
		return 0, err
	}
	return s.invalidateDamaged(ctx, h, damaged)
}

func (s *Store) invalidateDamaged(ctx context.Context, h *handle, damaged []db.PathRow) (int, error) {
	var removed []string
	err := h.db.Write(ctx, func(tx *db.Tx) (err error) {
		removed, err = tx.InvalidateWithReferrers(damaged)
		return err
	})
	if err != nil {
		return 0, err
	}
	itself := make(map[string]struct{}, len(damaged))
	for i := range damaged {
		itself[damaged[i].Path] = struct{}{}
	}
	for _, path := range removed {
		if _, ok := itself[path]; !ok {
			s.opts.Log(activity.Error, fmt.Sprintf("path '%s' is not valid any more, since it refers to a path that did not survive", path))
		}
	}
	return len(removed), nil
}

// survived gives an error if a path is not what its row says.
func (s *Store) survived(ctx context.Context, h *handle, row *db.PathRow) error {
	p, err := s.opts.StoreDir.Parse(row.Path)
	if err != nil {
		return damageError(err.Error())
	}
	want, err := nixhash.Parse(row.Hash)
	if err != nil {
		return damageError(err.Error())
	}
	sum := &plainSum{hash: nixhash.SHA256.New()}
	if err := s.dumpMapped(ctx, h, p, sum); err != nil {
		return err
	}
	got := nixhash.FromSum(nixhash.SHA256, sum.hash)
	if row.NarSize != 0 && row.NarSize != sum.size {
		return damageError(fmt.Sprintf("its archive has %d bytes, not %d", sum.size, row.NarSize))
	}
	if got != want && !isNullHash(want) {
		return damageError(fmt.Sprintf("its hash is '%s', not '%s'", got, want))
	}
	return nil
}

// damageError says in what contents differ from their row.
type damageError string

func (e damageError) Error() string { return string(e) }

// isDamage tells an error that comes of the contents from one of ours, for which nothing should become invalid.
func isDamage(err error) bool {
	for _, ours := range []error{unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.EACCES, unix.EPERM, unix.EINTR, unix.EAGAIN} {
		if errors.Is(err, ours) {
			return false
		}
	}
	return true
}

// dropLinks removes the names that files of damaged paths have among those that optimising links to. Others would be given
// the same damage otherwise, since sizes are compared alone there.
func (s *Store) dropLinks(h *handle, damaged []db.PathRow) error {
	inodes := make(map[uint64]struct{})
	for i := range damaged {
		p, err := s.opts.StoreDir.Parse(damaged[i].Path)
		if err == nil {
			collectShared(s.RealPath(p), inodes)
		}
	}
	if len(inodes) == 0 {
		return nil
	}
	return s.unlinkAll(h, inodes)
}

// collectShared notes the files of a tree that have several names. What cannot be read has none that matters.
func collectShared(root string, inodes map[uint64]struct{}) {
	filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		var st unix.Stat_t
		if err == nil && !d.IsDir() && unix.Lstat(path, &st) == nil && st.Nlink > 1 {
			inodes[st.Ino] = struct{}{}
		}
		return nil
	})
}

func (s *Store) unlinkAll(h *handle, inodes map[uint64]struct{}) error {
	names, err := h.links.Names()
	if err != nil {
		return err
	}
	for _, name := range names {
		path := filepath.Join(s.opts.linksDir(), name)
		var st unix.Stat_t
		if unix.Lstat(path, &st) != nil {
			continue
		}
		if _, bad := inodes[st.Ino]; !bad {
			continue
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
