//go:build !linux

package fstree

import "golang.org/x/sys/unix"

// SyncFS makes everything durable.
func (d *Dir) SyncFS() error { return unix.Sync() }
