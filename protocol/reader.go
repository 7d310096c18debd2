package protocol

import (
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
	"nixdaemon/protocol/wire"
)

// Reader decodes what the peer of a connection sends. It is not safe for
// concurrent use.
type Reader struct {
	*wire.Reader
	Version Version
	Dir     storepath.Dir
	// Features are the experimental features that decide what derivations and
	// derived paths may say; see NewReader.
	Features derivation.Features
}

// NewReader binds a stream to a version and a store directory. No experimental
// feature is on; a server sets Features to its own.
func NewReader(in *wire.Reader, dir storepath.Dir, version Version) *Reader {
	return &Reader{Reader: in, Version: version, Dir: dir}
}

// StartRequest begins a new request: whatever it claims in lists and strings
// until the next one is bounded by wire.MaxRequest together, and by what a
// ledger has left if there is one (wire.Reader.Share). Data that follows a
// request as a stream is never held and does not count.
func (r *Reader) StartRequest() { r.SetBudget(wire.MaxRequest) }

// Op reads the number of the next request.
func (r *Reader) Op() (Op, error) {
	n, err := r.Uint32()
	return Op(n), err
}

// Text reads a name, a setting, a hash: something short.
func (r *Reader) Text() (string, error) { return r.String(wire.MaxShortString) }

// StorePath reads a full store path.
func (r *Reader) StorePath() (storepath.Path, error) {
	s, err := r.String(wire.MaxPath)
	if err != nil {
		return storepath.Path{}, err
	}
	return r.Dir.Parse(s)
}

// OptionalStorePath reads a full store path, or "" for none.
func (r *Reader) OptionalStorePath() (storepath.Path, error) {
	s, err := r.String(wire.MaxPath)
	if err != nil {
		return storepath.Path{}, err
	}
	return r.Dir.ParseOptional(s)
}

// StorePaths reads a set of paths, in whatever order, and gives it sorted.
func (r *Reader) StorePaths() ([]storepath.Path, error) {
	n, err := r.Count(wire.MaxCount)
	if err != nil || n == 0 {
		return nil, err
	}
	paths := make([]storepath.Path, 0, wire.Capacity(n))
	for range n {
		p, err := r.StorePath()
		if err != nil {
			return nil, err
		}
		paths = append(paths, p)
	}
	return storepath.SortUnique(paths), nil
}

// ContentAddress reads a content address, or "" for none.
func (r *Reader) ContentAddress() (storepath.ContentAddress, error) {
	s, err := r.Text()
	if err != nil {
		return storepath.ContentAddress{}, err
	}
	ca, err := storepath.ParseContentAddress(s)
	if err != nil {
		return storepath.ContentAddress{}, err
	}
	return ca, r.Features.CheckAddress(ca.Method, ca.Hash.Algo())
}

// Signatures reads a set of signatures and gives it sorted.
func (r *Reader) Signatures() ([]pathinfo.Signature, error) {
	texts, err := r.Strings(wire.MaxCount, wire.MaxShortString)
	if err != nil {
		return nil, err
	}
	return pathinfo.ParseSignatures(texts)
}

// NarHash reads a sha256, with or without its algorithm's name.
func (r *Reader) NarHash() (nixhash.Hash, error) {
	s, err := r.Text()
	if err != nil {
		return nixhash.Hash{}, err
	}
	return nixhash.ParseAny(s, nixhash.SHA256)
}
