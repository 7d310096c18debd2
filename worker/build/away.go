package build

import (
	"nixdaemon/localstore"
	"nixdaemon/protocol/derivation"
)

// NewAway makes a scheduler for a store that is no directory of this machine, such as a binary cache. Paths are
// substituted into it, or built by other machines; nothing is built here. Of the options those count that have to do with
// no builders of this machine. Logs go to a directory all the same. Nobody else who builds into the store is known of: it
// has no locks. Close it.
func NewAway(store Store, logs *localstore.BuildLogs, o Options) *Scheduler {
	b := &builder{o: o, dir: store.Dir(), logs: logs}
	s := newScheduler(store, o.Substituter, o.IDs, o.Log, 1, b.run)
	s.features, s.systemFeatures = o.Features, o.SystemFeatures
	s.remote, s.observer, s.spool = o.Remote, o.Observer, newSpool(o.LogSpool)
	s.away = true
	if o.Numbers != nil {
		s.lastID = o.Numbers
	}
	return s
}

// errAway refuses to build (libstore/build/derivation-building-goal.cc, reject).
func errAway() *Failure {
	return &Failure{Status: derivation.StatusInputRejected, Msg: textf("Unable to build with a primary store that isn't a local store; " +
		"either pass a different '--store' or enable remote builds.\n\nFor more information check 'man nix.conf' and search for '/machines'.")}
}
