package fstree

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// LockFile is a file that this process holds locked with flock(2) and that can be renamed within its directory.
type LockFile struct {
	dir  *Dir
	fd   int
	ino  inode
	name string
	born time.Time
}

// CreateLockFile makes and locks a file of that name. It gives nil if somebody else has made it, or was faster
// in locking it.
func (d *Dir) CreateLockFile(name string) (*LockFile, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	fd, err := openat(d.fd, name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
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
	if err != nil || st.Size != 0 {
		unix.Close(fd)
		if err == unix.EWOULDBLOCK || err == nil {
			return nil, nil
		}
		return nil, d.wrap("acquiring/releasing lock of", name, err)
	}
	return &LockFile{dir: d, fd: fd, ino: inode{uint64(st.Dev), st.Ino}, name: name, born: time.Now()}, nil
}

// Name is what the file is called now.
func (f *LockFile) Name() string { return f.name }

// Born is when the file was made.
func (f *LockFile) Born() time.Time { return f.born }

// errReplaced tells that the file's name leads to another file.
var errReplaced = errors.New("lock file was replaced")

// Rename gives the file another name. It fails with [io/fs.ErrExist] if that is taken.
func (f *LockFile) Rename(name string) error {
	if err := renameNoReplace(f.dir.fd, f.name, f.dir.fd, name); err != nil {
		return f.dir.wrap("renaming lock file", f.name, err)
	}
	var st unix.Stat_t
	if err := fstatat(f.dir.fd, name, &st); err != nil {
		return f.dir.wrap("getting status of", name, err)
	}
	if (inode{uint64(st.Dev), st.Ino}) != f.ino {
		// Somebody deleted our file and made another: give it its name back.
		return errors.Join(errReplaced, renameNoReplace(f.dir.fd, name, f.dir.fd, f.name))
	}
	f.name = name
	return nil
}

// Delete removes the file, marks it so that others who wait for it look again, and unlocks it.
func (f *LockFile) Delete() error {
	var st unix.Stat_t
	err := fstatat(f.dir.fd, f.name, &st)
	if err == nil && (inode{uint64(st.Dev), st.Ino}) == f.ino {
		err = unlink(f.dir.fd, f.name, 0)
	}
	if err == unix.ENOENT {
		err = nil
	}
	if err != nil {
		err = f.dir.wrap("cannot unlink", f.name, err)
	}
	return errors.Join(err, f.Abandon())
}

// Abandon marks and unlocks a file that has no name any more.
func (f *LockFile) Abandon() error {
	_, err := unix.Pwrite(f.fd, []byte{'d'}, 0)
	if e := unix.Close(f.fd); err == nil {
		err = e
	}
	if err != nil {
		return fmt.Errorf("mark lock file \"%s\": %w", f.dir.join(f.name), err)
	}
	return nil
}
