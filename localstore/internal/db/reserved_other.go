//go:build !linux

package db

import "os"

func allocate(f *os.File, size int64) { fill(f, size) }
