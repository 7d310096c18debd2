package derivation

import (
	"slices"
	"strings"

	"nixdaemon/protocol/storepath"
)

// OutputsSpec says which outputs are meant: all, or a sorted set of names.
type OutputsSpec struct {
	All   bool
	Names []string
}

// ParseOutputsSpec reads "*" or names with commas between
// (libstore/outputs-spec.cc).
func ParseOutputsSpec(s string) (OutputsSpec, error) {
	if s == "*" {
		return OutputsSpec{All: true}, nil
	}
	names := sortedSet(strings.Split(s, ","))
	for _, name := range names {
		if err := storepath.CheckName(name); err != nil {
			return OutputsSpec{}, err
		}
	}
	return OutputsSpec{Names: names}, nil
}

// String writes what ParseOutputsSpec reads.
func (s OutputsSpec) String() string {
	if s.All {
		return "*"
	}
	return strings.Join(s.Names, ",")
}

// Contains tells whether an output is meant.
func (s OutputsSpec) Contains(name string) bool {
	if s.All {
		return true
	}
	_, found := slices.BinarySearch(s.Names, name)
	return found
}

// Union means what either means.
func (s OutputsSpec) Union(t OutputsSpec) OutputsSpec {
	if s.All || t.All {
		return OutputsSpec{All: true}
	}
	return OutputsSpec{Names: sortedSet(slices.Concat(s.Names, t.Names))}
}

// IsSubset tells whether t means all that s means.
func (s OutputsSpec) IsSubset(t OutputsSpec) bool {
	if t.All || s.All {
		return t.All
	}
	return !slices.ContainsFunc(s.Names, func(name string) bool { return !t.Contains(name) })
}

// Compare orders "all" before names.
func (s OutputsSpec) Compare(t OutputsSpec) int {
	switch {
	case s.All && t.All:
		return 0
	case s.All:
		return -1
	case t.All:
		return 1
	}
	return slices.Compare(s.Names, t.Names)
}
