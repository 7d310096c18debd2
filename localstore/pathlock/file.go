package pathlock

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	lockSuffix   = ".lock"
	lockFileMode = 0o600
)

// LinkedMode is the mode of files that have two names while they lock a path, see [Usable]: no other file's.
const LinkedMode = 0o610

// OwnPrefix begins the names that such files have besides those of the paths.
const OwnPrefix = ".lock-"

// Usable tells whether a file can be a lock file that nobody has marked as deleted.
// A builder that may write beside the paths could have made the name of one lead to an empty file of the store, to have
// it marked; so a file with several names must be one that this daemon itself has made so.
func Usable(st *unix.Stat_t) bool {
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size != 0 {
		return false
	}
	return st.Nlink <= 1 || st.Mode&0o7777 == LinkedMode && int(st.Uid) == unix.Geteuid()
}

// staleMark is what a deleter writes into the file after unlinking it.
var staleMark = []byte{'d'}

// OpenLockFile opens the lock file at path for reading and writing, creating it with mode 0600 if create is set.
// Unlike upstream it does not follow a symbolic link in the last component.
// The error's text is upstream's; it wraps the [unix.Errno].
func OpenLockFile(path string, create bool) (*os.File, error) {
	fd, err := openLockFD(path, create)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), path), nil
}

// OpenError is the error of opening a lock file, with upstream's text.
func OpenError(path string, err error) error { return &openError{path, err} }

// openError writes the operating system's error with a capital letter, as the C library does and upstream shows it.
type openError struct {
	path string
	err  error
}

func (e *openError) Error() string {
	cause := e.err.Error()
	return "opening lock file \"" + e.path + "\": " + strings.ToUpper(cause[:1]) + cause[1:]
}

func (e *openError) Unwrap() error { return e.err }

func openLockFD(path string, create bool) (int, error) {
	flags := unix.O_RDWR | unix.O_CLOEXEC | unix.O_NOFOLLOW | unix.O_NONBLOCK
	if create {
		flags |= unix.O_CREAT
	}
	for {
		fd, err := unix.Open(path, flags, lockFileMode)
		if err == nil {
			return fd, nil
		}
		if err != unix.EINTR {
			return -1, &openError{path, err}
		}
	}
}

// DeleteLockFile unlinks the lock file at path, which f has open and locked,
// and marks it stale for those that wait on it.
func DeleteLockFile(path string, f *os.File) error {
	return deleteLockFile(path, int(f.Fd()))
}

func deleteLockFile(path string, fd int) error {
	// Unlink before marking: a waiter that sees the mark must find the name free or newly taken.
	unlinkErr := unix.Unlink(path)
	if errors.Is(unlinkErr, unix.ENOENT) {
		unlinkErr = nil
	}
	if _, err := unix.Pwrite(fd, staleMark, 0); err != nil {
		return fmt.Errorf("mark lock file %s: %w", path, err)
	}
	if unlinkErr != nil {
		return fmt.Errorf("delete lock file %s: %w", path, unlinkErr)
	}
	return nil
}

// IsStale reports whether the locked lock file f has been deleted by its previous holder,
// so that the caller must open and lock the path again.
func IsStale(f *os.File) (bool, error) {
	info, err := f.Stat()
	if err != nil {
		return false, err
	}
	return info.Size() != 0, nil
}

// lockPathFile opens and locks the lock file at path, starting over as long as what it locked was stale.
func lockPathFile(ctx context.Context, path string, try bool, onWait func()) (int, error) {
	for {
		fd, err := openLockFD(path, true)
		if err != nil {
			return -1, err
		}
		err = flockFD(ctx, fd, Exclusive, try, onWait)
		if err == nil {
			var fresh bool
			if fresh, err = checkFresh(path, fd); fresh {
				return fd, nil
			}
		}
		unix.Close(fd)
		if err != nil {
			return -1, err
		}
		if ctx.Err() != nil {
			return -1, context.Cause(ctx)
		}
	}
}

// checkFresh reports whether the locked file is usable. A file that carries the mark but still has its name
// (its deleter could not unlink it) would make every process start over for ever; since we hold its lock we may unlink it.
func checkFresh(path string, fd int) (bool, error) {
	var st, named unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return false, fmt.Errorf("stat lock file %s: %w", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return false, &openError{path, unix.EINVAL}
	}
	if Usable(&st) {
		return true, nil
	}
	if unix.Lstat(path, &named) == nil && named.Dev == st.Dev && named.Ino == st.Ino {
		if err := unix.Unlink(path); err != nil && err != unix.ENOENT {
			return false, fmt.Errorf("delete stale lock file %s: %w", path, err)
		}
	}
	return false, nil
}
