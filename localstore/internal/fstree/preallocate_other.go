//go:build !linux

package fstree

// preallocate does nothing: like upstream, where posix_fallocate is missing.
func preallocate(int, uint64) error { return nil }
