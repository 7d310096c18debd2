package worker

import (
	"context"
	"fmt"

	"nixdaemon/protocol/pathinfo"
	"nixdaemon/worker/settings"
)

func (c *conn) registerDrvOutput(ctx context.Context) error {
	r, err := c.in.RegisterRealisation()
	if err != nil {
		return err
	}
	return c.work(func() error {
		if c.forward == nil {
			if err := c.mayRegister(r); err != nil {
				return err
			}
		}
		register := func() error { return c.o.Store.RegisterRealisation(ctx, r) }
		if !c.o.Trusted {
			return register() // it is signed
		}
		return c.audited(ActionRealisation, func(deed *Privilege) {
			deed.Subject = []string{r.ID.String(), c.o.Store.Dir().Print(r.OutPath)}
		}, register)
	}, nil)
}

// mayRegister wants a signature from untrusted clients, as upstream does from
// 2.36 on: before, everybody could say which path a derivation's output is.
func (c *conn) mayRegister(r *pathinfo.Realisation) error {
	s := c.sess.Settings
	if err := s.ExperimentalFeatures.Require(settings.CADerivations); err != nil {
		return err
	}
	if c.o.Trusted || !c.o.RequireSigs || c.o.Keys(s).CountRealisation(r) > 0 {
		return nil
	}
	return fmt.Errorf("cannot register realisation '%s' because it lacks a signature by a trusted key", r.OutPath.Base())
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
