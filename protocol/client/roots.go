package client

import (
	"context"

	"nixdaemon/protocol"
	"nixdaemon/protocol/storepath"
)

// AddIndirectRoot makes a root of the link at a path of the daemon's machine.
func (c *Client) AddIndirectRoot(ctx context.Context, link string) error {
	return tell(ctx, c, protocol.OpAddIndirectRoot, func(w *protocol.Writer) { w.String(link) })
}

// AddPermRoot has the daemon create a link to a path, as a root, and gives the
// link's path.
func (c *Client) AddPermRoot(ctx context.Context, p storepath.Path, link string) (string, error) {
	return ask(ctx, c, protocol.OpAddPermRoot, func(w *protocol.Writer) {
		w.StorePath(p)
		w.String(link)
	}, func(r *protocol.Reader) (string, error) { return r.FileName() })
}

// Optimise has equal files hard-linked.
func (c *Client) Optimise(ctx context.Context) error {
	return tell(ctx, c, protocol.OpOptimiseStore, nil)
}
