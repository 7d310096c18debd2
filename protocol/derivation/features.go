package derivation

import (
	"fmt"

	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/storepath"
)

// Features says which experimental features are on, of those that decide what
// a derivation or a derived path may say. The zero value has none.
type Features struct {
	CADerivations      bool
	DynamicDerivations bool
	ImpureDerivations  bool
	GitHashing         bool
	BLAKE3Hashes       bool
}

// AllFeatures accepts everything: for what is only read again.
func AllFeatures() Features {
	return Features{true, true, true, true, true}
}

// DisabledFeatureError says that something needs an experimental feature that
// is off (libutil/experimental-features.cc).
type DisabledFeatureError struct {
	// Feature is the name as in the setting experimental-features.
	Feature string
	// Reason says what needs it, "" for nothing in particular.
	Reason string
}

func (e *DisabledFeatureError) Error() string {
	reason := ""
	if e.Reason != "" {
		reason = " (" + e.Reason + ")"
	}
	return fmt.Sprintf("experimental Nix feature '%s' is disabled%s; add '--extra-experimental-features %s' to enable it",
		e.Feature, reason, e.Feature)
}

func require(enabled bool, feature, reason string) error {
	if enabled {
		return nil
	}
	return &DisabledFeatureError{feature, reason}
}

// CheckAddress tells whether a content address may have that method and
// algorithm, wherever it stands (libstore/content-address.cc,
// libutil/hash.cc).
func (f Features) CheckAddress(method storepath.Method, algo nixhash.Algo) error {
	if method == storepath.MethodGit {
		if err := require(f.GitHashing, "git-hashing", ""); err != nil {
			return err
		}
	}
	if algo == nixhash.BLAKE3 {
		return require(f.BLAKE3Hashes, "blake3-hashes", "")
	}
	return nil
}
