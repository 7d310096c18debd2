// Package protocol is the worker protocol: what a Nix client and a Nix daemon
// say to each other over a socket. A [Version] is what both agreed on; a
// [Reader] and a [Writer] are bound to it and to a store directory and carry
// the composite types of that version; an [Op] is a request; a [Frame] is what
// the daemon says while it works on one.
//
// # Login
//
//	client                              server
//	magic "nixc", version        →
//	                             ←      magic "dxio", version
//	features (1.38)              →
//	                             ←      features (1.38)
//	CPU affinity, reserve space  →
//	                             ←      daemon's release (1.33), trust (1.35)
//	                             ←      frames, last
//
// # Steady state
//
//	op, request                  →
//	                             ←      frames, then "last" or "error"
//	                             ←      reply, after "last" only
//
// The version of a connection is the smaller of the two that were offered, its
// features those that both offered. Decoders and encoders ask the version
// themselves; callers never do.
//
// Nothing here does I/O other than on the streams that it is handed, logs, or
// starts goroutines. Input is hostile: every length, count and nesting is
// bounded before anything is allocated (see the limits of package wire and
// [Reader.StartRequest]).
package protocol
