package client

import (
	"context"
	"maps"
	"slices"

	"nixdaemon/protocol"
	"nixdaemon/protocol/storepath"
	"nixdaemon/protocol/wire"
)

// SubstitutablePaths gives those of the paths that the daemon could substitute
// from stores that want to be asked about many.
func (c *Client) SubstitutablePaths(ctx context.Context, paths []storepath.Path) ([]storepath.Path, error) {
	return ask(ctx, c, protocol.OpQuerySubstitutablePaths, func(w *protocol.Writer) { w.StorePaths(paths) }, storePaths)
}

// SubstitutableInfos gives what the daemon knows of those of the paths that it
// could substitute.
func (c *Client) SubstitutableInfos(ctx context.Context, paths map[storepath.Path]storepath.ContentAddress) ([]protocol.SubstitutableInfo, error) {
	return ask(ctx, c, protocol.OpQuerySubstitutablePathInfos, func(w *protocol.Writer) {
		w.Uint64(uint64(len(paths)))
		for _, p := range slices.SortedFunc(maps.Keys(paths), storepath.Compare) {
			w.StorePath(p)
			if w.Version.AtLeast(22) {
				w.String(paths[p].String())
			}
		}
	}, substitutableInfos)
}

func substitutableInfos(r *protocol.Reader) ([]protocol.SubstitutableInfo, error) {
	n, err := r.Count(wire.MaxCount)
	if err != nil {
		return nil, err
	}
	infos := make([]protocol.SubstitutableInfo, 0, wire.Capacity(n))
	for range n {
		p, err := r.StorePath()
		if err != nil {
			return nil, err
		}
		info, err := r.SubstitutableInfo(p)
		if err != nil {
			return nil, err
		}
		infos = append(infos, info)
	}
	return infos, nil
}
