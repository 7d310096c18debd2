package main

import (
	"context"
	"errors"
	"io"

	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker/remote/peer"
	"nixdaemon/worker/settings"
)

// peers copy between two daemons of the same make: the one that is timed, at
// its socket, and one that speaks on its standard input and output, as at the
// other end of ssh, over a store beside it.
func peers() []workload {
	return []workload{
		{name: "copy 2,000 paths to it from another daemon", unit: "/s", prepare: fillPeer, run: fromPeer},
		{name: "copy 2,000 paths from it to another daemon", unit: "/s", prepare: fillForPeer, run: toPeer},
	}
}

const peerPaths = 2000

// pair are the two stores and what is in one of them.
type pair struct {
	here, there peer.Store
	paths       []storepath.Path
}

func (b *bench) pair() (*pair, error) {
	defaults := peer.Defaults{Dir: storepath.Dir(b.storeDir())}
	open := func(uri string) (peer.Store, error) {
		ref, err := settings.ParseStoreReference(uri)
		if err != nil {
			return nil, err
		}
		return peer.Open(b.ctx, ref, peer.Options{Defaults: defaults, Env: b.env, Stderr: func(string) {}})
	}
	here, err := open("unix://" + b.socket())
	if err != nil {
		return nil, err
	}
	there, err := open("ssh-ng://localhost?max-connections=2&remote-program=" + b.binary + "&remote-store=" + b.dir + "/other")
	if err != nil {
		return nil, err
	}
	return &pair{here: here, there: there}, nil
}

// fillPeer fills the other daemon's store.
func fillPeer(b *bench) error {
	p, err := b.pair()
	if err != nil {
		return err
	}
	b.state = p
	return p.fill(b, p.there)
}

// fillForPeer fills the store of the daemon that is timed.
func fillForPeer(b *bench) error {
	p, err := b.pair()
	if err != nil {
		return err
	}
	b.state = p
	if err := p.there.Connect(b.ctx); err != nil { // which makes its store
		return err
	}
	return p.fill(b, p.here)
}

func (p *pair) fill(b *bench, s peer.Store) error {
	additions, paths, err := tinies(b, b.n(peerPaths), 3)
	if err != nil {
		return err
	}
	p.paths = paths
	infos := make([]*pathinfo.Info, len(additions))
	archives := make(map[storepath.Path]io.Reader, len(additions))
	for i, a := range additions {
		infos[i], archives[a.Info.Path] = a.Info, a.NAR
	}
	return s.Import(b.ctx, infos, func(_ context.Context, info *pathinfo.Info, w io.Writer) error {
		_, err := io.Copy(w, archives[info.Path])
		return err
	}, peer.ImportOptions{DontCheckSigs: true})
}

func fromPeer(b *bench) (float64, error) {
	p := b.state.(*pair)
	return p.copy(b, p.there, p.here)
}

func toPeer(b *bench) (float64, error) {
	p := b.state.(*pair)
	return p.copy(b, p.here, p.there)
}

// copy does what "nix copy" does for paths that are not there.
func (p *pair) copy(b *bench, from, to peer.Store) (float64, error) {
	valid, err := to.ValidPaths(b.ctx, p.paths, false)
	if err != nil {
		return 0, err
	}
	infos, err := from.PathInfos(b.ctx, p.paths)
	if err == nil && (len(valid) > 0 || len(infos) != len(p.paths)) {
		err = errors.New("the stores are not as they should be")
	}
	if err != nil {
		return 0, err
	}
	err = to.Import(b.ctx, infos, func(ctx context.Context, info *pathinfo.Info, w io.Writer) error {
		nar, err := from.NAR(ctx, info.Path)
		if err != nil {
			return err
		}
		_, err = io.Copy(w, nar)
		return errors.Join(err, nar.Close())
	}, peer.ImportOptions{DontCheckSigs: true})
	return float64(len(infos)), errors.Join(err, from.Close(), to.Close())
}
