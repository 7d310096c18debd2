// Package fstree moves trees of files between disks and archives, as a store keeps them.
//
// A [Dir] is an open directory; every operation names one of its entries and works on the tree of that name:
// [Dir.Restore] makes it from an archive, [Dir.Dump] serialises it, [Dir.Canonicalise] gives a builder's output
// the metadata that all store objects share, [Dir.Delete] removes it, [Dir.Move] puts it elsewhere, and an
// [Optimiser] hard-links its files to equal ones.
//
// # Safety
//
// A tree may have been made by somebody hostile. Each step opens or names exactly one component relative to an open
// directory and follows no symbolic link, so nothing outside the tree can be reached, whatever moves about meanwhile;
// a path is put together for messages alone. Depth is bounded, so recursion and open descriptors are too.
//
// # Metadata
//
// What a store object is, apart from its contents, is canonical (libstore/posix-fs-canonicalise.cc): directories and
// executable files have mode 0555, other files 0444, everything the modification time 1 and the daemon's owner,
// and nothing has extended attributes or access control lists, except those that the settings name.
package fstree

import "nixdaemon/protocol/nar"

const (
	modeFile = 0o444
	modeExec = 0o555
	modeDir  = 0o555

	// maxDepth is the number of levels that an archive can hold.
	maxDepth = nar.MaxDepth
)
