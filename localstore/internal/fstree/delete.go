package fstree

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

const (
	// maxNesting is how deep the deleter goes before it moves directories upwards: a builder may nest without bound,
	// and each level costs a descriptor.
	maxNesting = 80

	// maxDeleters is how many goroutines delete one tree at most. File systems have locks of their own that allow little
	// more, and with more than there are processors these would only wait for one another.
	maxDeleters = 4

	// maxPasses is how often a directory is read that turns out not to be empty. Somebody may be filling it.
	maxPasses = 100
)

// Delete removes the tree called name; that there is none is no error. Directories that may not be written are made
// writable first. It returns how much that frees: the sizes of all files with one or two names, the second one being
// taken for the optimiser's (libutil/unix/file-system.cc). On an error as much as possible is gone.
func (d *Dir) Delete(ctx context.Context, name string) (freed uint64, err error) {
	if err := checkName(name); err != nil {
		return 0, err
	}
	del := &deleter{ctx: ctx, lists: &d.lists, slots: make(chan struct{}, min(runtime.GOMAXPROCS(0), maxDeleters)-1)}
	l := d.lists.borrow()
	defer d.lists.giveBack(l)
	_, err = del.entry(l, d.fd, d.path, &entry{name: name}, 0)
	return del.freed.Load(), err
}

type deleter struct {
	ctx   context.Context
	lists *listers
	slots chan struct{} // one for each further goroutine
	freed atomic.Uint64
	// Directories below the tree's root that were moved there because they were nested too deep.
	top   int
	moved atomic.Int64
}

// entry deletes a file or a tree in the open directory parent, whose path is for messages. It tells whether the parent
// has a name less.
func (del *deleter) entry(l *lister, parent int, path string, e *entry, depth int) (gone bool, err error) {
	if e.kind == unix.S_IFDIR {
		return del.directory(l, parent, path, e.name, depth)
	}
	var st unix.Stat_t
	switch err := fstatat(parent, e.name, &st); {
	case err == unix.ENOENT:
		return true, nil
	case err != nil:
		return false, fmt.Errorf("getting status of \"%s/%s\": %w", path, e.name, err)
	case isType(uint32(st.Mode), unix.S_IFDIR):
		// The caller may still need what its own lister holds.
		l := del.lists.borrow()
		defer del.lists.giveBack(l)
		return del.directory(l, parent, path, e.name, depth)
	}
	if err := unlink(parent, e.name, 0); err != nil {
		return false, fmt.Errorf("cannot unlink \"%s/%s\": %w", path, e.name, err)
	}
	if st.Nlink <= 2 {
		del.freed.Add(uint64(st.Size))
	}
	return true, nil
}

func (del *deleter) directory(l *lister, parent int, path, name string, depth int) (gone bool, err error) {
	if depth >= maxNesting {
		return true, del.moveUp(parent, path, name)
	}
	fd, err := openAccessible(parent, name)
	if err == unix.ENOENT {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("opening directory \"%s/%s\": %w", path, name, err)
	}
	defer unix.Close(fd)
	if depth == 0 {
		del.top = fd
	}
	for pass := 1; ; pass++ {
		moved := del.moved.Load()
		less, err := del.contents(l, fd, path+"/"+name, depth)
		if err != nil {
			return false, err
		}
		if err = unlink(parent, name, unix.AT_REMOVEDIR); err == nil {
			return true, nil
		}
		// What is deleted while it is read may hide the rest from some file systems' readers.
		if err == unix.ENOTEMPTY && (less && pass < maxPasses || depth == 0 && del.moved.Load() != moved) {
			if _, err = unix.Seek(fd, 0, 0); err == nil {
				continue
			}
		}
		return false, fmt.Errorf("cannot unlink \"%s/%s\": %w", path, name, err)
	}
}

// contents empties an open directory, files as they are read and then what is nested. It tells whether anything went.
func (del *deleter) contents(l *lister, fd int, path string, depth int) (less bool, err error) {
	var dirs []entry
	var failed firstError
	for {
		if del.ctx.Err() != nil {
			return less, context.Cause(del.ctx)
		}
		some, err := l.some(fd)
		if err == unix.ENOENT {
			break // somebody else has deleted it since it was opened
		}
		if err != nil {
			return less, fmt.Errorf("reading directory \"%s\": %w", path, err)
		}
		if len(some) == 0 {
			break
		}
		slices.SortFunc(some, byInode)
		for i := range some {
			if e := &some[i]; e.kind == unix.S_IFDIR || e.kind == 0 {
				dirs = append(dirs, *e)
				continue
			}
			gone, err := del.entry(l, fd, path, &some[i], depth+1)
			less = less || gone
			failed.set(err)
		}
	}
	slices.SortFunc(dirs, byInode)
	var others sync.WaitGroup
	del.all(l, &others, fd, path, dirs, depth+1, &failed)
	others.Wait()
	return less || len(dirs) > 0, failed.get()
}

// all deletes what may be directories. As often as there is a slot another goroutine gets the second half of what is
// left, so that those who delete are far from one another: in one directory they would wait for its lock, and in
// neighbouring ones for the file system's blocks.
func (del *deleter) all(l *lister, others *sync.WaitGroup, fd int, path string, entries []entry, depth int, failed *firstError) {
	for len(entries) > 0 {
		if half := len(entries) / 2; half > 0 {
			rest := entries[half:]
			if del.delegate(others, func(l *lister) { del.all(l, others, fd, path, rest, depth, failed) }) {
				entries = entries[:half]
				continue
			}
		}
		_, err := del.entry(l, fd, path, &entries[0], depth)
		failed.set(err)
		entries = entries[1:]
	}
}

// delegate runs f in another goroutine if there is a slot.
func (del *deleter) delegate(group *sync.WaitGroup, f func(*lister)) bool {
	select {
	case del.slots <- struct{}{}:
	default:
		return false
	}
	group.Go(func() {
		l := del.lists.borrow()
		defer func() {
			del.lists.giveBack(l)
			<-del.slots
		}()
		f(l)
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

// byInode is the order in which deleting is cheapest: the inodes of a file system lie in blocks of some tens, each of which
// is changed and written for every file.
func byInode(a, b entry) int { return cmp.Compare(a.ino, b.ino) }

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
