package substitute

import (
	"context"
	"io"

	"nixdaemon/protocol/narinfo"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker/remote/peer"
)

// Peer is a store behind another daemon.
type Peer struct{ store peer.Store }

var _ Source = (*Peer)(nil)

// OpenPeer warns of parameters that mean nothing. Nobody is connected to before there is a question, as upstream does.
func OpenPeer(a Asker, store peer.Store) *Peer {
	for _, name := range store.Config().Unknown {
		warn(a.Log, errorf(nil, "unknown setting '%s'", name))
	}
	return &Peer{store}
}

// URI names the store in messages.
func (p *Peer) URI() string { return p.store.URI() }

// Dir is the store's directory.
func (p *Peer) Dir() storepath.Dir { return p.store.Dir() }

// Priority is the parameter.
func (p *Peer) Priority() int { return p.store.Config().Priority }

// WantMassQuery is the parameter.
func (p *Peer) WantMassQuery() bool { return p.store.Config().WantMassQuery }

// Trusted is the parameter.
func (p *Peer) Trusted() bool { return p.store.Config().Trusted }

// PathInfo asks the other side.
func (p *Peer) PathInfo(ctx context.Context, _ Asker, path storepath.Path) (*narinfo.NarInfo, error) {
	infos, err := p.store.PathInfos(ctx, []storepath.Path{path})
	if err != nil || len(infos) == 0 {
		return nil, err
	}
	return &narinfo.NarInfo{Info: *infos[0]}, nil
}

// OpenNAR asks the other side.
func (p *Peer) OpenNAR(ctx context.Context, _ Asker, info *narinfo.NarInfo) (io.ReadCloser, error) {
	return p.store.NAR(ctx, info.Path)
}

// Realisation asks the other side.
func (p *Peer) Realisation(ctx context.Context, _ Asker, id pathinfo.DrvOutput) (*pathinfo.Realisation, error) {
	return p.store.Realisation(ctx, id)
}

// Close hangs up.
func (p *Peer) Close() error { return p.store.Close() }
