package derivation

import (
	"strings"

	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/storepath"
)

// HashPlaceholder stands for the path of the derivation's own output until
// that is known (libstore/derivations.cc, hashPlaceholder).
func HashPlaceholder(output string) string {
	return "/" + nixhash.Of(nixhash.SHA256, "nix-output:"+output).Nix32()
}

// Placeholder stands for the path of an input that is not known before the
// input is built (libstore/downstream-placeholder.cc).
type Placeholder struct{ hash nixhash.Hash }

// OutputPlaceholder stands for an output of a derivation in the store.
func OutputPlaceholder(drvPath storepath.Path, output string) Placeholder {
	name := strings.TrimSuffix(drvPath.Name(), storepath.DrvExtension)
	clear := "nix-upstream-output:" + drvPath.HashPart() + ":" + storepath.OutputPathName(name, output)
	return Placeholder{nixhash.Of(nixhash.SHA256, clear)}
}

// Output stands for an output of the derivation that p stands for.
func (p Placeholder) Output(output string) Placeholder {
	clear := "nix-computed-output:" + nixhash.EncodeNix32(p.hash.Compress(20)) + ":" + output
	return Placeholder{nixhash.Of(nixhash.SHA256, clear)}
}

// String is the text that stands in the derivation.
func (p Placeholder) String() string { return "/" + p.hash.Nix32() }

// Placeholder stands for the output that p names; p must not be a plain path.
func (p SingleDerivedPath) Placeholder() Placeholder {
	if p.Drv.Drv == nil {
		return OutputPlaceholder(p.Drv.Path, p.Output)
	}
	return p.Drv.Placeholder().Output(p.Output)
}
