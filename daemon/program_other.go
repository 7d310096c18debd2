//go:build !linux

package daemon

import "os"

// programPath is what was executed to make this process.
func programPath() (string, error) { return os.Executable() }
