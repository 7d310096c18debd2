package pathinfo

import (
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/storepath"
)

// DrvOutput names an output of a derivation. Releases before 2.35 key it by
// the derivation's hash modulo (DrvHash), later ones by its path (DrvPath); a
// value may carry either or both.
type DrvOutput struct {
	DrvHash nixhash.Hash
	DrvPath storepath.Path
	Output  string
}

// Realisation says which path an output of a derivation became.
type Realisation struct {
	ID      DrvOutput
	OutPath storepath.Path
	// Sigs is a sorted set.
	Sigs []Signature
	// Dependent maps the ids ("sha256:<base16>!<output>") of the realisations
	// that this one was built from to their paths (releases before 2.35).
	Dependent map[string]storepath.Path
}
