package worker

import (
	"context"

	"nixdaemon/protocol"
	"nixdaemon/protocol/storepath"
)

func (c *conn) substitutableInfos(ctx context.Context, paths map[storepath.Path]storepath.ContentAddress) ([]protocol.SubstitutableInfo, error) {
	if c.o.Substituter == nil || !c.sess.Settings.Substitute || len(paths) == 0 {
		return nil, nil
	}
	return c.o.Substituter.SubstitutableInfos(ctx, &c.sess, paths)
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
		if c.o.Substituter != nil && c.sess.Settings.Substitute {
			found, err = c.o.Substituter.SubstitutablePaths(ctx, &c.sess, paths)
		}
		return err
	}, func() { c.out.StorePaths(found) })
}

func (c *conn) hasSubstitutes(ctx context.Context) error {
	return aboutPath(c, func(p storepath.Path) (bool, error) {
		infos, err := c.substitutableInfos(ctx, map[storepath.Path]storepath.ContentAddress{p: {}})
		return len(infos) > 0, err
	}, func(found bool) { c.out.Bool(found) })
}
