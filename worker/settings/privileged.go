package settings

import (
	"maps"
	"slices"
	"strings"
)

// Privileged tells which settings a trusted client has changed that others may
// not, for the audit: those of opts whose values in s are not those in base,
// sorted by name. Settings whose values are switches and numbers are given as
// "name = value", and so are lists of stores, without what could be a password;
// of others, in which anything may stand, the name alone.
func (s *Settings) Privileged(base *Settings, opts ClientOptions) []string {
	found := map[string]struct{}{}
	for _, o := range opts.Overrides {
		i, _, ok := s.find(o.Name)
		if !ok || harmless(o.Name, o.Value) || table[i].get(s, table[i].Name) == table[i].get(base, table[i].Name) {
			continue
		}
		if g := table[i].Group; g == GroupStore || g == GroupFileTransfer {
			found[table[i].shown(s)] = struct{}{}
		}
	}
	return slices.Sorted(maps.Keys(found))
}

// shown is a setting with as much of its value as everybody may know.
func (r *row) shown(s *Settings) string {
	switch r.codec.(type) {
	case field[bool], field[SandboxMode], field[uint], field[uint32], field[uint64], field[int64], field[Seconds], maxJobs:
		return r.Name + " = " + r.get(s, r.Name)
	}
	if r.Name == "substituters" || r.Name == "trusted-substituters" {
		value := r.Name + " ="
		for _, word := range tokens(r.get(s, r.Name)) {
			value += " " + ShownReference(word)
		}
		return value
	}
	return r.Name
}

// ShownReference is a store reference as everybody may know it: without user,
// password and parameters.
func ShownReference(word string) string {
	base, _, _ := strings.Cut(word, "?")
	scheme, rest, ok := strings.Cut(base, "://")
	if !ok {
		return base
	}
	// What stands before the last @ may be a password, with whatever in it.
	return scheme + "://" + rest[strings.LastIndexByte(rest, '@')+1:]
}
