// Package nar reads and writes Nix archives: the serialisation of a file, a symbolic link or a directory tree
// that store paths are hashed, sent and stored as. It touches no disk.
//
// [Parse] drives a [Handler] with the nodes of one archive, and a [Writer] is a Handler that serialises them,
// so that Parse into a Writer gives the same bytes back. [ParseTee] also passes on the archive as it is read,
// to hash it on the way; [Copy] and [Skip] are the two for when nobody wants the nodes.
//
// # Format
//
// Everything is a padded string as in package wire. An archive is Magic and a node; a node is one of
//
//	( type regular [executable ""] contents DATA )
//	( type symlink target TARGET )
//	( type directory {entry ( name NAME node NODE )}... )
//
// with the entries of a directory in strictly increasing bytewise order of their names. There is exactly one
// serialisation of a tree, and nothing else is accepted. Limits and error texts are those of upstream 2.34.8.
//
// # Streams
//
// An archive does not say how long it is, and on a connection other things follow it: exactly its bytes are consumed.
// Nothing is held in memory but names and one buffer; there are no goroutines. Upstream's macOS case hack, which
// renames files on a case-folding disk, belongs to whoever touches the disk.
package nar
