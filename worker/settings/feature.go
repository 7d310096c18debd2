package settings

import (
	"fmt"
	"slices"
	"strings"
)

// Feature is an experimental feature. The zero value stands for "none needed".
type Feature uint8

// The experimental features of 2.34.8.
const (
	NoFeature Feature = iota
	CADerivations
	ImpureDerivations
	Flakes
	FetchTree
	NixCommand
	GitHashing
	RecursiveNix
	FetchClosure
	AutoAllocateUIDs
	Cgroups
	DaemonTrustOverride
	DynamicDerivations
	ParseTOMLTimestamps
	ReadOnlyLocalStore
	LocalOverlayStore
	ConfigurableImpureEnv
	MountedSSHStore
	VerifiedFetches
	PipeOperators
	ExternalBuildersFeature
	BLAKE3Hashes
	numFeatures
)

var featureNames = [numFeatures]string{
	CADerivations: "ca-derivations", ImpureDerivations: "impure-derivations", Flakes: "flakes",
	FetchTree: "fetch-tree", NixCommand: "nix-command", GitHashing: "git-hashing", RecursiveNix: "recursive-nix",
	FetchClosure: "fetch-closure", AutoAllocateUIDs: "auto-allocate-uids", Cgroups: "cgroups",
	DaemonTrustOverride: "daemon-trust-override", DynamicDerivations: "dynamic-derivations",
	ParseTOMLTimestamps: "parse-toml-timestamps", ReadOnlyLocalStore: "read-only-local-store",
	LocalOverlayStore: "local-overlay-store", ConfigurableImpureEnv: "configurable-impure-env",
	MountedSSHStore: "mounted-ssh-store", VerifiedFetches: "verified-fetches", PipeOperators: "pipe-operators",
	ExternalBuildersFeature: "external-builders", BLAKE3Hashes: "blake3-hashes",
}

// String is the feature's name; empty for NoFeature.
func (f Feature) String() string {
	if f < numFeatures {
		return featureNames[f]
	}
	return fmt.Sprintf("feature-%d", uint8(f))
}

// ParseFeature finds the feature of that name.
func ParseFeature(name string) (Feature, bool) {
	i := slices.Index(featureNames[1:], name)
	return Feature(i + 1), i >= 0
}

// FeatureSet is a set of experimental features.
type FeatureSet uint32

// Features makes a set.
func Features(features ...Feature) FeatureSet {
	var set FeatureSet
	for _, f := range features {
		set |= 1 << f
	}
	return set
}

// Enabled says whether f is in the set; NoFeature always is.
func (set FeatureSet) Enabled(f Feature) bool {
	return f == NoFeature || set&(1<<f) != 0
}

// Require returns a *DisabledFeatureError unless f is enabled. The reasons, joined, say what needed it.
func (set FeatureSet) Require(f Feature, reason ...string) error {
	if set.Enabled(f) {
		return nil
	}
	return &DisabledFeatureError{Feature: f, Reason: strings.Join(reason, " ")}
}

// String renders the names, sorted and separated by spaces, as nix.conf has them.
func (set FeatureSet) String() string {
	var names []string
	for f := NoFeature + 1; f < numFeatures; f++ {
		if set.Enabled(f) {
			names = append(names, f.String())
		}
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

// parseFeatures reads names. `flakes` brings `fetch-tree` along; names that are not known are warned about.
func parseFeatures(value string, warn func(string)) FeatureSet {
	var set FeatureSet
	for _, name := range sortedSet(strings.FieldsFunc(value, isSpace)) {
		f, ok := ParseFeature(name)
		switch {
		case ok && f == Flakes:
			set |= Features(Flakes, FetchTree)
		case ok:
			set |= Features(f)
		case name == "no-url-literals":
			warn("experimental feature 'no-url-literals' has been stabilized and renamed; " +
				"use 'lint-url-literals = fatal' setting instead")
		default:
			warn(fmt.Sprintf("unknown experimental feature '%s'", name))
		}
	}
	return set
}
