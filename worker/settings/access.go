package settings

import (
	"fmt"
	"iter"
	"strings"
)

// lookup finds the row of a name or alias on this host.
func (s *Settings) lookup(name string) (int, bool) {
	i, ok := index()[name]
	if !ok || table[i].OS != "" && table[i].OS != s.host().os() {
		return 0, false
	}
	return i, true
}

// find resolves a name, an alias, or either after `extra-`.
func (s *Settings) find(name string) (i int, extend, ok bool) {
	if i, ok = s.lookup(name); ok {
		return i, false, true
	}
	rest, extend := strings.CutPrefix(name, "extra-")
	if !extend {
		return 0, false, false
	}
	i, ok = s.lookup(rest)
	return i, true, ok && table[i].appendable()
}

// Set gives a setting a value in text form. The name may be an alias, and begin with `extra-` to append to a list,
// set or map. Errors: *UnknownSettingError; *UsageError for a value that does not parse; a plain error for a path that
// is not absolute. What upstream only warns about is passed over; use SetWarn to see it.
func (s *Settings) Set(name, value string) error {
	return s.SetWarn(name, value, func(string) {})
}

// SetWarn is Set that tells warn of what is ignored: a setting whose experimental feature is not enabled, an
// experimental feature that does not exist.
func (s *Settings) SetWarn(name, value string, warn func(string)) error {
	i, extend, ok := s.find(name)
	if !ok {
		return &UnknownSettingError{Name: name}
	}
	r := &table[i]
	if !s.ExperimentalFeatures.Enabled(r.Feature) {
		warn(fmt.Sprintf("Ignoring setting '%s' because experimental feature '%s' is not enabled", r.Name, r.Feature))
		s.overridden.add(i)
		return nil
	}
	if err := r.set(s, r.Name, value, extend, warn); err != nil {
		return err
	}
	s.overridden.add(i)
	return nil
}

// Override is Set as a flag of the command line does it: the setting's experimental feature is not asked for, since
// the flag itself needs it.
func (s *Settings) Override(name, value string) error {
	i, extend, ok := s.find(name)
	if !ok {
		return &UnknownSettingError{Name: name}
	}
	s.overridden.add(i)
	return table[i].set(s, table[i].Name, value, extend, func(string) {})
}

// Get renders the value of a setting, found by name or alias.
func (s *Settings) Get(name string) (string, bool) {
	i, ok := s.lookup(name)
	if !ok {
		return "", false
	}
	return table[i].get(s, table[i].Name), true
}

// Lookup describes the setting of that name or alias.
func (s *Settings) Lookup(name string) (Info, bool) {
	i, ok := s.lookup(name)
	if !ok {
		return Info{}, false
	}
	return table[i].info(), true
}

func (r *row) info() Info {
	info := r.Info
	info.Appendable = r.appendable()
	switch r.codec.(type) {
	case field[bool], ignored[bool], shortPathLiterals:
		info.Kind = KindFlag
	case field[SandboxMode]:
		info.Kind = KindMode
	}
	return info
}

// Overridden says whether the setting was set since ResetOverridden.
func (s *Settings) Overridden(name string) bool {
	i, ok := s.lookup(name)
	return ok && s.overridden.has(i)
}

// ResetOverridden forgets which settings were set. Upstream does so between the system's nix.conf and the user's:
// only what comes later is forwarded to another daemon.
func (s *Settings) ResetOverridden() { s.overridden = overrides{} }

// known describes every setting of this host, sorted by name.
func (s *Settings) known() iter.Seq2[int, *row] {
	return func(yield func(int, *row) bool) {
		for i := range table {
			if os := table[i].OS; os != "" && os != s.host().os() {
				continue
			}
			if !yield(i, &table[i]) {
				return
			}
		}
	}
}

// Infos yields the description of every setting that exists on this host, sorted by name.
func (s *Settings) Infos() iter.Seq[Info] {
	return func(yield func(Info) bool) {
		for _, r := range s.known() {
			if !yield(r.info()) {
				return
			}
		}
	}
}

// All yields name and rendered value of every setting that upstream 2.34.8 shows, sorted by name: those whose
// experimental feature is enabled, without the ones that only later releases or this daemon know. It is what
// NIX_CONFIG of the post-build hook holds.
func (s *Settings) All() iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for _, r := range s.known() {
			if r.Later || r.Group == GroupOwn || !s.ExperimentalFeatures.Enabled(r.Feature) {
				continue
			}
			if !yield(r.Name, r.get(s, r.Name)) {
				return
			}
		}
	}
}

// NixConfig renders All as lines `name = value`, the form of nix.conf and of the environment variable NIX_CONFIG.
// An unset nix-path is left out: written down, it would hide the search path that its reader has by default.
func (s *Settings) NixConfig() string {
	var b strings.Builder
	for name, value := range s.All() {
		if name == "nix-path" && value == "" {
			continue
		}
		b.WriteString(name + " = " + value + "\n")
	}
	return b.String()
}
