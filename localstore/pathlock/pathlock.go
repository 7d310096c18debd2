// Package pathlock takes the locks that every process working on one store agrees on.
//
// A [Table] locks store paths: each path has a lock file beside it, its name with ".lock" appended,
// and whoever holds the flock(2) on that file may create, replace or delete the path.
// Within one process the table hands each path to one goroutine at a time before the file is touched,
// so goroutines queue in memory and only foreign processes are ever polled for.
// What is held is a [Held]; it is released as a whole.
//
// The single-file helpers ([OpenLockFile], [Flock], [TryFlock]) serve the store's other locks:
// big-lock, gc.lock and the temporary roots.
//
// # Compatibility
//
// Upstream's processes use the same files (libstore/unix/pathlocks.cc).
// Files are created with mode 0600 and locked in sorted order.
// A holder that deletes the lock file first unlinks it and then writes the letter d into it,
// so that a process that was waiting on the unlinked file sees a size other than zero and starts over.
//
// # Order
//
// A goroutine takes all the paths that it needs in one call to [Table.Lock].
// A second call while it holds a [Held] can deadlock with another goroutine or process that does the same.
package pathlock

import (
	"context"
	"errors"
	"slices"
)

// ErrLocked is returned by [Table.Lock] with TryOnly when another goroutine or process holds one of the paths.
var ErrLocked = errors.New("path is locked")

// Options says how [Table.Lock] behaves. The zero value waits silently.
type Options struct {
	// OnWait, if not nil, is called once for each path that could not be locked at once,
	// before the wait for it begins. It runs on the caller's goroutine.
	OnWait func(path string)
	// TryOnly makes Lock return ErrLocked instead of waiting.
	TryOnly bool
}

// Lock locks every path in paths, which are the real (not the logical) locations of store paths,
// and returns when all of them are held. The order and duplicates of paths do not matter.
// If ctx ends first, or on any error, nothing is held.
func (t *Table) Lock(ctx context.Context, paths []string, opts Options) (*Held, error) {
	sorted := slices.Clone(paths)
	slices.Sort(sorted)
	sorted = slices.Compact(sorted)
	held := &Held{table: t, files: make([]lockedFile, 0, len(sorted))}
	for _, path := range sorted {
		if err := t.lockOne(ctx, path, opts, held); err != nil {
			return nil, errors.Join(err, held.Unlock())
		}
	}
	return held, nil
}

func (t *Table) lockOne(ctx context.Context, path string, opts Options, held *Held) error {
	onWait := func() {}
	if opts.OnWait != nil {
		onWait = oneCall(func() { opts.OnWait(path) })
	}
	if err := t.acquire(ctx, path, opts.TryOnly, onWait); err != nil {
		return err
	}
	fd, err := lockPathFile(ctx, path+lockSuffix, opts.TryOnly, onWait)
	if err != nil {
		t.release(path)
		return err
	}
	held.files = append(held.files, lockedFile{path: path, fd: fd})
	return nil
}

// oneCall lets a path that waits twice, in memory and for a foreign process, be announced once.
func oneCall(f func()) func() {
	done := false
	return func() {
		if !done {
			done = true
			f()
		}
	}
}
