package sandbox

import (
	"errors"
	"fmt"
)

// isolator: macOS has no namespaces, and isolates by other means.
type isolator struct{}

func (*isolator) fork(_ *forker, spec *Spec, _ []uintptr) (*started, error) {
	return nil, fmt.Errorf("set up sandbox of '%s': %w", spec.Path, errors.ErrUnsupported)
}

func (*isolator) close() {}

// Support tells what the machine offers for isolation.
func (l *Launcher) Support() Support {
	return Support{Namespaces: errors.ErrUnsupported, UserNamespaces: errors.ErrUnsupported}
}

// attacher mounts into the builder of a process id; there is none.
type attacher func(pid int, source, target string) error

// Mount makes a path of the host appear in the root of an isolated builder, which macOS has none of.
func (p *Process) Mount(source, target string) error {
	return fmt.Errorf("mount '%s' in sandbox: %w", target, errors.ErrUnsupported)
}
