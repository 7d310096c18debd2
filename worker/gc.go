package worker

import (
	"context"
	"path"

	"nixdaemon/protocol"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker/session"
)

// Refusals, in upstream's words (daemon.cc, performOp).
const (
	refuseLiveness refusal = "you are not allowed to ignore liveness"
	refusePermRoot refusal = "you are not privileged to create perm roots\n\n" +
		"hint: you can just do this client-side without special privileges, and probably want to do that instead."
)

func (c *conn) addTempRoot(ctx context.Context) error {
	return aboutPath(c, func(p storepath.Path) (struct{}, error) {
		return struct{}{}, c.sess.Roots.Add(ctx, p)
	}, func(struct{}) { c.one() })
}

func (c *conn) addIndirectRoot(ctx context.Context) error {
	link, err := c.in.FileName()
	if err != nil {
		return err
	}
	return c.work(func() error { return c.o.Store.AddIndirectRoot(ctx, absolute(link)) }, c.one)
}

// absolute makes a file name one of the daemon, whose directory is the root.
func absolute(name string) string { return path.Clean("/" + name) }

// addPermRoot is refused before its arguments are read, so that the connection
// must end, as it does upstream.
func (c *conn) addPermRoot(ctx context.Context) error {
	if !c.o.Trusted {
		return c.audited(ActionPermRoot, nil, func() error { return refusePermRoot })
	}
	p, err := c.in.StorePath()
	if err != nil {
		return err
	}
	link, err := c.in.FileName()
	if err != nil {
		return err
	}
	return c.work(func() (err error) {
		about := func(deed *Privilege) { deed.Subject = []string{absolute(link), c.o.Store.Dir().Print(p)} }
		return c.audited(ActionPermRoot, about, func() error {
			link, err = c.o.Store.AddPermRoot(ctx, p, absolute(link))
			return err
		})
	}, func() { c.out.String(link) })
}

func (c *conn) syncWithGC(context.Context) error {
	return c.work(func() error { return nil }, c.one)
}

// findRoots shows untrusted clients what is in use, not by whom.
func (c *conn) findRoots(ctx context.Context) error {
	var roots []protocol.Root
	return c.work(func() (err error) {
		roots, err = c.o.Collector.FindRoots(ctx, c.sess, !c.o.Trusted)
		return err
	}, func() { c.out.Roots(roots) })
}

func (c *conn) collectGarbage(ctx context.Context) error {
	req, err := c.in.GC()
	if err != nil {
		return err
	}
	var results protocol.GCResults
	return c.work(func() (err error) {
		collect := func() error {
			if req.IgnoreLiveness {
				return refuseLiveness
			}
			results, err = c.o.Collector.Collect(ctx, c.collecting(req), req)
			return err
		}
		if !deletes(req) {
			return collect()
		}
		return c.audited(ActionCollect, func(deed *Privilege) {
			c.paths(req.Paths...)(deed)
			deed.Details = map[string]uint64{"deleted_paths": uint64(len(results.Paths)), "freed_bytes": results.BytesFreed}
		}, collect)
	}, func() { c.out.GCResults(results) })
}

// deletes tells whether a collection does more than tell.
func deletes(req protocol.GCRequest) bool {
	return req.IgnoreLiveness || req.Action == protocol.GCDeleteDead || req.Action == protocol.GCDeleteSpecific
}

// room is what additions on behalf of this client wait for; nil if it does not
// want space to be made, as clients do by default.
func (c *conn) room() func(context.Context) error {
	if c.o.MakeRoom == nil || c.sess.Settings.MinFree == 0 {
		return nil
	}
	sess := c.sess
	return func(ctx context.Context) error { return c.o.MakeRoom(ctx, sess) }
}

// collecting is the session of a collection. For clients that know of dead
// referrers, as those of 2.35 do, the deletion of given paths does not look at
// keep-outputs and keep-derivations; for older ones it does.
func (c *conn) collecting(req protocol.GCRequest) *session.Session {
	if req.Action != protocol.GCDeleteSpecific || !c.in.Version.Has(protocol.FeatureDeleteDeadSpecificReferrers) {
		return c.sess
	}
	sess := *c.sess
	sess.Settings = sess.Settings.Clone()
	sess.Settings.KeepOutputs, sess.Settings.KeepDerivations = false, false
	return &sess
}
