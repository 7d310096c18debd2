//go:build !linux

package sandbox

import (
	"errors"
	"fmt"
)

// Assemble fails: there is nothing to mount with.
func (l *Launcher) Assemble(dir, _ string, _ []Bind, _ *User, _ *IDMap) (*Assembly, error) {
	return nil, fmt.Errorf("assemble '%s': %w", dir, errors.ErrUnsupported)
}

// Close does nothing.
func (a *Assembly) Close() error { return nil }
