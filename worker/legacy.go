package worker

import (
	"context"
	"io"

	"nixdaemon/localstore"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
	"nixdaemon/protocol/wire"
)

// The requests of this file are gone from upstream's newest daemon; tools of
// the 2.0 to 2.3 era still send them, and get what their own daemon gave.

func (c *conn) queryPathHash(ctx context.Context) error {
	return aboutPath(c, func(p storepath.Path) (*pathinfo.Info, error) { return c.o.Store.PathInfo(ctx, p) },
		func(info *pathinfo.Info) { c.out.NarHash(info.NarHash) })
}

func (c *conn) queryReferences(ctx context.Context) error {
	return aboutPath(c, func(p storepath.Path) (*pathinfo.Info, error) { return c.o.Store.PathInfo(ctx, p) },
		func(info *pathinfo.Info) { c.out.StorePaths(info.References) })
}

// queryFailedPaths: there has been no cache of failures since 1.12.
func (c *conn) queryFailedPaths(context.Context) error {
	return c.work(func() error { return nil }, func() { c.out.Strings(nil) })
}

func (c *conn) clearFailedPaths(context.Context) error {
	if _, err := c.in.Strings(wire.MaxCount, wire.MaxPath); err != nil {
		return err
	}
	return c.work(func() error { return nil }, c.one)
}

// exportPath sends a path in the export format, in "write" frames.
func (c *conn) exportPath(ctx context.Context) error {
	p, err := c.in.StorePath()
	if err != nil {
		return err
	}
	if _, err := c.in.Uint32(); err != nil { // once: whether to sign
		return err
	}
	return c.work(func() error {
		return c.push(func(w io.Writer) error { return c.o.Store.ExportPath(ctx, p, w) })
	}, c.one)
}

// importPaths takes paths in the export format, pulled from the client.
func (c *conn) importPaths(ctx context.Context) error {
	var paths []storepath.Path
	return c.work(func() error {
		o := c.addOptions()
		o.DontCheckSigs = c.o.Trusted
		add := func() error {
			return c.pull(func(r io.Reader) (err error) {
				paths, err = c.o.Store.ImportPaths(ctx, r, o)
				return err
			})
		}
		if !o.DontCheckSigs {
			return add()
		}
		return c.audited(ActionImport, func(deed *Privilege) { c.paths(paths...)(deed) }, add)
	}, func() { c.out.StorePaths(paths) })
}

var _ Store = (*localstore.Store)(nil)
