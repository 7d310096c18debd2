//go:build !linux && !darwin

package fstree

import "golang.org/x/sys/unix"

// SyncFS makes everything durable.
func (d *Dir) SyncFS() error { return unix.Sync() }

func fsync(fd int) error { return unix.Fsync(fd) }
