package build

import (
	"context"
	"maps"
	"slices"

	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker/session"
	"nixdaemon/worker/settings"
)

// Missing is what a build would have to do. The paths are sorted sets.
type Missing struct {
	WillBuild, WillSubstitute, Unknown []storepath.Path
	// DownloadSize and NarSize are of what would be substituted, in bytes.
	DownloadSize, NarSize uint64
}

// queryingMissing is the text of an activity that clients see.
const queryingMissing = "querying info about missing paths"

// QueryMissing finds out what would be built and substituted to make the paths exist, without doing it
// (libstore/misc.cc, queryMissing).
func (s *Scheduler) QueryMissing(ctx context.Context, sess *session.Session, paths []derivation.DerivedPath) (Missing, error) {
	id := s.ids.Next()
	sess.Log.Start(id, activity.Debug, activity.Unknown, queryingMissing, nil, 0)
	defer sess.Log.Stop(id)
	q := &missingQuery{s: s, ctx: ctx, sess: sess, dir: s.store.Dir(), seen: make(map[wish]struct{}),
		build: make(map[storepath.Path]struct{}), unknown: make(map[storepath.Path]struct{}), fetch: make(map[storepath.Path]struct{})}
	for _, p := range slices.Backward(paths) {
		q.want(p)
	}
	for len(q.queue) > 0 {
		if err := ctx.Err(); err != nil {
			return Missing{}, err
		}
		p := q.queue[len(q.queue)-1]
		q.queue = q.queue[:len(q.queue)-1]
		if err := q.look(p); err != nil {
			return Missing{}, err
		}
	}
	q.res.WillBuild, q.res.WillSubstitute, q.res.Unknown = sortedPaths(q.build), sortedPaths(q.fetch), sortedPaths(q.unknown)
	return q.res, nil
}

// lookAhead asks what is missing before a request begins, as upstream does (libstore/build/worker.cc, run). There it
// primes a cache; here it is only for the warnings about what cannot be known beforehand, and for the activity.
func (r *request) lookAhead(tops []*goal) error {
	if !r.sess.Settings.ExperimentalFeatures.Enabled(settings.DynamicDerivations) {
		id := r.s.ids.Next()
		r.sess.Log.Start(id, activity.Debug, activity.Unknown, queryingMissing, nil, 0)
		r.sess.Log.Stop(id)
		return nil
	}
	var paths []derivation.DerivedPath
	for _, g := range tops {
		switch owner := g.owner.(type) {
		case *wanted:
			paths = append(paths, derivation.DerivedPath{Drv: owner.drvRef, Outputs: owner.outputs})
		case *pathGoal:
			paths = append(paths, derivation.DerivedPath{Path: owner.path})
		}
	}
	_, err := r.s.QueryMissing(r.ctx, r.sess, paths)
	return err
}

func sortedPaths(set map[storepath.Path]struct{}) []storepath.Path {
	return storepath.SortUnique(slices.Collect(maps.Keys(set)))
}

type missingQuery struct {
	s     *Scheduler
	ctx   context.Context
	sess  *session.Session
	dir   storepath.Dir
	res   Missing
	queue []derivation.DerivedPath
	seen  map[wish]struct{}

	build, fetch, unknown map[storepath.Path]struct{}
}

// wish tells derived paths apart; path is a store path or that of a derivation.
type wish struct {
	path    storepath.Path
	outputs string // "" for a store path
}

func (q *missingQuery) want(p derivation.DerivedPath) {
	w := wish{path: p.Path}
	switch {
	case p.Drv == nil:
	case p.Drv.Drv != nil:
		w = wish{path: rootOf(p.Drv), outputs: printSingle(q.dir, p.Drv) + "^" + p.Outputs.String()}
	default:
		w = wish{path: p.Drv.Path, outputs: p.Outputs.String()}
	}
	if _, again := q.seen[w]; again {
		return
	}
	q.seen[w] = struct{}{}
	q.queue = append(q.queue, p)
}

func (q *missingQuery) look(p derivation.DerivedPath) error {
	if p.Drv == nil {
		return q.lookPath(p.Path)
	}
	if p.Drv.Drv != nil {
		// Upstream leaves these out, in these words (libstore/misc.cc, queryMissing).
		q.sess.Log.Message(activity.Warn, warning(textf("Ignoring dynamic derivation %s while querying missing paths; not yet implemented",
			printSingle(q.dir, p.Drv))))
		return nil
	}
	return q.lookDrv(p.Drv.Path, p.Outputs)
}

