// Package pathinfo holds what a store knows of a path: [Info] is its metadata,
// a [Signature] vouches for that metadata's fingerprint, and a [Realisation]
// says which path an output of a content-addressing derivation became.
//
// Pure values and texts; nothing here touches a disk or a socket.
package pathinfo

import (
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/storepath"
)

// Info is the metadata of one store path (libstore/path-info.hh,
// ValidPathInfo). Copies share the slices; treat those as read-only.
type Info struct {
	Path storepath.Path
	// Deriver is the derivation that made the path; zero when unknown.
	Deriver storepath.Path
	// NarHash is the sha256 of the path's NAR.
	NarHash nixhash.Hash
	// References is the sorted set of paths that this one refers to, itself
	// included if it does.
	References []storepath.Path
	// RegistrationTime is in seconds since 1970; 0 means "now" on adding.
	RegistrationTime int64
	// NarSize is the NAR's length in bytes; 0 when unknown.
	NarSize uint64
	// Ultimate is true for what was built here, from inputs that we trust.
	Ultimate bool
	// Sigs is the sorted set of signatures.
	Sigs []Signature
	// CA is the content address; zero for input-addressed paths.
	CA storepath.ContentAddress
}
