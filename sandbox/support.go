package sandbox

import "errors"

// Support tells what isolation this machine is capable of.
type Support struct {
	// Namespaces is why a process cannot have mount and process namespaces of its own, with a procfs; nil if it can.
	Namespaces error
	// UserNamespaces is why it cannot have a user namespace; nil if it can.
	UserNamespaces error
}

// errNoIsolation is true of every machine until the launcher carries out [Spec.Isolation].
var errNoIsolation = errors.New("the launcher does not isolate builders")

// Support tells what isolation this launcher can give on this machine.
func (l *Launcher) Support() Support {
	return Support{Namespaces: errNoIsolation, UserNamespaces: errNoIsolation}
}
