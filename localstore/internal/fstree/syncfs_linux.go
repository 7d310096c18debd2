package fstree

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// SyncFS makes everything on the directory's file system durable.
func (d *Dir) SyncFS() error {
	if err := retry(func() error { return unix.Syncfs(d.fd) }); err != nil {
		return fmt.Errorf("synchronising the file system of \"%s\": %w", d.path, err)
	}
	return nil
}

func fsync(fd int) error { return unix.Fsync(fd) }
