package protocol

import (
	"cmp"
	"fmt"
	"slices"
)

// Number is a protocol version number: major<<8 | minor.
type Number uint16

// The numbers that matter (libstore/worker-protocol.hh). What each minor
// version added stands at the types and operations that ask for it.
const (
	// Latest is what we offer. Upstream has offered 1.38 since 2.24; what is
	// newer is a feature.
	Latest Number = 1<<8 | 38
	// Oldest is the smallest number that we accept, as upstream since 2.32.
	Oldest Number = 1<<8 | 18
)

// Minor makes a Number of a minor version.
func Minor(minor uint8) Number { return 1<<8 | Number(minor) }

// Major is the part before the dot.
func (n Number) Major() int { return int(n >> 8) }

// String writes "1.38".
func (n Number) String() string { return fmt.Sprintf("%d.%d", n>>8, n&0xff) }

// Feature is an extension that both sides must offer (since 1.38).
type Feature string

// The features known to 2.36. The first two are offered by daemons and
// clients, the rest by daemons inside a build only.
const (
	// FeatureRealisationWithPath keys realisations by derivation path.
	FeatureRealisationWithPath Feature = "realisation-with-path-not-hash"
	// FeatureDeleteDeadSpecificReferrers gives CollectGarbage a richer path set.
	FeatureDeleteDeadSpecificReferrers Feature = "delete-dead-specific-referrers"
	// FeatureDisableSetOptions tells the client not to send SetOptions.
	FeatureDisableSetOptions Feature = "disable-set-options"
	// FeatureAddToStoreScanning allows OpAddToStoreScanning.
	FeatureAddToStoreScanning Feature = "add-to-store-scanning"
	// FeatureSubmitOutput allows OpSubmitOutput.
	FeatureSubmitOutput Feature = "submit-output"
)

// Version is what a connection speaks.
type Version struct {
	Number Number
	// Features is sorted.
	Features []Feature
}

// DaemonVersion is what a daemon offers to ordinary clients. Clients before
// 2.35 offer no features, and so get the older encodings.
func DaemonVersion() Version {
	return Version{Latest, []Feature{FeatureDeleteDeadSpecificReferrers, FeatureRealisationWithPath}}
}

// NestedVersion is what a daemon offers to a builder with recursive-nix.
func NestedVersion() Version {
	return Version{Latest, []Feature{FeatureAddToStoreScanning, FeatureDeleteDeadSpecificReferrers,
		FeatureDisableSetOptions, FeatureRealisationWithPath}}
}

// BuilderRPCVersion is what a daemon offers to a builder with builder-rpc-v0.
// Builders can see it, so it never changes, whatever Latest becomes
// (libstore/worker-protocol.cc, builderRpcV0).
func BuilderRPCVersion() Version {
	return Version{Minor(38), []Feature{FeatureAddToStoreScanning, FeatureDisableSetOptions,
		FeatureRealisationWithPath, FeatureSubmitOutput}}
}

// ClientVersion is what our client offers.
func ClientVersion() Version {
	return Version{Latest, []Feature{FeatureAddToStoreScanning, FeatureDeleteDeadSpecificReferrers,
		FeatureDisableSetOptions, FeatureRealisationWithPath, FeatureSubmitOutput}}
}

// AtLeast tells whether the number is 1.minor or larger.
func (v Version) AtLeast(minor uint8) bool { return v.Number >= Minor(minor) }

// Has tells whether both sides offered the feature.
func (v Version) Has(f Feature) bool { return slices.Contains(v.Features, f) }

// Negotiate gives what two peers have in common.
func Negotiate(a, b Version) Version {
	v := Version{Number: min(a.Number, b.Number)}
	if !v.AtLeast(38) {
		return v
	}
	for _, f := range a.Features {
		if b.Has(f) {
			v.Features = append(v.Features, f)
		}
	}
	slices.SortFunc(v.Features, func(x, y Feature) int { return cmp.Compare(x, y) })
	return v
}
