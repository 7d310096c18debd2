package protocol

import (
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/wire"
)

// maxDerivedPath bounds a request's text, and with it how deep "a!b!c" nests.
const maxDerivedPath = 16 * wire.MaxPath

// separator stands between a derivation and its outputs on the wire.
const separator = "!"

// DerivedPath reads a request for a path or for outputs:
//
//	(30) "<path>", the file itself; "<drv>!*" or "<drv>!<out>,<out>"
//	     "<path>"; "<drv>", all outputs; "<drv>!<out>,<out>"
func (r *Reader) DerivedPath() (derivation.DerivedPath, error) {
	s, err := r.String(maxDerivedPath)
	if err != nil {
		return derivation.DerivedPath{}, err
	}
	if r.Version.AtLeast(30) {
		return derivation.ParseDerivedPath(r.Dir, s, separator, r.Features)
	}
	return derivation.ParsePathWithOutputs(r.Dir, s)
}

// DerivedPath writes what Reader.DerivedPath reads. What has no form before 30
// is written as that of 30, which an old daemon refuses.
func (w *Writer) DerivedPath(p derivation.DerivedPath) {
	if !w.Version.AtLeast(30) {
		if old, ok := p.PathWithOutputs(w.Dir); ok {
			w.String(old)
			return
		}
	}
	w.String(p.Format(w.Dir, separator))
}

// DerivedPaths reads a list of requests.
func (r *Reader) DerivedPaths() ([]derivation.DerivedPath, error) {
	n, err := r.Count(wire.MaxCount)
	if err != nil {
		return nil, err
	}
	paths := make([]derivation.DerivedPath, 0, wire.Capacity(n))
	for range n {
		p, err := r.DerivedPath()
		if err != nil {
			return nil, err
		}
		paths = append(paths, p)
	}
	return paths, nil
}

// DerivedPaths writes a list of requests.
func (w *Writer) DerivedPaths(paths []derivation.DerivedPath) {
	w.Uint64(uint64(len(paths)))
	for _, p := range paths {
		w.DerivedPath(p)
	}
}
