package remote

import (
	"slices"

	"nixdaemon/worker/settings"
)

// Machine is another machine that builds, as the setting builders describes it.
type Machine struct {
	// Store is where it is reached, as written but canonical; URI is its text, which names the machine.
	Store settings.StoreReference
	URI   string
	// Systems are the platforms that it builds for.
	Systems []string
	// SSHKey is the file with our key for it, HostKey its own public key in base64; "" if not given.
	SSHKey, HostKey string
	// MaxJobs is how many builds it does at once.
	MaxJobs uint
	// SpeedFactor is how fast it is, compared to others.
	SpeedFactor float32
	// Supported are the features that it has, Mandatory those without which it builds nothing. Both are sorted.
	Supported, Mandatory []string
}

// fits tells whether it may build a derivation (libstore/machines.cc).
func (m *Machine) fits(system string, required []string) bool {
	if system != "builtin" && !slices.Contains(m.Systems, system) {
		return false
	}
	for _, f := range required {
		if !slices.Contains(m.Supported, f) && !slices.Contains(m.Mandatory, f) {
			return false
		}
	}
	for _, f := range m.Mandatory {
		if !slices.Contains(required, f) {
			return false
		}
	}
	return true
}

// better tells whether a machine with so many builds is to be preferred to another: by the load for its speed, then by
// its speed, then by its load (build-remote.cc).
func (m *Machine) better(load uint, other *Machine, otherLoad uint) bool {
	mine, theirs := float32(load)/m.SpeedFactor, float32(otherLoad)/other.SpeedFactor
	switch {
	case mine != theirs:
		return mine < theirs
	case m.SpeedFactor != other.SpeedFactor:
		return m.SpeedFactor > other.SpeedFactor
	}
	return load < otherLoad
}

// reference is what is opened to reach the machine (libstore/machines.cc, completeStoreReference).
func (m *Machine) reference() settings.StoreReference {
	ref := m.Store
	ref.Params = slices.Clone(ref.Params)
	set := func(name, value string) {
		i := slices.IndexFunc(ref.Params, func(p settings.Param) bool { return p.Name == name })
		if i >= 0 {
			ref.Params[i].Value = value
		} else {
			ref.Params = append(ref.Params, settings.Param{Name: name, Value: value})
		}
	}
	if ref.Scheme == "mounted-ssh-ng" {
		ref.Scheme = "ssh-ng" // that its files can be seen here, too, is nothing to a build
	}
	if ref.Scheme == "ssh" || ref.Scheme == "ssh-ng" {
		if m.SSHKey != "" {
			set("ssh-key", m.SSHKey)
		}
		if m.HostKey != "" {
			set("base64-ssh-public-host-key", m.HostKey)
		}
	}
	return ref
}
