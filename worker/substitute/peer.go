package substitute

import (
	"context"
	"io"
	"sync"

	"nixdaemon/protocol/narinfo"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker/remote/peer"
	"nixdaemon/worker/substitute/narinfocache"
)

const (
	// peerTTL is for how many seconds an answer about what another daemon has counts: from when a client asks what is
	// missing until it has it fetched, but not until it was collected there. Upstream remembers it as long as a client stays
	// connected (a month at most), and that something is missing for an hour (libstore/store-api.cc, isKnownNow); what all
	// clients share must not be that old.
	peerTTL = 60

	// maxBatch bounds the questions that go over a connection in one go.
	maxBatch = 1000
)

// Peer is a store behind another daemon. Questions that come while others are under way are asked together: what counts
// there is the way and not the answer.
type Peer struct {
	store  peer.Store
	recent *narinfocache.Cache

	ctx    context.Context // of the questions; ends with the store
	cancel context.CancelFunc

	mu      sync.Mutex
	waiting map[storepath.Path]*question
	asking  bool
	work    sync.WaitGroup
}

// question is about one path, by however many.
type question struct {
	done chan struct{} // closed when the answer is there
	info *narinfo.NarInfo
	err  error
}

var _ Source = (*Peer)(nil)

// OpenPeer warns of parameters that mean nothing. Nobody is connected to before there is a question, as upstream does.
func OpenPeer(a Asker, store peer.Store) *Peer {
	for _, name := range store.Config().Unknown {
		warn(a.Log, errorf(nil, "unknown setting '%s'", name))
	}
	p := &Peer{store: store, recent: narinfocache.New(narinfocache.Options{}), waiting: make(map[storepath.Path]*question)}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	return p
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

// Holds tells of connections.
func (p *Peer) Holds() bool { return true }

// Known gives an answer that is not old.
func (p *Peer) Known(_ context.Context, _ Asker, path storepath.Path) (*narinfo.NarInfo, bool) {
	return p.recent.Info("", path.HashPart(), narinfocache.TTLs{Positive: peerTTL})
}

// PathInfo asks the other side.
func (p *Peer) PathInfo(ctx context.Context, a Asker, path storepath.Path) (*narinfo.NarInfo, error) {
	if info, known := p.Known(ctx, a, path); known {
		return info, nil
	}
	q := p.queue(path)
	select {
	case <-q.done:
		return q.info, q.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// queue adds a question to those that are asked next.
func (p *Peer) queue(path storepath.Path) *question {
	p.mu.Lock()
	defer p.mu.Unlock()
	q := p.waiting[path]
	if q == nil {
		q = &question{done: make(chan struct{})}
		p.waiting[path] = q
	}
	if !p.asking {
		p.asking = true
		p.work.Go(p.ask)
	}
	return q
}

// ask asks until nothing is left.
func (p *Peer) ask() {
	for {
		batch := p.next()
		if len(batch) == 0 {
			return
		}
		paths := make([]storepath.Path, 0, len(batch))
		for path := range batch {
			paths = append(paths, path)
		}
		infos, err := p.store.PathInfos(p.ctx, paths)
		for _, info := range infos {
			if q := batch[info.Path]; q != nil {
				q.info = &narinfo.NarInfo{Info: *info}
				p.recent.SetInfo("", info.Path.HashPart(), q.info)
			}
		}
		for _, q := range batch {
			if q.info == nil {
				q.err = err
			}
			close(q.done)
		}
	}
}

// next takes what waits; nothing ends the asking.
func (p *Peer) next() map[storepath.Path]*question {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.waiting) <= maxBatch {
		batch := p.waiting
		p.waiting = make(map[storepath.Path]*question)
		p.asking = len(batch) > 0
		return batch
	}
	batch := make(map[storepath.Path]*question, maxBatch)
	for path, q := range p.waiting {
		if len(batch) == maxBatch {
			break
		}
		batch[path] = q
		delete(p.waiting, path)
	}
	return batch
}

// OpenNAR asks the other side. A path that was there when it was asked for, and is no more, is gone.
func (p *Peer) OpenNAR(ctx context.Context, _ Asker, info *narinfo.NarInfo) (io.ReadCloser, error) {
	body, err := p.store.NAR(ctx, info.Path)
	if err == nil || ctx.Err() != nil {
		return body, err
	}
	if infos, askErr := p.store.PathInfos(ctx, []storepath.Path{info.Path}); askErr != nil || len(infos) > 0 {
		return nil, err
	}
	p.recent.SetInfo("", info.Path.HashPart(), nil)
	return nil, errorf(ErrGone, "path '%s' is not valid", p.store.Dir().Print(info.Path))
}

// Realisation asks the other side.
func (p *Peer) Realisation(ctx context.Context, _ Asker, id pathinfo.DrvOutput) (*pathinfo.Realisation, error) {
	return p.store.Realisation(ctx, id)
}

// KnowsRealisation has to ask.
func (p *Peer) KnowsRealisation(context.Context, Asker, pathinfo.DrvOutput) bool { return false }

// Close hangs up.
func (p *Peer) Close() error {
	p.cancel()
	p.work.Wait()
	return p.store.Close()
}
