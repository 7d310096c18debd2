package fstree

import (
	"errors"
	"math"

	"golang.org/x/sys/unix"
)

// preallocate has the file system set room aside for a new file, so that it is laid out in one piece, and so that a
// full disk shows before anything is written (fallocate(2)). A file system that cannot is none the worse, as upstream
// has it (libutil/fs-sink.cc, preallocateContents).
func preallocate(fd int, size uint64) error {
	err := retry(func() error { return unix.Fallocate(fd, 0, 0, int64(min(size, math.MaxInt64))) })
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return nil
	}
	return err
}
