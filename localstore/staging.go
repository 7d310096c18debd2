package localstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"nixdaemon/localstore/internal/fstree"
	"nixdaemon/localstore/pathlock"
)

// LockPaths locks paths on disk against every other process and goroutine; see package pathlock.
func (s *Store) LockPaths(ctx context.Context, realPaths []string, o pathlock.Options) (*pathlock.Held, error) {
	return s.locks.Lock(ctx, realPaths, o)
}

// Staging is a directory in the store that is private to its owner. No collector deletes it before Close does,
// or the death of the process.
type Staging struct {
	h    *handle
	name string
	dir  *fstree.Dir
}

// stagings numbers the directories of this process, whatever store they are in.
type stagings struct{ last atomic.Uint64 }

// StagingDir makes an empty directory in the store, with mode 0700.
func (s *Store) StagingDir(ctx context.Context) (*Staging, error) {
	for {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		st, err := s.newStaging()
		if st != nil || err != nil {
			return st, err
		}
	}
}

// newStaging gives nil if a collector was faster: it may delete the directory until that is locked.
func (s *Store) newStaging() (*Staging, error) {
	h := s.acquire()
	name := "tmp-" + strconv.Itoa(os.Getpid()) + "-" + strconv.FormatUint(s.staged.last.Add(1), 10)
	err := h.root.Mkdir(name, 0o700)
	if err == nil {
		var dir *fstree.Dir
		if dir, err = h.root.Open(name); err == nil {
			if err = unix.Flock(dir.FD(), unix.LOCK_EX|unix.LOCK_NB); err == nil && dir.Same() {
				return &Staging{h, name, dir}, nil
			}
			err = errors.Join(ignore(err, unix.EWOULDBLOCK), dir.Close())
		}
	}
	h.release()
	if err = ignore(ignore(err, fs.ErrExist), fs.ErrNotExist); err != nil {
		return nil, fmt.Errorf("create temporary directory in store: %w", err)
	}
	return nil, nil
}

func ignore(err, what error) error {
	if errors.Is(err, what) {
		return nil
	}
	return err
}

// Path is where the directory is.
func (st *Staging) Path() string { return st.dir.Path() }

// Close removes the directory with all that is still in it.
func (st *Staging) Close() error {
	// Whoever cannot lock it leaves it alone, so the lock goes last.
	_, err := st.h.root.Delete(context.Background(), st.name)
	err = errors.Join(err, st.dir.Close())
	st.h.release()
	return err
}
