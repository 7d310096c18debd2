package build

import (
	"nixdaemon/protocol/derivation"
)

// NewAway makes a scheduler for a store that is no directory of this machine, such as a binary cache. Paths are
// substituted into it; nothing is built. Of the options those count that have to do with neither builders nor machines.
// Close it.
func NewAway(store Store, o Options) *Scheduler {
	s := newScheduler(store, o.Substituter, o.IDs, o.Log, 1, func(*Scheduler, *job) outcome { return failed(errAway()) })
	s.features, s.systemFeatures = o.Features, o.SystemFeatures
	s.away = true
	return s
}

// errAway refuses to build (libstore/build/derivation-building-goal.cc, reject).
func errAway() *Failure {
	return &Failure{Status: derivation.StatusInputRejected, Msg: textf("Unable to build with a primary store that isn't a local store; " +
		"either pass a different '--store' or enable remote builds.\n\nFor more information check 'man nix.conf' and search for '/machines'.")}
}
