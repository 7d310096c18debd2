package protocol

import (
	"nixdaemon/protocol/storepath"
	"nixdaemon/protocol/wire"
)

// GCAction says what a collection does.
type GCAction uint32

// The actions (libstore/gc-store.hh).
const (
	GCReturnLive     GCAction = 0
	GCReturnDead     GCAction = 1
	GCDeleteDead     GCAction = 2
	GCDeleteSpecific GCAction = 3
)

// GCRequest is OpCollectGarbage.
//
//	action,
//	{delete-dead-specific-referrers} 1, or 0, paths, delete referrers;
//	else paths,
//	ignore liveness, most bytes to free, 3 numbers without meaning
type GCRequest struct {
	Action GCAction
	// WholeStore is true when the collection is not confined to Paths.
	WholeStore      bool
	Paths           []storepath.Path
	DeleteReferrers bool
	IgnoreLiveness  bool
	// MaxFreed is in bytes.
	MaxFreed uint64
}

// GC reads the request.
func (r *Reader) GC() (GCRequest, error) {
	var req GCRequest
	action, err := r.Uint32()
	if err != nil {
		return req, err
	}
	if req.Action = GCAction(action); req.Action > GCDeleteSpecific {
		return req, wire.Errorf("Invalid GC action")
	}
	if err := r.gcPaths(&req); err != nil {
		return req, err
	}
	if req.IgnoreLiveness, err = r.Bool(); err != nil {
		return req, err
	}
	if req.MaxFreed, err = r.Uint64(); err != nil {
		return req, err
	}
	for range 3 {
		if _, err := r.Uint32(); err != nil {
			return req, err
		}
	}
	return req, nil
}

func (r *Reader) gcPaths(req *GCRequest) error {
	if !r.Version.Has(FeatureDeleteDeadSpecificReferrers) {
		paths, err := r.StorePaths()
		req.Paths = paths
		req.WholeStore = len(paths) == 0 && req.Action != GCDeleteSpecific
		return err
	}
	tag, err := r.Uint8()
	if err != nil {
		return err
	}
	switch tag {
	case 1:
		req.WholeStore = true
		return nil
	case 0:
		if req.Paths, err = r.StorePaths(); err != nil {
			return err
		}
		req.DeleteReferrers, err = r.Bool()
		return err
	}
	return wire.Errorf("Invalid whole store indicator from remote")
}

// GC writes the request.
func (w *Writer) GC(req GCRequest) {
	w.Uint64(uint64(req.Action))
	switch {
	case !w.Version.Has(FeatureDeleteDeadSpecificReferrers):
		w.StorePaths(req.Paths)
	case req.WholeStore:
		w.Uint64(1)
	default:
		w.Uint64(0)
		w.StorePaths(req.Paths)
		w.Bool(req.DeleteReferrers)
	}
	w.Bool(req.IgnoreLiveness)
	w.Uint64(req.MaxFreed)
	for range 3 {
		w.Uint64(0)
	}
}

// GCResults is the reply to OpCollectGarbage.
//
//	paths as strings, bytes freed, 0
type GCResults struct {
	// Paths are full paths, of store objects or of other files in the store.
	Paths      []string
	BytesFreed uint64
}

// GCResults reads the reply.
func (r *Reader) GCResults() (GCResults, error) {
	var res GCResults
	var err error
	if res.Paths, err = r.Strings(wire.MaxCount, wire.MaxPath); err != nil {
		return res, err
	}
	if res.BytesFreed, err = r.Uint64(); err != nil {
		return res, err
	}
	_, err = r.Uint64()
	return res, err
}

// GCResults writes the reply.
func (w *Writer) GCResults(res GCResults) {
	w.Strings(sortUnique(res.Paths))
	w.Uint64(res.BytesFreed)
	w.Uint64(0)
}

// Root is a garbage collector root: what keeps a path alive.
type Root struct {
	// Link is a file name, or a label such as "{censored}".
	Link   string
	Target storepath.Path
}

// Roots reads the reply to OpFindRoots: count, then link and target of each.
func (r *Reader) Roots() ([]Root, error) {
	n, err := r.Count(wire.MaxCount)
	if err != nil {
		return nil, err
	}
	roots := make([]Root, 0, wire.Capacity(n))
	for range n {
		link, err := r.String(wire.MaxShortString)
		if err != nil {
			return nil, err
		}
		target, err := r.StorePath()
		if err != nil {
			return nil, err
		}
		roots = append(roots, Root{link, target})
	}
	return roots, nil
}

// Roots writes the reply to OpFindRoots.
func (w *Writer) Roots(roots []Root) {
	w.Uint64(uint64(len(roots)))
	for _, root := range roots {
		w.String(root.Link)
		w.StorePath(root.Target)
	}
}
