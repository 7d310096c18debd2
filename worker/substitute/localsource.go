package substitute

import (
	"context"
	"errors"
	"io"

	"nixdaemon/localstore"
	"nixdaemon/protocol/narinfo"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker/settings"
)

// Local is another store of this machine.
type Local struct {
	store  *localstore.Store
	uri    string
	params params
	own    bool
}

var _ Source = (*Local)(nil)

// OpenLocal reads the parameters of a store that is open. uri names it in messages. own says that it is to be closed.
func OpenLocal(a Asker, ref settings.StoreReference, uri string, store *localstore.Store, own bool) (*Local, error) {
	p, err := parseParams(ref, a.Log)
	l := &Local{store, uri, p, own}
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// URI names the store in messages.
func (l *Local) URI() string { return l.uri }

// Dir is the store's directory.
func (l *Local) Dir() storepath.Dir { return l.store.Dir() }

// Priority is the parameter.
func (l *Local) Priority() int { return l.params.priorityOr(0) }

// WantMassQuery is the parameter.
func (l *Local) WantMassQuery() bool { return l.params.wantMassQuery != nil && *l.params.wantMassQuery }

// Trusted is the parameter.
func (l *Local) Trusted() bool { return l.params.trusted }

// PathInfo asks the store's database.
func (l *Local) PathInfo(ctx context.Context, _ Asker, p storepath.Path) (*narinfo.NarInfo, error) {
	if err := l.store.Refresh(ctx); err != nil {
		return nil, err
	}
	info, err := l.store.PathInfo(ctx, p)
	var invalid *localstore.NotValidError
	switch {
	case errors.As(err, &invalid):
		return nil, nil
	case err != nil:
		return nil, err
	}
	return &narinfo.NarInfo{Info: *info}, nil
}

// Known asks the store's database.
func (l *Local) Known(ctx context.Context, a Asker, p storepath.Path) (*narinfo.NarInfo, bool) {
	info, _ := l.PathInfo(ctx, a, p)
	return info, true
}

// OpenNAR makes the archive while it is read.
func (l *Local) OpenNAR(ctx context.Context, _ Asker, info *narinfo.NarInfo) (io.ReadCloser, error) {
	ctx, cancel := context.WithCancel(ctx)
	r, w := io.Pipe()
	d := &dump{r, cancel, make(chan struct{})}
	go func() {
		defer close(d.ended)
		w.CloseWithError(l.store.Dump(ctx, info.Path, w))
	}()
	return d, nil
}

// dump is the reading end of an archive that is being made.
type dump struct {
	*io.PipeReader
	cancel context.CancelFunc
	ended  chan struct{}
}

// Close stops who makes it and waits for that.
func (d *dump) Close() error {
	d.cancel()
	err := d.PipeReader.Close()
	<-d.ended
	return err
}

// Realisation asks the store's database.
func (l *Local) Realisation(ctx context.Context, _ Asker, id pathinfo.DrvOutput) (*pathinfo.Realisation, error) {
	return l.store.QueryRealisation(ctx, id)
}

// KnowsRealisation has a database at hand.
func (l *Local) KnowsRealisation(context.Context, Asker, pathinfo.DrvOutput) bool { return true }

// Holds tells of a database that is open for this alone.
func (l *Local) Holds() bool { return l.own }

// Close closes the store if it is not used otherwise.
func (l *Local) Close() error {
	if !l.own {
		return nil
	}
	return l.store.Close()
}
