// Package cachestore serves a binary cache as a daemon's own store: what clients add is uploaded, what they ask is
// answered from its files.
//
// A [Store] is that for one connection; several share a cache. It is a [worker.Forwarder]: nobody but the cache knows
// what is valid, and much of what a store of this machine can do it cannot, which is told in upstream's words. Building
// and substituting into it is the business of a scheduler, which takes a Store as any other.
//
// # Order
//
// A path is valid once its narinfo is there, so that comes last: behind the listing, the index of debug information and
// the archive, and behind the narinfos of what it refers to. Whatever interrupts an upload leaves objects that nobody
// refers to, which the next upload of the path finds and uses.
//
// # Trust
//
// Upstream writes whatever any client sends, and signs it (libstore/binary-cache-store.cc, addToStore). Here archives
// must be what their metadata say, and of clients that are not trusted no more is taken than a store of this machine
// would take: what is signed by a trusted key, and what its content address proves.
package cachestore
