//go:build !darwin

package build

import "nixdaemon/sandbox"

// byProfile tells whether builders are isolated by a profile, instead of a root of their own.
const byProfile = false

// checkProfile has nothing to refuse here.
func (a *attempt) checkProfile() error { return nil }

// confine gives the builder its profile, where there are such things.
func (a *attempt) confine(*sandbox.Spec) error { return nil }
