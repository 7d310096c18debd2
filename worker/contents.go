package worker

import (
	"context"
	"errors"

	"nixdaemon/localstore"
	"nixdaemon/protocol/storepath"
)

var (
	errNoLogs   = errors.New("you are not privileged to add logs")
	errNoRepair = errors.New("you are not privileged to repair paths")
)

// narFromPath answers with a bare NAR. What goes wrong in the middle of it can
// only be told by ending the connection: a client that has seen the "last"
// frame reads archive, nothing else. So validity is asked before that frame,
// where upstream asks after it.
func (c *conn) narFromPath(ctx context.Context) error {
	p, err := c.in.StorePath()
	if err != nil {
		return err
	}
	return c.work(func() error {
		_, err := c.o.Store.PathInfo(ctx, p)
		return err
	}, func() { c.fatal = c.o.Store.Dump(ctx, p, c.out) })
}

func (c *conn) verifyStore(ctx context.Context) error {
	checkContents, err := c.in.Bool()
	if err != nil {
		return err
	}
	repair, err := c.in.Bool()
	if err != nil {
		return err
	}
	var found bool
	return c.work(func() (err error) {
		if repair && !c.o.Trusted {
			return errNoRepair
		}
		found, err = c.o.Store.Verify(ctx, localstore.VerifyOptions{
			CheckContents: checkContents, Repair: repair, RepairPath: c.repairPath, Log: c.tunnel,
		})
		return err
	}, func() { c.out.Bool(found) })
}

// repairPath makes a path anew by building its deriver in repair mode.
func (c *conn) repairPath(ctx context.Context, p storepath.Path) error {
	return c.o.Builder.RepairPath(ctx, &c.sess, p)
}
