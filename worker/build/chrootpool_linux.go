package build

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// settableFlags are those inode flags that the owner of a directory sets and that what is made in it may inherit; the
// others belong to the file system (linux/fs.h, FS_FL_USER_MODIFIABLE, less the index of large directories).
const settableFlags = 0x000380ff | fsNoCow | fsProjInherit | fsCaseFold

const (
	fsNoCow       = 0x00800000
	fsProjInherit = 0x20000000
	fsCaseFold    = 0x40000000
)

// inodeFlags are a directory's flags that its owner sets.
func inodeFlags(dir string) (int, error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	flags, err := unix.IoctlGetInt(fd, unix.FS_IOC_GETFLAGS)
	if err == unix.ENOTTY || err == unix.EOPNOTSUPP || err == unix.EINVAL {
		return 0, nil // there are none here
	}
	return flags & settableFlags, err
}

var errChanged = errors.New("has been changed")

// largestDir bounds what a directory has grown to: there are file systems where it does not shrink again, and stays slow.
const largestDir = 1 << 20

// touch sets a directory's times: its owner may have set them to tell something to the next.
func touch(dir string) error {
	now := []unix.Timespec{{Nsec: unix.UTIME_NOW}, {Nsec: unix.UTIME_NOW}}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, dir, now, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("set times of '%s': %w", dir, err)
	}
	return nil
}

// asMade tells whether a directory is as the daemon has made it.
func asMade(dir string, mode uint32, flags int) error {
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return err
	}
	if st.Mode != unix.S_IFDIR|mode || st.Size > largestDir {
		return fmt.Errorf("'%s' %w", dir, errChanged)
	}
	if n, err := unix.Llistxattr(dir, nil); n > 0 || err != nil && err != unix.EOPNOTSUPP {
		return fmt.Errorf("'%s' %w", dir, errors.Join(errChanged, err))
	}
	if now, err := inodeFlags(dir); err != nil || now != flags {
		return fmt.Errorf("'%s' %w", dir, errors.Join(errChanged, err))
	}
	return nil
}
