// Package dummystore serves upstream's "dummy://" as a daemon's own store: one in memory, empty at first, for evaluation
// and tests (libstore/dummy-store.cc).
//
// A [Store] is that for one connection, and ends with it, as upstream's does: its daemon has a process for each. Unless
// the parameter read-only says otherwise nothing can be added. It is a [worker.Forwarder]: what it cannot do is refused in
// upstream's words.
//
// # Derivations
//
// They are added as archives only, with a warning, and are parsed and printed anew: whatever they were called, they are
// valid under the path that follows from them. Their metadata is made up of their text; references are not among it.
//
// # Bounds
//
// What a connection holds counts as a request's memory does ([wire.Ledger]), for as long as it lasts.
package dummystore
