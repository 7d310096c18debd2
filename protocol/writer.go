package protocol

import (
	"cmp"
	"slices"

	"nixdaemon/protocol/nixhash"
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
	// text is room for what is formatted before it is written.
	text []byte
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
	w.Concat(string(w.Dir), "/", p.Base())
}

// StorePaths writes a sorted set of paths.
func (w *Writer) StorePaths(paths []storepath.Path) {
	w.Uint64(uint64(len(paths)))
	for _, p := range paths {
		w.StorePath(p)
	}
}

// NarHash writes a hash in base16 without its algorithm's name.
func (w *Writer) NarHash(h nixhash.Hash) {
	w.text = h.Append(w.text[:0], nixhash.Base16, false)
	w.Bytes(w.text)
}

// ContentAddress writes a content address, or "" for the zero one.
func (w *Writer) ContentAddress(ca storepath.ContentAddress) {
	w.text = ca.Append(w.text[:0])
	w.Bytes(w.text)
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
