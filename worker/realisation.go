package worker

import (
	"context"

	"nixdaemon/protocol/pathinfo"
	"nixdaemon/worker/settings"
)

func (c *conn) registerDrvOutput(ctx context.Context) error {
	r, err := c.in.RegisterRealisation()
	if err != nil {
		return err
	}
	return c.work(func() error {
		if err := c.sess.Settings.ExperimentalFeatures.Require(settings.CADerivations); err != nil && c.forward == nil {
			return err
		}
		return c.o.Store.RegisterRealisation(ctx, r)
	}, nil)
}

// queryRealisation answers "unknown" where the feature is off, as upstream
// does: a client asks before it knows.
func (c *conn) queryRealisation(ctx context.Context) error {
	id, err := c.in.DrvOutput()
	if err != nil {
		return err
	}
	var found *pathinfo.Realisation
	return c.work(func() (err error) {
		if c.forward != nil || c.sess.Settings.ExperimentalFeatures.Enabled(settings.CADerivations) {
			found, err = c.o.Store.QueryRealisation(ctx, id)
		}
		return err
	}, func() { c.out.FoundRealisation(found) })
}
