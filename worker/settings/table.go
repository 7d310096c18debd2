package settings

import (
	"maps"
	"sync"
)

// Group says where a setting lives, and hence who may change it.
type Group uint8

const (
	// GroupStore and GroupFileTransfer can be set by trusted clients.
	GroupStore Group = iota
	GroupFileTransfer
	// GroupProcess can be set by files, environment and command line only.
	GroupProcess
	// GroupClient means nothing to a daemon; it is checked and remembered.
	GroupClient
	// GroupOwn is known to this daemon and not to upstream; it is set as GroupProcess is and never shown to
	// upstream's programs.
	GroupOwn
)

// Info describes one setting.
type Info struct {
	Name    string
	Aliases []string
	Group   Group
	Feature Feature // experimental feature without which the setting is ignored
	OS      string  // the only operating system that has it; empty for all
	Later   bool    // upstream added it after 2.34.8
	Kind    Kind
	// Appendable says that `extra-<name>` exists.
	Appendable bool
}

// Kind is how the setting is given on the command line.
type Kind uint8

// Flags are --name and --no-name; modes add --relaxed-name; all others take a value.
const (
	KindValue Kind = iota
	KindFlag
	KindMode
)

// row is one setting: its description and its codec.
type row struct {
	Info
	codec
}

// codec parses into, and renders from, one place of a Settings.
type codec interface {
	set(s *Settings, name, value string, extend bool, warn func(string)) error
	get(s *Settings, name string) string
	appendable() bool
}

// field is the codec of a setting that has a field in Settings. A nil extend means it cannot be appended to.
type field[T any] struct {
	at     func(*Settings) *T
	parse  func(name, value string) (T, error)
	render func(T) string
	extend func(old, more T) T
}

func (f field[T]) appendable() bool { return f.extend != nil }

func (f field[T]) get(s *Settings, _ string) string { return f.render(*f.at(s)) }

func (f field[T]) set(s *Settings, name, value string, extend bool, _ func(string)) error {
	v, err := f.parse(name, value)
	if err != nil {
		return err
	}
	if extend {
		v = f.extend(*f.at(s), v)
	}
	*f.at(s) = v
	return nil
}

// ignored is the codec of a client-side setting: what is given is checked, and its rendering kept.
type ignored[T any] struct {
	def    string
	parse  func(name, value string) (T, error)
	render func(T) string
	extend func(old, more T) T
}

func (c ignored[T]) appendable() bool { return c.extend != nil }

func (c ignored[T]) get(s *Settings, name string) string {
	if v, ok := s.client[name]; ok {
		return v
	}
	return c.def
}

func (c ignored[T]) set(s *Settings, name, value string, extend bool, _ func(string)) error {
	v, err := c.parse(name, value)
	if err != nil {
		return err
	}
	if extend {
		old, err := c.parse(name, c.get(s, name))
		if err != nil {
			return err
		}
		v = c.extend(old, v)
	}
	// The map may be shared with the settings that s was cloned from.
	m := maps.Clone(s.client)
	if m == nil {
		m = map[string]string{}
	}
	m[name] = c.render(v)
	s.client = m
	return nil
}

// maxJobs reads `auto` as the number of CPUs, and knows no unit suffixes.
type maxJobs struct{}

func (maxJobs) appendable() bool { return false }

func (maxJobs) get(s *Settings, _ string) string { return renderUint(s.MaxJobs) }

func (maxJobs) set(s *Settings, name, value string, _ bool, _ func(string)) error {
	if value == "auto" {
		s.MaxJobs = s.host().cpus()
		return nil
	}
	n, err := ParseInteger(value, 32)
	if err != nil || value[len(value)-1] > '9' {
		return usagef("configuration setting '%s' should be 'auto' or an integer", name)
	}
	s.MaxJobs = uint(n)
	return nil
}

// featureSet warns about features that do not exist.
type featureSet struct{}

func (featureSet) appendable() bool { return true }

func (featureSet) get(s *Settings, _ string) string { return s.ExperimentalFeatures.String() }

func (featureSet) set(s *Settings, _, value string, extend bool, warn func(string)) error {
	set := parseFeatures(value, warn)
	if extend {
		set |= s.ExperimentalFeatures
	}
	s.ExperimentalFeatures = set
	return nil
}

// shortPathLiterals is the old, boolean spelling of lint-short-path-literals.
type shortPathLiterals struct{ ignored[bool] }

func (c shortPathLiterals) set(s *Settings, name, value string, extend bool, warn func(string)) error {
	if err := c.ignored.set(s, name, value, extend, warn); err != nil {
		return err
	}
	level := "ignore"
	if s.client[name] == "true" {
		level = "warn"
	}
	warn("'" + name + "' is deprecated, use 'lint-short-path-literals = " + level + "' instead")
	return clientLint().set(s, "lint-short-path-literals", level, false, warn)
}

// overrides has one bit per row of the table.
type overrides [3]uint64

func (o *overrides) add(i int) { o[i/64] |= 1 << (i % 64) }

func (o *overrides) has(i int) bool { return o[i/64]&(1<<(i%64)) != 0 }

// index finds rows by name and alias. It is built once and never changed.
var index = sync.OnceValue(func() map[string]int {
	m := make(map[string]int, 2*len(table))
	for i := range table {
		m[table[i].Name] = i
		for _, alias := range table[i].Aliases {
			m[alias] = i
		}
	}
	return m
})
