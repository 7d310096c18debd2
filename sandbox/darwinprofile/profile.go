package darwinprofile

import (
	"path"
	"slices"
)

// visible is what a builder may do with its inputs, and with what it makes. Writing is part of it for inputs too,
// since access(2) answers wrongly about what it may read otherwise; that it cannot is up to the files' owner and mode.
const visible = "file-read* file-write* process-exec"

// Profile is the text of the profile for o. It fails on paths that cannot be named in one.
func Profile(o *Options) (string, error) {
	if err := o.validate(); err != nil {
		return "", err
	}
	var p profile
	p.WriteString("(version 1)\n")
	if o.Isolated {
		p.isolated(o)
	} else {
		p.always("default")
		p.noSetID()
	}
	return p.String(), nil
}

func (p *profile) isolated(o *Options) {
	if o.LogViolations {
		p.deny("default")
	} else {
		p.deny("default (with no-log)")
	}
	// Derivations' own texts use this name.
	p.WriteString("(define TMPDIR (param " + quote(paramTempDir) + "))\n")
	p.process()
	p.directories()
	p.system()
	if o.Network {
		p.network()
	}
	if o.LocalNetwork {
		p.localNetwork()
	}
	if o.Network || o.LocalNetwork {
		p.names()
	}
	p.store(o)
	p.helper(o.Helper)
	// Below all that allows writing, or the later rule would decide.
	p.noSetID()
	if o.Additional != "" {
		p.section("The derivation's own.")
		p.WriteString(o.Additional)
	}
}

func (p *profile) store(o *Options) {
	p.section("Outputs.")
	p.allow(visible, subpaths(o.Outputs...)...)
	p.section("Inputs, and what of the host is not to be missing.")
	p.allow(visible, paths(o.HostPaths, o.Inputs)...)
	p.section("All directories above them, for realpath.")
	p.allow("file-read*", literals(ancestors(o)...)...)
}

// helper lets the last program before the builder run. Its directories are not for looking into.
func (p *profile) helper(name string) {
	p.section("What executes the builder.")
	p.allow("file-read* process-exec", literal(name))
	p.allow("file-read-metadata", literals(parents(name)...)...)
}

// paths merges lists, sorted and without repetition, so that a set of paths has one text.
func paths(lists ...[]Path) []filter {
	trees := make(map[string]bool)
	for _, list := range lists {
		for _, p := range list {
			trees[p.Name] = trees[p.Name] || p.Tree
		}
	}
	names := make([]string, 0, len(trees))
	for name := range trees {
		names = append(names, name)
	}
	slices.Sort(names)
	filters := make([]filter, len(names))
	for i, name := range names {
		if trees[name] {
			filters[i] = subpath(name)
		} else {
			filters[i] = literal(name)
		}
	}
	return filters
}

// ancestors are the directories above the host's paths, and the store with those above it. Inputs lie in the store.
func ancestors(o *Options) []string {
	all := append(parents(o.StoreDir), o.StoreDir)
	for _, p := range o.HostPaths {
		all = append(all, parents(p.Name)...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// parents are the directories above name, the root included.
func parents(name string) []string {
	var all []string
	for name != "/" {
		name = path.Dir(name)
		all = append(all, name)
	}
	return all
}
