package protocol

import (
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
	"nixdaemon/protocol/wire"
)

// AddToStoreRequest is OpAddToStore without its data.
//
//	(25) name, "text:<algo>" or "fixed:[r:|git:]<algo>", references, repair;
//	     then framed data: a NAR for r: and git:, else the file's bytes
//	     name, fixed (obsolete), recursive (0 or 1), algorithm;
//	     then a raw NAR, also for flat files
type AddToStoreRequest struct {
	Name string
	// MethodAlgo is the method and algorithm as text (25): it is parsed by
	// Method, while work is going on, so that an error leaves the connection
	// usable.
	MethodAlgo string
	References []storepath.Path
	Repair     bool
	// DataIsNAR is true before 25, when data is a raw NAR whatever the method.
	DataIsNAR bool
	// OldMethod and OldAlgo are set before 25.
	OldMethod storepath.Method
	OldAlgo   nixhash.Algo
}

// Method gives the method and the algorithm, if the features allow them.
func (req AddToStoreRequest) Method(f derivation.Features) (storepath.Method, nixhash.Algo, error) {
	method, algo := req.OldMethod, req.OldAlgo
	if !req.DataIsNAR {
		var err error
		if method, algo, err = storepath.ParseCAMethod(req.MethodAlgo); err != nil {
			return 0, 0, err
		}
	}
	return method, algo, f.CheckAddress(method, algo)
}

// AddToStore reads the request.
func (r *Reader) AddToStore() (AddToStoreRequest, error) {
	if !r.Version.AtLeast(25) {
		return r.oldAddToStore()
	}
	var req AddToStoreRequest
	var err error
	if req.Name, err = r.Text(); err != nil {
		return req, err
	}
	if req.MethodAlgo, err = r.Text(); err != nil {
		return req, err
	}
	if req.References, err = r.StorePaths(); err != nil {
		return req, err
	}
	req.Repair, err = r.Bool()
	return req, err
}

func (r *Reader) oldAddToStore() (AddToStoreRequest, error) {
	req := AddToStoreRequest{DataIsNAR: true}
	var err error
	if req.Name, err = r.Text(); err != nil {
		return req, err
	}
	fixed, err := r.Bool()
	if err != nil {
		return req, err
	}
	recursive, err := r.Uint8()
	if err != nil {
		return req, err
	}
	algo, err := r.Text()
	if err != nil {
		return req, err
	}
	if recursive > 1 {
		return req, wire.Errorf("unsupported FileIngestionMethod with value of %d; you may need to upgrade nix-daemon", recursive)
	}
	req.OldMethod = storepath.MethodFlat
	if recursive == 1 || !fixed { // daemon.cc, performOp: "compatibility hack"
		req.OldMethod = storepath.MethodNAR
	}
	if !fixed {
		algo = "sha256"
	}
	req.OldAlgo, err = nixhash.ParseAlgo(algo)
	return req, err
}

// AddToStore writes the request.
func (w *Writer) AddToStore(req AddToStoreRequest) {
	w.String(req.Name)
	if w.Version.AtLeast(25) {
		w.String(req.MethodAlgo)
		w.StorePaths(req.References)
		w.Bool(req.Repair)
		return
	}
	recursive := req.OldMethod == storepath.MethodNAR
	w.Bool(!recursive || req.OldAlgo != nixhash.SHA256)
	w.Bool(recursive)
	w.String(req.OldAlgo.String())
}

// AddTextRequest is OpAddTextToStore.
//
//	name, text, references
type AddTextRequest struct {
	Name, Text string
	References []storepath.Path
}

// AddText reads the request.
func (r *Reader) AddText() (AddTextRequest, error) {
	var req AddTextRequest
	var err error
	if req.Name, err = r.Text(); err != nil {
		return req, err
	}
	if req.Text, err = r.String(wire.MaxString); err != nil {
		return req, err
	}
	req.References, err = r.StorePaths()
	return req, err
}

// AddText writes the request.
func (w *Writer) AddText(req AddTextRequest) {
	w.String(req.Name)
	w.String(req.Text)
	w.StorePaths(req.References)
}

// AddToStoreNarRequest is OpAddToStoreNar without its NAR.
//
//	info as of 16 whatever the version, repair, don't check signatures
type AddToStoreNarRequest struct {
	Info          *pathinfo.Info
	Repair        bool
	DontCheckSigs bool
}

// AddToStoreNar reads the request.
func (r *Reader) AddToStoreNar() (AddToStoreNarRequest, error) {
	info, err := r.Info()
	if err != nil {
		return AddToStoreNarRequest{}, err
	}
	repair, dontCheck, err := r.addFlags()
	return AddToStoreNarRequest{info, repair, dontCheck}, err
}

func (r *Reader) addFlags() (repair, dontCheckSigs bool, err error) {
	if repair, err = r.Bool(); err == nil {
		dontCheckSigs, err = r.Bool()
	}
	return repair, dontCheckSigs, err
}

// AddToStoreNar writes the request.
func (w *Writer) AddToStoreNar(req AddToStoreNarRequest) {
	w.Info(req.Info)
	w.Bool(req.Repair)
	w.Bool(req.DontCheckSigs)
}

// AddMultipleToStore reads OpAddMultipleToStore up to its frames: repair, and
// don't check signatures.
func (r *Reader) AddMultipleToStore() (repair, dontCheckSigs bool, err error) { return r.addFlags() }

// Entry gives a reader of the entries of an OpAddMultipleToStore, which have
// the form of 16 whatever the version; each info is followed by its NAR. It
// takes from the ledger of r, and must be released.
func (r *Reader) Entry(framed *wire.FramedReader) *Reader {
	in := wire.NewReader(framed)
	if l := r.Ledger(); l != nil {
		in.Share(l)
	}
	return NewReader(in, r.Dir, Version{Number: Minor(16)})
}
