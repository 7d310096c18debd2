// Package restricted shows a builder the part of a store that belongs to its
// build. A [Store] stands between a real store and the daemon that serves one
// builder (upstream's recursive-nix and builder-rpc-v0,
// libstore/restricted-store.cc); what belongs to the build, and how that
// grows, is the [Build]'s to say.
//
// # What a builder sees
//
// The closure of its inputs, what it has added and what was built for it are
// valid; nothing else is, whatever the store holds. What is told of a path is
// no more than follows from its contents: no deriver, time, signatures or
// referrers. Roots, collections, signatures and repairs are not for builders.
//
// # What a builder may not learn by adding
//
// Who knows a store path but not its contents shall not get these by claiming
// to add it. Upstream lets a builder see whatever it names in an addition; here
// it must bring the contents, even of what is valid already, and what it adds
// refers only to what it sees. A derivation that is built for it has inputs
// that it sees, too.
package restricted
