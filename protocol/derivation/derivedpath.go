package derivation

import "nixdaemon/protocol/storepath"

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

// OutputsSpec says which outputs are meant: all, or a sorted set of names.
type OutputsSpec struct {
	All   bool
	Names []string
}
