package substitute

import (
	"context"

	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker/session"
)

// Realisation asks one store after the other what an output became, nil if none knows
// (libstore/build/drv-output-substitution-goal.cc). One without a signature that the session trusts is passed over
// with a warning, as upstream does from 2.36 on: it says what others will run. failed tells that some store could
// not be asked, which the session has been told.
func (s *Substituter) Realisation(ctx context.Context, sess *session.Session, id pathinfo.DrvOutput) (found *pathinfo.Realisation, failed bool, err error) {
	sources, err := s.sources(ctx, sess)
	if err != nil {
		return nil, false, err
	}
	for _, src := range sources {
		r, err := src.Realisation(ctx, s.asker(sess), id)
		switch {
		case ctx.Err() != nil:
			return nil, failed, context.Cause(ctx)
		case err != nil:
			logError(sess.Log, err)
			failed = true
		case r == nil:
		case s.believable(sess, src, r):
			return r, failed, nil
		default:
			warn(sess.Log, errorf(nil, "ignoring substitute for build trace '%s' -> '%s' from '%s', as it's not signed by any of the keys in 'trusted-public-keys'",
				id.String(), storeName(src, r.OutPath), src.URI()))
		}
	}
	return nil, failed, nil
}

// RealisationAtHand tells whether Realisation asks nothing over a network.
func (s *Substituter) RealisationAtHand(ctx context.Context, sess *session.Session, id pathinfo.DrvOutput) bool {
	if !sess.Settings.Substitute {
		return true
	}
	sources, known := s.stores.known(sess)
	if !known {
		return false
	}
	for _, src := range sources {
		q, ok := src.(interface {
			KnowsRealisation(ctx context.Context, a Asker, id pathinfo.DrvOutput) bool
		})
		if !ok || !q.KnowsRealisation(ctx, s.asker(sess), id) {
			return false
		}
	}
	return true
}

func storeName(src Source, p storepath.Path) string { return src.Dir().Print(p) }

// believable wants a signature unless the store or, for somebody who may say so, the session does not.
func (s *Substituter) believable(sess *session.Session, src Source, r *pathinfo.Realisation) bool {
	return !s.o.RequireSigs || sess.Trusted && !sess.Settings.RequireSigs || src.Trusted() || s.o.Keys(sess.Settings).CountRealisation(r) > 0
}
