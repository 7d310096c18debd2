package protocol

import (
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
	"nixdaemon/protocol/wire"
)

// maxRealisations bounds the set that answers OpQueryRealisation, which has
// one element or none.
const maxRealisations = 1024

// DrvOutput reads the id of a realisation:
//
//	{realisation-with-path-not-hash} derivation, output name
//	"sha256:<base16>!<output name>"
func (r *Reader) DrvOutput() (pathinfo.DrvOutput, error) {
	if !r.Version.Has(FeatureRealisationWithPath) {
		s, err := r.Text()
		if err != nil {
			return pathinfo.DrvOutput{}, err
		}
		return pathinfo.ParseDrvOutput(s)
	}
	drv, err := r.StorePath()
	if err != nil {
		return pathinfo.DrvOutput{}, err
	}
	output, err := r.Text()
	return pathinfo.DrvOutput{DrvPath: drv, Output: output}, err
}

// DrvOutput writes what Reader.DrvOutput reads.
func (w *Writer) DrvOutput(id pathinfo.DrvOutput) {
	if !w.Version.Has(FeatureRealisationWithPath) {
		w.String(id.HashID())
		return
	}
	w.StorePath(id.DrvPath)
	w.String(id.Output)
}

// unkeyedRealisation reads, with the feature: path, signatures.
func (r *Reader) unkeyedRealisation(id pathinfo.DrvOutput) (*pathinfo.Realisation, error) {
	p, err := r.StorePath()
	if err != nil {
		return nil, err
	}
	sigs, err := r.Signatures()
	return &pathinfo.Realisation{ID: id, OutPath: p, Sigs: sigs}, err
}

func (w *Writer) unkeyedRealisation(r *pathinfo.Realisation) {
	w.StorePath(r.OutPath)
	w.Signatures(r.Sigs)
}

// Realisation reads:
//
//	{realisation-with-path-not-hash} DrvOutput, path, signatures
//	JSON
func (r *Reader) Realisation() (*pathinfo.Realisation, error) {
	if !r.Version.Has(FeatureRealisationWithPath) {
		s, err := r.Text()
		if err != nil {
			return nil, err
		}
		return pathinfo.ParseRealisation(s)
	}
	id, err := r.DrvOutput()
	if err != nil {
		return nil, err
	}
	return r.unkeyedRealisation(id)
}

// Realisation writes what Reader.Realisation reads.
func (w *Writer) Realisation(r *pathinfo.Realisation) {
	if !w.Version.Has(FeatureRealisationWithPath) {
		w.String(r.HashJSON())
		return
	}
	w.DrvOutput(r.ID)
	w.unkeyedRealisation(r)
}

// RegisterRealisation reads OpRegisterDrvOutput:
//
//	(31) Realisation
//	     DrvOutput as text, base name of the path
func (r *Reader) RegisterRealisation() (*pathinfo.Realisation, error) {
	if r.Version.AtLeast(31) {
		return r.Realisation()
	}
	id, err := r.DrvOutput()
	if err != nil {
		return nil, err
	}
	base, err := r.String(wire.MaxPath)
	if err != nil {
		return nil, err
	}
	p, err := storepath.ParseBase(base)
	return &pathinfo.Realisation{ID: id, OutPath: p}, err
}

// RegisterRealisation writes OpRegisterDrvOutput.
func (w *Writer) RegisterRealisation(r *pathinfo.Realisation) {
	if w.Version.AtLeast(31) {
		w.Realisation(r)
		return
	}
	w.DrvOutput(r.ID)
	w.String(r.OutPath.Base())
}

// FoundRealisation writes the reply to OpQueryRealisation; nil is "unknown":
//
//	{realisation-with-path-not-hash} 0, or 1 and path and signatures
//	(31) set of JSON texts
//	     set of paths
func (w *Writer) FoundRealisation(r *pathinfo.Realisation) {
	w.Bool(r != nil) // as a flag or as the number of elements
	switch {
	case r == nil:
	case w.Version.Has(FeatureRealisationWithPath):
		w.unkeyedRealisation(r)
	case w.Version.AtLeast(31):
		w.String(r.HashJSON())
	default:
		w.StorePath(r.OutPath)
	}
}

// FoundRealisation reads the reply to OpQueryRealisation.
func (r *Reader) FoundRealisation(id pathinfo.DrvOutput) (*pathinfo.Realisation, error) {
	if r.Version.Has(FeatureRealisationWithPath) {
		return r.optionalRealisation(id)
	}
	n, err := r.Count(maxRealisations)
	var found *pathinfo.Realisation
	for range n {
		if err != nil {
			break
		}
		if r.Version.AtLeast(31) {
			found, err = r.Realisation()
			continue
		}
		found = &pathinfo.Realisation{ID: id}
		found.OutPath, err = r.StorePath()
	}
	return found, err
}

func (r *Reader) optionalRealisation(id pathinfo.DrvOutput) (*pathinfo.Realisation, error) {
	tag, err := r.Uint8()
	switch {
	case err != nil || tag == 0:
		return nil, err
	case tag == 1:
		return r.unkeyedRealisation(id)
	}
	return nil, wire.Errorf("Invalid optional build trace from remote")
}
