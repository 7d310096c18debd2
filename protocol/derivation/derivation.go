// Package derivation holds build recipes as Nix writes them. A [Derivation]
// is what a .drv file says: outputs, inputs, a builder and its environment; a
// [BasicDerivation] is one whose inputs are store paths only, ready to be
// built; a [DerivedPath] asks for a store path or for outputs of a derivation;
// a [BuildResult] tells how a build ended.
//
// Pure values and texts; nothing here touches a disk or a socket.
package derivation

import (
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/storepath"
)

// OutputKind says how the path of an output comes about
// (libstore/derivations.hh, DerivationOutput).
type OutputKind uint8

// The kinds of outputs.
const (
	// InputAddressed outputs have a path that follows from the derivation.
	InputAddressed OutputKind = iota + 1
	// FixedCA outputs have a content address that is known beforehand.
	FixedCA
	// FloatingCA outputs get the path of whatever content the build makes.
	FloatingCA
	// Deferred outputs are input-addressed, below a floating input.
	Deferred
	// Impure outputs are content-addressed and never reused.
	Impure
)

// Output is one output of a derivation.
type Output struct {
	Kind OutputKind
	// Path is set for InputAddressed alone; that of a FixedCA output follows
	// from CA (see [Output.OutputPath]).
	Path storepath.Path
	// CA is set for FixedCA.
	CA storepath.ContentAddress
	// Method and Algo are set for FloatingCA and Impure.
	Method storepath.Method
	Algo   nixhash.Algo
}

// BasicDerivation is a derivation whose inputs are store paths.
type BasicDerivation struct {
	// Name is the derivation's name, without ".drv".
	Name    string
	Outputs map[string]Output
	// InputSrcs is a sorted set.
	InputSrcs []storepath.Path
	Platform  string
	Builder   string
	Args      []string
	// Env holds the environment, without "__json".
	Env map[string]string
	// StructuredAttrs is the JSON text of structured attributes (the variable
	// "__json" of the ATerm), nil when there are none. It is in upstream's
	// spelling: see [BasicDerivation.SetFullEnv].
	StructuredAttrs *string
}

// InputOutputs are the outputs wanted of one input derivation, and of
// derivations that its outputs turn out to be (dynamic derivations).
type InputOutputs struct {
	// Outputs is a sorted set of names.
	Outputs []string
	// Dynamic maps an output's name to what is wanted of the derivation which
	// that output is; nil without dynamic derivations.
	Dynamic map[string]*InputOutputs
}

// Derivation is what a .drv file says.
type Derivation struct {
	BasicDerivation
	InputDrvs map[storepath.Path]*InputOutputs
}
