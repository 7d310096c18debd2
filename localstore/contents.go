package localstore

import (
	"context"
	"io"

	"nixdaemon/localstore/internal/fstree"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/storepath"
)

// CanonicaliseOptions say which files of a builder are accepted; see [fstree.CanonicaliseOptions].
type CanonicaliseOptions struct {
	// Owner is the range of user ids that the builder had; files of others are refused. Nil refuses none.
	Owner *OwnerRange
	// Seen holds the files that were canonicalised before in the same build, which may have several names. Nil
	// starts with none.
	Seen *Inodes
}

// OwnerRange is a range of user ids, both ends included.
type OwnerRange = fstree.OwnerRange

// Inodes is a set of files. The zero value is empty and ready; it is not for concurrent use.
type Inodes = fstree.Inodes

// OwnershipError says that an output holds a file that its builder did not make:
// `invalid ownership on file "<path>"`.
type OwnershipError = fstree.OwnershipError

// Dump writes the archive of a valid path, or gives a [NotValidError] before it writes anything. Other errors leave
// part of an archive behind.
func (s *Store) Dump(ctx context.Context, p storepath.Path, w io.Writer) error {
	h := s.acquire()
	defer h.release()
	valid, err := s.isValid(ctx, h, p)
	if err != nil {
		return err
	}
	if !valid {
		return s.notValid(p)
	}
	return s.dump(ctx, h, p, w)
}

func (s *Store) dump(ctx context.Context, h *handle, p storepath.Path, w io.Writer) error {
	return h.root.Dump(ctx, p.Base(), w, fstree.DumpOptions{CaseHack: s.opts.CaseHack})
}

// DumpFile writes the archive of any tree on disk, such as a builder's output. Links are not followed, except in the
// path of the directory that holds it.
func (s *Store) DumpFile(ctx context.Context, realPath string, w io.Writer) error {
	return s.at(realPath, func(_ *handle, dir *fstree.Dir, name string) error {
		return dir.Dump(ctx, name, w, fstree.DumpOptions{CaseHack: s.opts.CaseHack})
	})
}

// at opens the directory that holds a place on disk for as long as do works there.
func (s *Store) at(realPath string, do func(h *handle, dir *fstree.Dir, name string) error) error {
	h := s.acquire()
	defer h.release()
	dir, name, closeDir, err := h.split(realPath)
	if err != nil {
		return err
	}
	defer closeDir()
	return do(h, dir, name)
}

// between is at for two places.
func (s *Store) between(from, to string, do func(h *handle, fromDir *fstree.Dir, fromName string, toDir *fstree.Dir, toName string) error) error {
	return s.at(from, func(h *handle, fromDir *fstree.Dir, fromName string) error {
		toDir, toName, closeTo, err := h.split(to)
		if err != nil {
			return err
		}
		defer closeTo()
		return do(h, fromDir, fromName, toDir, toName)
	})
}

// Restore makes the tree of an archive at a place where nothing is yet, with canonical metadata.
func (s *Store) Restore(ctx context.Context, realPath string, nar io.Reader) error {
	return s.at(realPath, func(h *handle, dir *fstree.Dir, name string) error {
		_, err := dir.Restore(name, ctxReader(ctx, nar), nil, s.restoreOptions(h))
		return err
	})
}

func (s *Store) restoreOptions(h *handle) fstree.RestoreOptions {
	return fstree.RestoreOptions{
		CaseHack:    s.opts.CaseHack,
		DropACLs:    h.lists,
		IgnoredACLs: s.opts.IgnoredACLs,
		Preallocate: s.opts.Preallocate,
	}
}

// Canonicalise gives a tree that a builder left behind the metadata of store objects.
func (s *Store) Canonicalise(ctx context.Context, realPath string, o CanonicaliseOptions) error {
	return s.at(realPath, func(_ *handle, dir *fstree.Dir, name string) error {
		return dir.Canonicalise(ctx, name, fstree.CanonicaliseOptions{
			Owner: o.Owner, Seen: o.Seen, IgnoredACLs: s.opts.IgnoredACLs,
		})
	})
}

// Move renames a tree, such as a builder's output, to a name in the same file system that must be free.
func (s *Store) Move(from, to string) error {
	return s.between(from, to, func(_ *handle, fromDir *fstree.Dir, fromName string, toDir *fstree.Dir, toName string) error {
		return fromDir.Move(fromName, toDir, toName)
	})
}

// Replace renames a tree to a name in the same file system that may be taken: then what is there takes the tree's old
// name, in one step where the system can do that, and swapped is true. It is for repairing what is valid. Its row is an
// old one, so that nobody would verify the new contents after a power cut: everything is synced first.
func (s *Store) Replace(from, to string) (swapped bool, err error) {
	err = s.between(from, to, func(_ *handle, fromDir *fstree.Dir, fromName string, toDir *fstree.Dir, toName string) error {
		taken, err := toDir.Exists(toName)
		if err != nil {
			return err
		}
		if !taken {
			return fromDir.Move(fromName, toDir, toName)
		}
		if s.opts.tracksDurability() || s.opts.FsyncStorePaths {
			if err := fromDir.SyncFS(); err != nil {
				return err
			}
		}
		if swapped, err = s.exchange(fromDir, fromName, toDir, toName); err != nil {
			return err
		}
		return s.step("replaced")
	})
	return swapped, err
}

// hashTree gives the SHA-256 of a path's archive and the archive's size.
func (s *Store) hashTree(ctx context.Context, dir *fstree.Dir, name string) (nixhash.Hash, uint64, error) {
	w := newHashWriter(nixhash.SHA256)
	defer w.stop()
	if err := dir.Dump(ctx, name, w, fstree.DumpOptions{CaseHack: s.opts.CaseHack}); err != nil {
		return nixhash.Hash{}, 0, err
	}
	hash, size := w.finish()
	return hash, size, nil
}

// ctxReader makes reads fail once ctx has ended. A reader with a buffer to look into is left alone: it is a
// connection's, which is closed then.
func ctxReader(ctx context.Context, r io.Reader) io.Reader {
	if _, buffered := r.(interface{ Buffered() int }); buffered || ctx.Done() == nil {
		return r
	}
	return &cancelReader{ctx, r}
}

type cancelReader struct {
	ctx context.Context
	r   io.Reader
}

func (c *cancelReader) Read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.r.Read(p)
}
