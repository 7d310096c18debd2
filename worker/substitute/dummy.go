package substitute

import (
	"context"
	"io"

	"nixdaemon/protocol/narinfo"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker/settings"
)

// Dummy is the store that has nothing ("dummy://").
type Dummy struct {
	dir    storepath.Dir
	params params
}

var _ Source = (*Dummy)(nil)

// OpenDummy reads the parameters.
func OpenDummy(a Asker, ref settings.StoreReference, dir storepath.Dir) (*Dummy, error) {
	p, err := parseParams(ref, a.Log)
	if p.storeDir != "" {
		dir = p.storeDir
	}
	return &Dummy{dir, p}, err
}

// URI is the bare scheme.
func (d *Dummy) URI() string { return "dummy://" }

// Dir is the parameter, or the daemon's.
func (d *Dummy) Dir() storepath.Dir { return d.dir }

// Priority is the parameter.
func (d *Dummy) Priority() int { return d.params.priorityOr(0) }

// WantMassQuery is the parameter.
func (d *Dummy) WantMassQuery() bool { return d.params.wantMassQuery != nil && *d.params.wantMassQuery }

// Trusted is the parameter.
func (d *Dummy) Trusted() bool { return d.params.trusted }

// PathInfo knows of nothing.
func (d *Dummy) PathInfo(context.Context, Asker, storepath.Path) (*narinfo.NarInfo, error) {
	return nil, nil
}

// Known knows that it knows of nothing.
func (d *Dummy) Known(context.Context, Asker, storepath.Path) (*narinfo.NarInfo, bool) {
	return nil, true
}

// OpenNAR has nothing.
func (d *Dummy) OpenNAR(_ context.Context, _ Asker, info *narinfo.NarInfo) (io.ReadCloser, error) {
	return nil, errorf(ErrGone, "path '%s' is not valid", d.dir.Print(info.Path))
}

// Realisation knows of nothing.
func (d *Dummy) Realisation(context.Context, Asker, pathinfo.DrvOutput) (*pathinfo.Realisation, error) {
	return nil, nil
}

// KnowsRealisation needs to ask nobody.
func (d *Dummy) KnowsRealisation(context.Context, Asker, pathinfo.DrvOutput) bool { return true }

// Close does nothing.
func (d *Dummy) Close() error { return nil }
