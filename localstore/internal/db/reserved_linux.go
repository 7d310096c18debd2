package db

import (
	"os"

	"golang.org/x/sys/unix"
)

func allocate(f *os.File, size int64) error {
	for size > 0 {
		err := unix.Fallocate(int(f.Fd()), 0, 0, size)
		switch err {
		case nil, unix.ENOSPC, unix.EDQUOT:
			return err
		case unix.EINTR:
			continue
		}
		return fill(f, size)
	}
	return nil
}
