package db

import (
	"os"

	"golang.org/x/sys/unix"
)

func allocate(f *os.File, size int64) {
	for size > 0 {
		err := unix.Fallocate(int(f.Fd()), 0, 0, size)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			fill(f, size)
		}
		return
	}
}
