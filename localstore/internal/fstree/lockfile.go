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
		return nil, d.wrap("opening lock file", name, err)
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

// Linked tells whether [LockFile.Link] gave the file another name.
func (f *LockFile) Linked() bool { return f.dir != nil }

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

// Unlink takes the name away that [LockFile.Link] gave.
func (f *LockFile) Unlink() error {
	if f.dir == nil {
		return nil
	}
	dir := f.dir
	f.dir = nil
	return f.remove(dir, f.linked)
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
		return d.wrap("opening lock file", name, err)
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
