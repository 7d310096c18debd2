// Package gc collects garbage: it deletes what no root leads to.
//
// A [Collector] serves one store. [Collector.FindRoots] tells what keeps paths alive; [Collector.Collect] carries out
// one [Request]. A collection takes the lock gc.lock, listens for roots that are added from now on, finds the roots
// that there are, loads the graph of all valid paths into arrays of integers, and lists the store directory. From these a pure
// function makes a plan: what is alive, and what is dead in an order in which referrers come first. Then the plan is
// executed, in bounded transactions, while files of earlier ones are being deleted.
//
// # What may happen meanwhile
//
// Builds, additions and queries go on. Nothing that became a root after the roots were found is deleted: whoever
// needs a path makes a temporary root of it first, which while gc.lock is held means telling the collector, and the
// collector looks at what it was told at the moment of each deletion. It answers once the path is safe, or gone. Of a path that is told
// all that it needs is kept, too. A path that got a new referrer is kept, since the database refuses to drop its row.
//
// A path goes in the order claim, row, sync, files. Whoever dies in between leaves garbage, which the next collection finds.
//
// # Compatibility
//
// Which paths are deleted, what is printed and what is put on the socket gc-socket/socket are upstream's, release
// 2.34.8 (libstore/gc.cc), together with the requests that came with 2.35. On purpose different: listing what is dead deletes
// nothing at all; a lock file in use is left alone; a failed collection has stopped at a consistent point.
//
// In an [Overlay] what the lower store has gets rows first, and loses them again where nothing needs it: so the plan is that
// for a plain store which has all of it.
//
// # Order of locks
//
// The collector's turn, then gc.lock; the claims' mutex is a leaf.
package gc
