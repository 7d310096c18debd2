// Package localstore is the store on the local disk: the files, the database that says which of them are valid,
// and the locks that every process working on them respects, upstream's included.
//
// A [Store] is one open store. It answers what is valid and what that refers to ([Store.PathInfo], [Store.Closure]),
// takes new contents ([Store.AddNAR], [Store.AddDump]) and what builders left behind ([Store.Canonicalise],
// [Store.Register]), gives contents out ([Store.Dump]), and checks, optimises and deletes them. [TempRoots] are one
// connection's claims that keep a collector from what it works with; a [Staging] directory is where things are
// made that have no name yet. The package knows no opcodes, users or schedulers.
//
// # Validity
//
// A path is valid if and only if its row exists. The row comes last and goes first, so that a crash at any point
// leaves garbage on disk, never a lie in the database: garbage is in the way of nobody, since whoever adds the
// path removes it under the path's lock.
//
// # Durability
//
// Against the death of a process this order is enough. Against a power cut it is not, since the disk may have
// the row and not the files. So everything is synced in the background, seconds after a registration
// (Options.SyncEvery), and a mark in the state directory says how far. [Open] verifies what lies beyond it if the
// machine was restarted since: the last seconds may be missing, never wrong.
//
// # Order of locks
//
// A temporary root before a path lock, a path lock before the database. The lock gc.lock is held for moments, while
// a temporary root is written down, and never while waiting for another lock.
//
// # Other writers
//
// Other processes may change the database, and somebody may delete or replace it and the directories. The former
// is noticed by the next query, the latter by [Store.Refresh], which every new connection calls.
//
// # Layers
//
// The directory of a store can be an overlay file system ([Overlay]): it shows what a [Lower] store has, too. What is asked
// of such a store and has no row is asked of the lower one; what is valid there gets a row, with all that it refers to, as
// soon as somebody wants to know, so that the database is always complete in itself. Nothing of the lower store is changed:
// the collector works with [Upper], which deletes from the upper layer alone.
//
// Layouts, names and texts are upstream's, release 2.34.8 (libstore/local-store.cc, gc.cc, optimise-store.cc).
package localstore
