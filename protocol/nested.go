package protocol

import (
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/storepath"
	"nixdaemon/protocol/wire"
)

// The requests of this file are made by builders, of the daemon that is there
// for their build alone (libstore/daemon.cc, performOp, from 2.36 on).

// AddToStoreScanningRequest is OpAddToStoreScanning without its data, which
// has the form that AddToStoreRequest tells of.
//
//	name, "text:<algo>" or "fixed:[r:|git:]<algo>"
type AddToStoreScanningRequest struct {
	Name string
	// MethodAlgo is as that of AddToStoreRequest.
	MethodAlgo string
}

// Method gives the method and the algorithm, if the features allow them.
func (req AddToStoreScanningRequest) Method(f derivation.Features) (storepath.Method, nixhash.Algo, error) {
	return AddToStoreRequest{MethodAlgo: req.MethodAlgo}.Method(f)
}

// AddToStoreScanning reads the request.
func (r *Reader) AddToStoreScanning() (AddToStoreScanningRequest, error) {
	var req AddToStoreScanningRequest
	var err error
	if req.Name, err = r.Text(); err == nil {
		req.MethodAlgo, err = r.Text()
	}
	return req, err
}

// AddToStoreScanning writes the request.
func (w *Writer) AddToStoreScanning(req AddToStoreScanningRequest) {
	w.String(req.Name)
	w.String(req.MethodAlgo)
}

// SubmitOutputRequest is OpSubmitOutput.
//
//	single derived path, output name
type SubmitOutputRequest struct {
	Path   *derivation.SingleDerivedPath
	Output string
}

// SubmitOutput reads the request.
func (r *Reader) SubmitOutput() (SubmitOutputRequest, error) {
	var req SubmitOutputRequest
	var err error
	if req.Path, err = r.SingleDerivedPath(); err == nil {
		req.Output, err = r.Text()
	}
	return req, err
}

// SubmitOutput writes the request.
func (w *Writer) SubmitOutput(req SubmitOutputRequest) {
	w.SingleDerivedPath(req.Path)
	w.String(req.Output)
}

// maxSingleDepth bounds how many outputs a single derived path goes through.
const maxSingleDepth = 1000

// The tags of a single derived path.
const (
	tagOpaque = 0
	tagBuilt  = 1
)

// SingleDerivedPath reads a path, or an output of what another one gives:
//
//	0, path
//	1, single derived path, output name
func (r *Reader) SingleDerivedPath() (*derivation.SingleDerivedPath, error) {
	depth := 0
	for {
		tag, err := r.Uint8()
		switch {
		case err != nil:
			return nil, err
		case tag == tagOpaque:
			return r.singleDerivedPath(depth)
		case tag != tagBuilt:
			return nil, wire.Errorf("Invalid tag %d for single derived path", tag)
		}
		// The names follow the path that is at the root of all.
		if depth++; depth > maxSingleDepth {
			return nil, wire.Errorf("single derived path goes through more than %d outputs", maxSingleDepth)
		}
	}
}

func (r *Reader) singleDerivedPath(depth int) (*derivation.SingleDerivedPath, error) {
	root, err := r.StorePath()
	if err != nil {
		return nil, err
	}
	p := &derivation.SingleDerivedPath{Path: root}
	for range depth {
		output, err := r.Text()
		if err != nil {
			return nil, err
		}
		p = &derivation.SingleDerivedPath{Drv: p, Output: output}
	}
	return p, nil
}

// SingleDerivedPath writes what Reader.SingleDerivedPath reads.
func (w *Writer) SingleDerivedPath(p *derivation.SingleDerivedPath) {
	if p.Drv == nil {
		w.Uint64(tagOpaque)
		w.StorePath(p.Path)
		return
	}
	w.Uint64(tagBuilt)
	w.SingleDerivedPath(p.Drv)
	w.String(p.Output)
}
