package derivation

import (
	"fmt"
	"strings"

	"nixdaemon/protocol/storepath"
)

// Separators between a derivation and its outputs.
const (
	// SeparatorWire is that of the worker protocol and the database.
	SeparatorWire = "!"
	// SeparatorCLI is that of command lines and messages.
	SeparatorCLI = "^"
)

// maxPathDepth bounds how many outputs a derived path may go through.
const maxPathDepth = 1000

// SingleDerivedPath is a store path, or one output of a derivation that is
// itself a SingleDerivedPath.
type SingleDerivedPath struct {
	// Path is set when this is a plain store path.
	Path storepath.Path
	// Drv and Output are set when this is an output of a derivation.
	Drv    *SingleDerivedPath
	Output string
}

// DerivedPath is a request: a store path as it is, or outputs of a derivation.
type DerivedPath struct {
	// Path is set when the request is for a store path itself; for a
	// derivation's path that is the .drv file.
	Path storepath.Path
	// Drv is set when the request is for outputs of a derivation.
	Drv *SingleDerivedPath
	// Outputs are the names asked for.
	Outputs OutputsSpec
}

// ParseSingleDerivedPath reads "<path>", "<drv><separator><output>" and so on.
// An output of a derivation that is itself an output needs the feature
// dynamic-derivations.
func ParseSingleDerivedPath(dir storepath.Dir, s, separator string, f Features) (SingleDerivedPath, error) {
	if strings.Count(s, separator) > maxPathDepth {
		return SingleDerivedPath{}, fmt.Errorf("derived path goes through more than %d outputs", maxPathDepth)
	}
	at := strings.LastIndex(s, separator)
	if at < 0 {
		p, err := dir.Parse(s)
		return SingleDerivedPath{Path: p}, err
	}
	drv, err := parseOutputsOf(dir, s[:at], separator, f)
	if err != nil {
		return SingleDerivedPath{}, err
	}
	return SingleDerivedPath{Drv: &drv, Output: s[at+len(separator):]}, nil
}

// parseOutputsOf reads what stands before outputs.
func parseOutputsOf(dir storepath.Dir, s, separator string, f Features) (SingleDerivedPath, error) {
	drv, err := ParseSingleDerivedPath(dir, s, separator, f)
	if err == nil {
		err = drv.requireFeature(f)
	}
	return drv, err
}

// requireFeature checks that p may be a derivation of which outputs are asked.
func (p SingleDerivedPath) requireFeature(f Features) error {
	if p.Drv == nil || f.DynamicDerivations {
		return nil
	}
	return require(false, "dynamic-derivations", fmt.Sprintf("building output '%s' of '%s'", p.Output, p.Drv.Base()))
}

// ParseDerivedPath reads "<path>", "<drv><separator><outputs>" and so on: the
// last separator stands before the outputs (worker protocol 1.30 and later).
func ParseDerivedPath(dir storepath.Dir, s, separator string, f Features) (DerivedPath, error) {
	at := strings.LastIndex(s, separator)
	if at < 0 {
		p, err := dir.Parse(s)
		return DerivedPath{Path: p}, err
	}
	drv, err := parseOutputsOf(dir, s[:at], separator, f)
	if err != nil {
		return DerivedPath{}, err
	}
	outputs, err := ParseOutputsSpec(s[at+len(separator):])
	if err != nil {
		return DerivedPath{}, err
	}
	return DerivedPath{Drv: &drv, Outputs: outputs}, nil
}

// ParsePathWithOutputs reads a request of worker protocols before 1.30, where a
// derivation without outputs means all of its outputs
// (libstore/path-with-outputs.cc).
func ParsePathWithOutputs(dir storepath.Dir, s string) (DerivedPath, error) {
	text, names, _ := strings.Cut(s, SeparatorWire)
	p, err := dir.Parse(text)
	if err != nil {
		return DerivedPath{}, err
	}
	outputs := sortedSet(strings.FieldsFunc(names, func(r rune) bool { return r == ',' }))
	switch {
	case len(outputs) > 0:
		return DerivedPath{Drv: &SingleDerivedPath{Path: p}, Outputs: OutputsSpec{Names: outputs}}, nil
	case p.IsDerivation():
		return DerivedPath{Drv: &SingleDerivedPath{Path: p}, Outputs: OutputsSpec{All: true}}, nil
	}
	return DerivedPath{Path: p}, nil
}

// Format writes what ParseSingleDerivedPath reads.
func (p SingleDerivedPath) Format(dir storepath.Dir, separator string) string {
	if p.Drv == nil {
		return dir.Print(p.Path)
	}
	return p.Drv.Format(dir, separator) + separator + p.Output
}

// Format writes what ParseDerivedPath reads.
func (p DerivedPath) Format(dir storepath.Dir, separator string) string {
	if p.Drv == nil {
		return dir.Print(p.Path)
	}
	return p.Drv.Format(dir, separator) + separator + p.Outputs.String()
}

// PathWithOutputs writes what ParsePathWithOutputs reads. A .drv file itself,
// and outputs of derivations that are outputs, cannot be asked for so.
func (p DerivedPath) PathWithOutputs(dir storepath.Dir) (string, bool) {
	switch {
	case p.Drv == nil:
		return dir.Print(p.Path), !p.Path.IsDerivation()
	case p.Drv.Drv != nil:
		return "", false
	case p.Outputs.All || len(p.Outputs.Names) == 0:
		return dir.Print(p.Drv.Path), true
	}
	return p.Format(dir, SeparatorWire), true
}

// Base is the store path at the root of a derived path.
func (p SingleDerivedPath) Base() storepath.Path {
	for p.Drv != nil {
		p = *p.Drv
	}
	return p.Path
}

// Base is the store path at the root of a derived path.
func (p DerivedPath) Base() storepath.Path {
	if p.Drv == nil {
		return p.Path
	}
	return p.Drv.Base()
}

// Compare orders store paths before outputs, then by path, derivation and
// output, as upstream's sets do.
func (p SingleDerivedPath) Compare(q SingleDerivedPath) int {
	switch {
	case p.Drv == nil && q.Drv == nil:
		return storepath.Compare(p.Path, q.Path)
	case p.Drv == nil:
		return -1
	case q.Drv == nil:
		return 1
	}
	if c := p.Drv.Compare(*q.Drv); c != 0 {
		return c
	}
	return strings.Compare(p.Output, q.Output)
}

// Compare orders store paths before outputs, then by path, derivation and
// outputs, as upstream's sets do.
func (p DerivedPath) Compare(q DerivedPath) int {
	switch {
	case p.Drv == nil && q.Drv == nil:
		return storepath.Compare(p.Path, q.Path)
	case p.Drv == nil:
		return -1
	case q.Drv == nil:
		return 1
	}
	if c := p.Drv.Compare(*q.Drv); c != 0 {
		return c
	}
	return p.Outputs.Compare(q.Outputs)
}
