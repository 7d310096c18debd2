package fstree

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

const (
	// maxNesting is how deep the deleter goes before it moves directories upwards: a builder may nest without bound,
	// and each level costs a descriptor.
	maxNesting = 80

	// deleters is how many goroutines delete one tree: the file system's own lock allows little more.
	deleters = 4
)

// Delete removes the tree called name; that there is none is no error. Directories that may not be written are made
// writable first. It returns how much that frees: the sizes of all files with one or two names, the second one being
// taken for the optimiser's (libutil/unix/file-system.cc). On an error as much as possible is gone.
func (d *Dir) Delete(ctx context.Context, name string) (freed uint64, err error) {
	if err := checkName(name); err != nil {
		return 0, err
	}
	del := &deleter{ctx: ctx, slots: make(chan struct{}, deleters-1)}
	err = del.entry(d.fd, d.path, &entry{name: name}, 0)
	return del.freed.Load(), err
}

type deleter struct {
	ctx   context.Context
	slots chan struct{} // one for each further goroutine
	freed atomic.Uint64
	// Directories below the tree's root that were moved there because they were nested too deep.
	top   int
	moved atomic.Int64
}

// entry deletes a file or a tree in the open directory parent, whose path is for messages.
func (del *deleter) entry(parent int, path string, e *entry, depth int) error {
	if e.kind == unix.S_IFDIR {
		return del.directory(parent, path, e.name, depth)
	}
	var st unix.Stat_t
	switch err := fstatat(parent, e.name, &st); {
	case err == unix.ENOENT:
		return nil
	case err != nil:
		return fmt.Errorf("getting status of \"%s/%s\": %w", path, e.name, err)
	case isType(uint32(st.Mode), unix.S_IFDIR):
		return del.directory(parent, path, e.name, depth)
	}
	if err := unlink(parent, e.name, 0); err != nil {
		return fmt.Errorf("cannot unlink \"%s/%s\": %w", path, e.name, err)
	}
	if st.Nlink <= 2 {
		del.freed.Add(uint64(st.Size))
	}
	return nil
}

func (del *deleter) directory(parent int, path, name string, depth int) error {
	if depth >= maxNesting {
		return del.moveUp(parent, path, name)
	}
	fd, err := openAccessible(parent, name)
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return fmt.Errorf("opening directory \"%s/%s\": %w", path, name, err)
	}
	defer unix.Close(fd)
	if depth == 0 {
		del.top = fd
	}
	for {
		moved := del.moved.Load()
		if err := del.contents(fd, filepath.Join(path, name), depth); err != nil {
			return err
		}
		err := unlink(parent, name, unix.AT_REMOVEDIR)
		if err == nil {
			return nil
		}
		if err == unix.ENOTEMPTY && depth == 0 && del.moved.Load() != moved {
			continue
		}
		return fmt.Errorf("cannot unlink \"%s/%s\": %w", path, name, err)
	}
}

// contents empties an open directory. Subdirectories are given to other goroutines as long as there are slots.
func (del *deleter) contents(fd int, path string, depth int) error {
	if del.ctx.Err() != nil {
		return context.Cause(del.ctx)
	}
	if _, err := unix.Seek(fd, 0, 0); err != nil {
		return fmt.Errorf("reading directory \"%s\": %w", path, err)
	}
	entries, err := new(lister).list(fd)
	if err == unix.ENOENT {
		return nil // somebody else has deleted it since it was opened
	}
	if err != nil {
		return fmt.Errorf("reading directory \"%s\": %w", path, err)
	}
	var others sync.WaitGroup
	var failed firstError
	for i := range entries {
		e := &entries[i]
		if e.kind != unix.S_IFDIR || !del.delegate(&others, func() { failed.set(del.entry(fd, path, e, depth+1)) }) {
			failed.set(del.entry(fd, path, e, depth+1))
		}
	}
	others.Wait()
	return failed.get()
}

// delegate runs f in another goroutine if there is a slot.
func (del *deleter) delegate(group *sync.WaitGroup, f func()) bool {
	select {
	case del.slots <- struct{}{}:
	default:
		return false
	}
	group.Go(func() {
		defer func() { <-del.slots }()
		f()
	})
	return true
}

// moveUp takes a directory out of its place and puts it into the root of the tree, which is emptied again afterwards.
func (del *deleter) moveUp(parent int, path, name string) error {
	if fd, err := openAccessible(parent, name); err == nil {
		// Without being allowed to write it one may not move it either.
		err = makeWritable(fd)
		unix.Close(fd)
		if err != nil {
			return fmt.Errorf("making directory \"%s/%s\" accessible for deletion: %w", path, name, err)
		}
	}
	for {
		to := ".deep-" + strconv.FormatInt(del.moved.Add(1), 10)
		err := retry(func() error { return unix.Renameat(parent, name, del.top, to) })
		if err == unix.EEXIST || err == unix.ENOTEMPTY || err == unix.ENOTDIR {
			continue
		}
		if err != nil && err != unix.ENOENT {
			return fmt.Errorf("renaming \"%s/%s\": %w", path, name, err)
		}
		return nil
	}
}

// unlink removes a name; if the directory may not be written it is made writable first.
func unlink(dir int, name string, flags int) error {
	remove := func() error { return unix.Unlinkat(dir, name, flags) }
	err := retry(remove)
	if err == unix.EACCES && makeWritable(dir) == nil {
		err = retry(remove)
	}
	if err == unix.ENOENT {
		return nil
	}
	return err
}

func makeWritable(dir int) error {
	var st unix.Stat_t
	if err := fstat(dir, &st); err != nil {
		return err
	}
	return retry(func() error { return unix.Fchmod(dir, uint32(st.Mode)&0o7777|0o700) })
}

// openAccessible opens a directory, if need be after giving its owner access to it.
func openAccessible(parent int, name string) (int, error) {
	fd, err := openat(parent, name, openDirFlags, 0)
	if err != unix.EACCES {
		return fd, err
	}
	if err := chmodNoFollow(parent, name, 0o700); err != nil {
		return -1, err
	}
	return openat(parent, name, openDirFlags, 0)
}

// firstError keeps the first of the errors of several goroutines.
type firstError struct {
	mu  sync.Mutex
	err error
}

func (f *firstError) set(err error) {
	if err == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		f.err = err
	}
}

func (f *firstError) get() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// Move renames the tree called name to another name in another directory of the same file system. It does not replace
// anything: if the name is taken it fails with [io/fs.ErrExist].
func (d *Dir) Move(name string, to *Dir, toName string) error {
	if err := errors.Join(checkName(name), checkName(toName)); err != nil {
		return err
	}
	err := renameNoReplace(d.fd, name, to.fd, toName)
	if err == unix.EACCES {
		err = d.moveReadOnly(name, to, toName)
	}
	if err != nil {
		return fmt.Errorf("renaming \"%s\" to \"%s\": %w", d.join(name), to.join(toName), err)
	}
	return nil
}

// moveReadOnly moves a directory that its owner may not write, who therefore may not change its "..".
func (d *Dir) moveReadOnly(name string, to *Dir, toName string) error {
	undo, err := d.openForMove(name)
	defer undo()
	if err != nil {
		return unix.EACCES
	}
	return renameNoReplace(d.fd, name, to.fd, toName)
}
