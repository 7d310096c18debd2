package protocol

import (
	"cmp"
	"slices"

	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
	"nixdaemon/protocol/wire"
)

// Writer encodes what is sent to the peer of a connection. Errors of the
// stream stick and come out of Flush, so encoders do not return them. It is
// not safe for concurrent use.
type Writer struct {
	*wire.Writer
	Version Version
	Dir     storepath.Dir
}

// NewWriter binds a stream to a version and a store directory.
func NewWriter(out *wire.Writer, dir storepath.Dir, version Version) *Writer {
	return &Writer{Writer: out, Version: version, Dir: dir}
}

// Op writes the number of a request.
func (w *Writer) Op(op Op) { w.Uint64(uint64(op)) }

// StorePath writes a full store path, or "" for the zero path.
func (w *Writer) StorePath(p storepath.Path) {
	if p.IsZero() {
		w.String("")
		return
	}
	w.String(w.Dir.Print(p))
}

// StorePaths writes a sorted set of paths.
func (w *Writer) StorePaths(paths []storepath.Path) {
	w.Uint64(uint64(len(paths)))
	for _, p := range paths {
		w.StorePath(p)
	}
}

// Signatures writes a sorted set of signatures.
func (w *Writer) Signatures(sigs []pathinfo.Signature) {
	w.Uint64(uint64(len(sigs)))
	for _, s := range sigs {
		w.String(string(s))
	}
}

func sortUnique[T cmp.Ordered](values []T) []T {
	slices.Sort(values)
	return slices.Compact(values)
}
