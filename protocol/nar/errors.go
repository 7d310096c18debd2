package nar

import "nixdaemon/protocol/wire"

// badArchive makes an error that says why input is no archive, in upstream's words.
// It is a [wire.Error], as are the errors about strings that are too long or wrongly padded.
func badArchive(format string, args ...any) error {
	return wire.Errorf("bad archive: "+format, args...)
}

func errTooDeep() error {
	return badArchive("NAR directory nesting exceeds maximum depth of %d", MaxDepth)
}

func errName(name string) error { return badArchive("NAR contains invalid file name '%s'", name) }

func errUnsorted() error { return badArchive("NAR directory is not sorted") }

func errTarget() error { return badArchive("NAR contains invalid symlink target") }
