package worker

import (
	"context"
	"slices"

	"nixdaemon/protocol"
	"nixdaemon/protocol/storepath"
)

func (c *conn) substitutableInfos(ctx context.Context, paths map[storepath.Path]storepath.ContentAddress) ([]protocol.SubstitutableInfo, error) {
	if c.o.Substituter == nil || !c.sess.Settings.Substitute || len(paths) == 0 {
		return nil, nil
	}
	return c.o.Substituter.SubstitutableInfos(ctx, c.sess, paths)
}

func (c *conn) substitutablePaths(ctx context.Context, paths []storepath.Path) ([]storepath.Path, error) {
	if c.o.Substituter == nil || !c.sess.Settings.Substitute || len(paths) == 0 {
		return nil, nil
	}
	found, err := c.o.Substituter.SubstitutablePaths(ctx, c.sess, paths)
	return storepath.SortUnique(found), err
}

func (c *conn) querySubstitutablePathInfo(ctx context.Context) error {
	return aboutPath(c, func(p storepath.Path) ([]protocol.SubstitutableInfo, error) {
		return c.substitutableInfos(ctx, map[storepath.Path]storepath.ContentAddress{p: {}})
	}, func(infos []protocol.SubstitutableInfo) {
		c.out.Bool(len(infos) > 0)
		if len(infos) > 0 {
			c.out.SubstitutableInfo(infos[0])
		}
	})
}

func (c *conn) querySubstitutablePathInfos(ctx context.Context) error {
	paths, err := c.in.SubstitutableQuery()
	if err != nil {
		return err
	}
	var infos []protocol.SubstitutableInfo
	return c.work(func() (err error) {
		infos, err = c.substitutableInfos(ctx, paths)
		slices.SortFunc(infos, func(a, b protocol.SubstitutableInfo) int { return storepath.Compare(a.Path, b.Path) })
		return err
	}, func() {
		c.out.Uint64(uint64(len(infos)))
		for _, info := range infos {
			c.out.StorePath(info.Path)
			c.out.SubstitutableInfo(info)
		}
	})
}

func (c *conn) querySubstitutablePaths(ctx context.Context) error {
	paths, err := c.in.StorePaths()
	if err != nil {
		return err
	}
	var found []storepath.Path
	return c.work(func() (err error) {
		found, err = c.substitutablePaths(ctx, paths)
		return err
	}, func() { c.out.StorePaths(found) })
}

func (c *conn) hasSubstitutes(ctx context.Context) error {
	return aboutPath(c, func(p storepath.Path) ([]storepath.Path, error) {
		return c.substitutablePaths(ctx, []storepath.Path{p})
	}, func(found []storepath.Path) { c.out.Bool(len(found) > 0) })
}
