package build

import (
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker/settings"
)

// drvFeatures are the experimental features that package derivation asks for.
func drvFeatures(set settings.FeatureSet) derivation.Features {
	return derivation.Features{
		CADerivations:      set.Enabled(settings.CADerivations),
		DynamicDerivations: set.Enabled(settings.DynamicDerivations),
		ImpureDerivations:  set.Enabled(settings.ImpureDerivations),
		GitHashing:         set.Enabled(settings.GitHashing),
		BLAKE3Hashes:       set.Enabled(settings.BLAKE3Hashes),
	}
}

// hashOfDrv tells the texts of derivations apart.
func hashOfDrv(dir storepath.Dir, drv *derivation.Derivation) (nixhash.Hash, error) {
	text, err := drv.ATerm(dir)
	return nixhash.Of(nixhash.SHA256, text), err
}

// knownOutputsText lists the output paths that are known, for the end of a failure's text
// (derivation-building-goal.cc, showKnownOutputs).
func knownOutputsText(dir storepath.Dir, drv *derivation.BasicDerivation) Text {
	outputs, err := drv.OutputPaths(dir)
	if err != nil {
		return Text{}
	}
	var paths []storepath.Path
	for _, p := range outputs {
		if !p.IsZero() {
			paths = append(paths, p)
		}
	}
	if len(paths) == 0 {
		return Text{}
	}
	t := textf("\nOutput paths:")
	for _, p := range storepath.SortUnique(paths) {
		t = t.and(textf("\n  %s", dir.Print(p)))
	}
	return t
}

func dependenciesFailed(dir storepath.Dir, drvPath storepath.Path, drv *derivation.BasicDerivation, n int) *Failure {
	word := "dependencies"
	if n == 1 {
		word = "dependency"
	}
	return &Failure{Status: derivation.StatusDependencyFailed, Msg: textf("Cannot build '%s'.\nReason: %s.",
		dir.Print(drvPath), red(itoa(n)+" "+word+" failed")).and(knownOutputsText(dir, drv))}
}
