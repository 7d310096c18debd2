package nar

import "io"

// Handler receives the nodes of an archive in the order in which they stand there, parents first.
// The name is that within the parent directory, already validated, and empty for the root.
// An error from any method ends the parse and is returned as it is.
//
// Nodes arrive before what follows them is known to be well-formed: what a Handler made
// counts only when Parse has returned nil.
type Handler interface {
	// Directory begins a directory; what comes until its EndDirectory is inside it.
	Directory(name string) error

	// EndDirectory ends the directory begun last.
	EndDirectory() error

	// Regular is a regular file of size bytes. The contents must not be used after it returns; what it leaves unread is
	// skipped. The contents also implement io.WriterTo, which moves large files in large steps
	// and hands over small ones without copying.
	// A size is only a claim until the contents were read: do not allocate it.
	Regular(name string, executable bool, size uint64, contents io.Reader) error

	// Symlink is a symbolic link.
	Symlink(name, target string) error
}

// ignore is a Handler for when only the archive's extent and validity matter.
type ignore struct{}

func (ignore) Directory(string) error                        { return nil }
func (ignore) EndDirectory() error                           { return nil }
func (ignore) Regular(string, bool, uint64, io.Reader) error { return nil }
func (ignore) Symlink(string, string) error                  { return nil }
