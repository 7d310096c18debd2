package derivation

import (
	"errors"
	"strings"

	"nixdaemon/protocol/nixhash"
)

// Type says what kind of derivation one is, as its outputs, all of one kind,
// have it (libstore/derivations.hh, DerivationType). Types compare with ==.
type Type struct {
	// IsCA is true when the outputs are content-addressed.
	IsCA bool
	// IsFixed is true when the content is known beforehand.
	IsFixed bool
	// IsSandboxed is false for those that may use the network: fixed-output
	// and impure ones.
	IsSandboxed bool
	IsImpure    bool
	// IsDeferred is true for input-addressed ones whose paths are not known
	// until their inputs are built.
	IsDeferred bool
	// HasKnownOutputPaths is true when the paths are known before the build.
	HasKnownOutputPaths bool
}

func (k OutputKind) derivationType() Type {
	switch k {
	case InputAddressed:
		return Type{IsSandboxed: true, HasKnownOutputPaths: true}
	case FixedCA:
		return Type{IsCA: true, IsFixed: true, HasKnownOutputPaths: true}
	case FloatingCA:
		return Type{IsCA: true, IsSandboxed: true}
	case Impure:
		return Type{IsCA: true, IsImpure: true}
	}
	return Type{IsSandboxed: true, IsDeferred: true}
}

// Type gives the derivation's type, or upstream's error for outputs that do
// not go together (libstore/derivations.cc, BasicDerivation::type).
func (d *BasicDerivation) Type() (Type, error) {
	var decided Type
	var algo nixhash.Algo
	for i, name := range d.OutputNames() {
		o := d.Outputs[name]
		t := o.Kind.derivationType()
		switch {
		case i > 0 && t != decided:
			return Type{}, errors.New("can't mix derivation output types")
		case i > 0 && t.IsFixed:
			return Type{}, errors.New("only one fixed output is allowed for now")
		case t.IsFixed && name != "out":
			return Type{}, errors.New(`single fixed output must be named "out"`)
		case o.Kind == FloatingCA && algo != 0 && o.Algo != algo:
			return Type{}, errors.New("all floating outputs must use the same hash algorithm")
		}
		decided, algo = t, o.Algo
	}
	if len(d.Outputs) == 0 {
		return Type{}, errors.New("must have at least one output")
	}
	return decided, nil
}

// IsBuiltin tells whether the daemon itself is the builder.
func (d *BasicDerivation) IsBuiltin() bool { return strings.HasPrefix(d.Builder, "builtin:") }
