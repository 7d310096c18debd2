//go:build !linux

package db

import "os"

// fdatasync makes a file's contents durable.
func fdatasync(f *os.File) error { return f.Sync() }
