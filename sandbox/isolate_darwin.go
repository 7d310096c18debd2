package sandbox

import (
	"errors"
	"fmt"
)

// isolator: macOS has no namespaces, and isolates by other means.
type isolator struct{}

func (*isolator) fork(_ *forker, spec *Spec, _ []uintptr) (int, func(), error) {
	return 0, nil, fmt.Errorf("set up sandbox of '%s': %w", spec.Path, errors.ErrUnsupported)
}

func (*isolator) close() {}

// Support tells what the machine offers for isolation.
func (l *Launcher) Support() Support {
	return Support{Namespaces: errors.ErrUnsupported, UserNamespaces: errors.ErrUnsupported}
}
