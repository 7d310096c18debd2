package derivation

import (
	"slices"
	"strings"

	"nixdaemon/protocol/storepath"
)

// Options are what attributes of a derivation ask of the daemon
// (libstore/derivation-options.hh). Texts that are sets are sorted.
type Options struct {
	// AllOutputs are the checks of every output, nil with structured
	// attributes.
	AllOutputs *OutputChecks
	// PerOutput are the checks by output with structured attributes; outputs
	// without an entry are not checked.
	PerOutput map[string]OutputChecks
	// UnsafeDiscardReferences tells by output not to scan for references.
	UnsafeDiscardReferences map[string]bool
	// PassAsFile are the variables that reach the builder as files.
	PassAsFile []string
	// ExportReferencesGraph are, by file or attribute, the sorted paths whose
	// closures the builder wants to know.
	ExportReferencesGraph map[string][]SingleDerivedPath
	SandboxProfile        string
	// NoChroot asks for a build outside the sandbox.
	NoChroot               bool
	ImpureHostDeps         []string
	ImpureEnvVars          []string
	AllowLocalNetworking   bool
	RequiredSystemFeatures []string
	PreferLocalBuild       bool
	AllowSubstitutes       bool
}

// OutputChecks are conditions on what an output contains.
type OutputChecks struct {
	// IgnoreSelfRefs leaves the output itself out of its references.
	IgnoreSelfRefs bool
	// MaxSize and MaxClosureSize are limits in bytes, nil for none.
	MaxSize, MaxClosureSize *uint64
	// AllowedReferences and AllowedRequisites are nil when everything is
	// allowed; an empty set allows nothing.
	AllowedReferences, AllowedRequisites       []Ref
	DisallowedReferences, DisallowedRequisites []Ref
}

// Ref is an output of the derivation itself, by name, or a path.
type Ref struct {
	// Output is set when this is an output of the derivation itself. It may
	// be a name that no output has: that is for the check to say.
	Output string
	Path   SingleDerivedPath
}

// Compare orders outputs before paths.
func (r Ref) Compare(s Ref) int {
	switch {
	case r.isOutput() && s.isOutput():
		return strings.Compare(r.Output, s.Output)
	case r.isOutput():
		return -1
	case s.isOutput():
		return 1
	}
	return r.Path.Compare(s.Path)
}

func (r Ref) isOutput() bool { return r.Path.Drv == nil && r.Path.Path.IsZero() }

// SystemFeatures are the features that a machine must have to build a
// derivation of that type.
func (o *Options) SystemFeatures(t Type) []string {
	if t.HasKnownOutputPaths {
		return o.RequiredSystemFeatures
	}
	return sortedSet(append(slices.Clone(o.RequiredSystemFeatures), "ca-derivations"))
}

// Checks are the conditions on one output.
func (o *Options) Checks(output string) OutputChecks {
	if o.AllOutputs != nil {
		return *o.AllOutputs
	}
	return o.PerOutput[output]
}

// Options reads the attributes of a derivation whose inputs are resolved.
// Warnings are for the user's log.
func (d *BasicDerivation) Options(dir storepath.Dir) (o *Options, warnings []string, err error) {
	return d.options(dir, nil)
}

// Options reads the attributes of a derivation. With the feature
// ca-derivations placeholders of inputs are understood where paths are.
func (d *Derivation) Options(dir storepath.Dir, f Features) (o *Options, warnings []string, err error) {
	placeholders := make(map[string]SingleDerivedPath)
	if f.CADerivations {
		for p, in := range d.InputDrvs {
			in.placeholders(SingleDerivedPath{Path: p}, placeholders)
		}
	}
	return d.options(dir, placeholders)
}

func (in *InputOutputs) placeholders(drv SingleDerivedPath, into map[string]SingleDerivedPath) {
	for _, name := range in.Outputs {
		p := SingleDerivedPath{Drv: &drv, Output: name}
		into[p.Placeholder().String()] = p
	}
	for name, child := range in.Dynamic {
		child.placeholders(SingleDerivedPath{Drv: &drv, Output: name}, into)
	}
}
