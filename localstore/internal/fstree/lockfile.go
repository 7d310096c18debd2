package fstree

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"nixdaemon/localstore/pathlock"
)

// LockFile is a file that this process holds locked with flock(2). It has a name of its own, and can lock paths, one at
// a time, by having their lock files' names besides.
type LockFile struct {
	home *Dir
	name string // within home
	fd   int
	ino  inode
	born time.Time
	// The name that it has besides; dir is nil if there is none.
	dir    *Dir
	linked string
}

// CreateLockFile makes and locks a file of that name. It gives nil if somebody else has made it, or was faster
// in locking it.
func (d *Dir) CreateLockFile(name string) (*LockFile, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	fd, err := openat(d.fd, name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, pathlock.LinkedMode)
	if err == unix.EEXIST {
		return nil, nil
	}
	if err != nil {
		return nil, pathlock.OpenError(d.join(name), err)
	}
	err = retry(func() error { return unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) })
	var st unix.Stat_t
	if err == nil {
		err = fstat(fd, &st)
	}
	if err == nil && st.Mode&0o7777 != pathlock.LinkedMode { // because of the umask
		err = retry(func() error { return unix.Fchmod(fd, pathlock.LinkedMode) })
	}
	if err != nil || st.Size != 0 {
		unix.Close(fd)
		if err == unix.EWOULDBLOCK || err == nil {
			return nil, nil
		}
		return nil, d.wrap("acquiring/releasing lock of", name, err)
	}
	return &LockFile{home: d, name: name, fd: fd, ino: inode{uint64(st.Dev), st.Ino}, born: time.Now()}, nil
}

// Home is the directory where the file has a name of its own.
func (f *LockFile) Home() *Dir { return f.home }

// Linked is the other name that [LockFile.Link] gave the file, empty if it has none.
func (f *LockFile) Linked() string {
	if f.dir == nil {
		return ""
	}
	return f.linked
}

// Born is when the file was made.
func (f *LockFile) Born() time.Time { return f.born }

// Link gives the file another name, beside its own. It fails with [io/fs.ErrExist] if that is taken.
func (f *LockFile) Link(dir *Dir, name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	if err := retry(func() error { return unix.Linkat(f.home.fd, f.name, dir.fd, name, 0) }); err != nil {
		return dir.wrap("linking lock file", name, err)
	}
	f.dir, f.linked = dir, name
	return nil
}

// Relink changes the name that [LockFile.Link] gave. It fails with [io/fs.ErrExist] if the new one is taken, and
// with [ErrReplaced] if the old one is not the file's any more.
func (f *LockFile) Relink(name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	if !f.named() {
		err := f.dir.wrap("renaming lock file", f.linked, ErrReplaced)
		f.dir = nil
		return err
	}
	err := renameNoReplace(f.dir.fd, f.linked, f.dir.fd, name)
	if err == unix.ENOENT {
		err = ErrReplaced
	}
	if err != nil {
		return f.dir.wrap("renaming lock file", f.linked, err)
	}
	f.linked = name
	return nil
}

// ErrReplaced tells that a lock file's name was deleted or leads to another file.
var ErrReplaced = errors.New("lock file was replaced")

// named tells whether the name that Link gave is the file's still. Nobody else gives it names, so that counting them
// is enough as long as none is missing.
func (f *LockFile) named() bool {
	var st unix.Stat_t
	if fstat(f.fd, &st) == nil && st.Nlink == 2 {
		return true
	}
	err := fstatat(f.dir.fd, f.linked, &st)
	return err == nil && (inode{uint64(st.Dev), st.Ino}) == f.ino
}

// Unlink takes the name away that [LockFile.Link] gave.
func (f *LockFile) Unlink() error {
	if f.dir == nil {
		return nil
	}
	dir := f.dir
	named := f.named()
	f.dir = nil
	if !named {
		return nil
	}
	if err := unlink(dir.fd, f.linked, 0); err != nil {
		return dir.wrap("cannot unlink", f.linked, err)
	}
	return nil
}

// remove deletes a name of the file, unless it has become another's.
func (f *LockFile) remove(dir *Dir, name string) error {
	var st unix.Stat_t
	err := fstatat(dir.fd, name, &st)
	if err == nil && (inode{uint64(st.Dev), st.Ino}) == f.ino {
		err = unlink(dir.fd, name, 0)
	}
	if err == nil || err == unix.ENOENT {
		return nil
	}
	return dir.wrap("cannot unlink", name, err)
}

// Gone tells whether somebody has deleted all names of the file: it cannot be given another.
func (f *LockFile) Gone() bool {
	var st unix.Stat_t
	return fstat(f.fd, &st) == nil && st.Nlink == 0
}

// Delete removes the file, marks it so that others who wait for it look again, and unlocks it.
func (f *LockFile) Delete() error {
	err := errors.Join(f.Unlink(), f.remove(f.home, f.name))
	// Making it longer needs no space on the disk, which may be full.
	if e := unix.Ftruncate(f.fd, 1); e != nil {
		err = errors.Join(err, fmt.Errorf("mark lock file \"%s\": %w", f.home.join(f.name), e))
	}
	if e := unix.Close(f.fd); e != nil {
		err = errors.Join(err, fmt.Errorf("close lock file \"%s\": %w", f.home.join(f.name), e))
	}
	return err
}

// DeleteUnlocked deletes a file that no process has locked, without marking it. It is no error if one has.
func (d *Dir) DeleteUnlocked(name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	fd, err := openat(d.fd, name, unix.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return pathlock.OpenError(d.join(name), err)
	}
	defer unix.Close(fd)
	err = retry(func() error { return unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) })
	if err == unix.EWOULDBLOCK {
		return nil
	}
	if err == nil {
		err = unlink(d.fd, name, 0)
	}
	if err != nil {
		return d.wrap("cannot unlink", name, err)
	}
	return nil
}