func (q *missingQuery) lookDrv(drvPath storepath.Path, wanted derivation.OutputsSpec) error {
	valid, err := q.s.store.IsValid(q.ctx, drvPath)
	if err != nil {
		return err
	}
	if !valid {
		q.unknown[drvPath] = struct{}{}
		return nil
	}
	drv, err := q.s.store.ReadDerivation(q.ctx, drvPath)
	if err != nil {
		return err
	}
	invalid, known, err := q.invalidOutputs(drvPath, drv, wanted)
	if err != nil {
		return err
	}
	if known && len(invalid) == 0 {
		return nil
	}
	return q.lookElsewhere(drvPath, drv, invalid, known)
}

// invalidOutputs are the wanted outputs that are not there. known is false if some output's path is unknown.
func (q *missingQuery) invalidOutputs(drvPath storepath.Path, drv *derivation.Derivation, wanted derivation.OutputsSpec) (invalid []storepath.Path, known bool, err error) {
	if q.sess.Settings.ExperimentalFeatures.Enabled(settings.CADerivations) {
		outputs, err := q.s.outputsOf(q.ctx, q.sess.Settings.ExperimentalFeatures, drvPath, drv)
		if err != nil {
			return nil, false, err
		}
		for name, p := range outputs {
			if invalid, err = q.checkOutput(invalid, name, p, wanted); err != nil || p.IsZero() {
				return nil, false, err
			}
		}
		return invalid, true, nil
	}
	// Mostly paths follow from the derivation: then no map need be made.
	for name, o := range drv.Outputs {
		p, err := o.OutputPath(q.dir, drv.Name, name)
		if err != nil || p.IsZero() {
			return nil, false, err
		}
		if invalid, err = q.checkOutput(invalid, name, p, wanted); err != nil {
			return nil, false, err
		}
	}
	return invalid, true, nil
}

func (q *missingQuery) checkOutput(invalid []storepath.Path, name string, p storepath.Path, wanted derivation.OutputsSpec) ([]storepath.Path, error) {
	if p.IsZero() || !wanted.Contains(name) {
		return invalid, nil
	}
	valid, err := q.s.store.IsValid(q.ctx, p)
	if err == nil && !valid {
		invalid = append(invalid, p)
	}
	return invalid, err
}

// lookElsewhere counts outputs as substituted if all of them can be, else the derivation as built.
func (q *missingQuery) lookElsewhere(drvPath storepath.Path, drv *derivation.Derivation, invalid []storepath.Path, known bool) error {
	if known && q.s.subst != nil && q.sess.Settings.Substitute {
		allowed, err := q.s.substitutesAllowed(q.sess, drvPath, drv)
		if err != nil {
			return err
		}
		if allowed {
			all, err := q.allOffered(drv, invalid)
			if err != nil || all {
				return err
			}
		}
	}
	q.build[drvPath] = struct{}{}
	for input, node := range drv.InputDrvs {
		q.wantInput(&derivation.SingleDerivedPath{Path: input}, node)
	}
	return nil
}

func (q *missingQuery) wantInput(ref *derivation.SingleDerivedPath, node *derivation.InputOutputs) {
	if len(node.Outputs) > 0 {
		q.want(derivation.DerivedPath{Drv: ref, Outputs: derivation.OutputsSpec{Names: node.Outputs}})
	}
	for output, below := range node.Dynamic {
		q.wantInput(&derivation.SingleDerivedPath{Drv: ref, Output: output}, below)
	}
}

func (q *missingQuery) allOffered(drv *derivation.Derivation, paths []storepath.Path) (bool, error) {
	for _, p := range paths {
		offer, err := q.s.subst.Find(q.ctx, q.sess, p, drv.Outputs["out"].CA, nil)
		if err != nil || offer == nil {
			return false, err
		}
	}
	for _, p := range paths {
		q.want(derivation.DerivedPath{Path: p})
	}
	return true, nil
}

func (q *missingQuery) lookPath(p storepath.Path) error {
	valid, err := q.s.store.IsValid(q.ctx, p)
	if err != nil || valid {
		return err
	}
	var offer *Offer
	if q.s.subst != nil && q.sess.Settings.Substitute {
		if offer, err = q.s.subst.Find(q.ctx, q.sess, p, storepath.ContentAddress{}, nil); err != nil {
			return err
		}
	}
	if offer == nil {
		q.unknown[p] = struct{}{}
		return nil
	}
	q.fetch[p] = struct{}{}
	q.res.DownloadSize += offer.DownloadSize
	q.res.NarSize += offer.Info.NarSize
	for _, ref := range offer.Info.References {
		q.want(derivation.DerivedPath{Path: ref})
	}
	return nil
}
