package db

import (
	"os"

	"golang.org/x/sys/unix"
)

// fdatasync makes a file's contents durable.
func fdatasync(f *os.File) error {
	for {
		if err := unix.Fdatasync(int(f.Fd())); err != unix.EINTR {
			return err
		}
	}
}
