package build

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"

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
		offers: make(map[storepath.Path]*Offer),
		build:  make(map[storepath.Path]struct{}), unknown: make(map[storepath.Path]struct{}), fetch: make(map[storepath.Path]struct{})}
	for _, p := range slices.Backward(paths) {
		q.want(p)
	}
	if err := q.run(); err != nil {
		return Missing{}, err
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
	// offers are the answers about paths without a content address.
	offers map[storepath.Path]*Offer

	answers chan func() error // of questions to substituters, to be called by the walk
	work    *sync.WaitGroup
	asked   int // questions that have not been answered
}

// maxAsked bounds the questions to substituters that one walk has under way. What goes over a network waits there for
// its turn as the settings say; this only bounds memory.
const maxAsked = 256

// run walks until nothing is left. Questions to substituters are asked beside it, as many as there are.
func (q *missingQuery) run() error {
	ctx, cancel := context.WithCancel(q.ctx)
	q.ctx, q.answers = ctx, make(chan func() error, maxAsked)
	var work sync.WaitGroup
	q.work = &work
	defer work.Wait()
	defer cancel()
	for len(q.queue) > 0 || q.asked > 0 {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := q.turn(); err != nil {
			return err
		}
	}
	return nil
}

// turn takes an answer, if there must be one first, or looks at the next path.
func (q *missingQuery) turn() error {
	if len(q.queue) > 0 && q.asked < maxAsked {
		p := q.queue[len(q.queue)-1]
		q.queue = q.queue[:len(q.queue)-1]
		return q.look(p)
	}
	select {
	case answer := <-q.answers:
		q.asked--
		return answer()
	case <-q.ctx.Done():
		return context.Cause(q.ctx)
	}
}

// ask does something that may take long on a goroutine of its own; what it returns is called by the walk.
func (q *missingQuery) ask(question func() func() error) {
	q.asked++
	q.work.Go(func() {
		select {
		case q.answers <- q.guarded(question):
		case <-q.ctx.Done(): // the walk has ended, and there may be more answers than there is room for
		}
	})
}

func (q *missingQuery) guarded(question func() func() error) (answer func() error) {
	defer func() {
		if p := recover(); p != nil {
			q.s.log.Error().Interface("panic", p).Msg("panic in a question to substituters")
			answer = func() error { return errors.New("query missing paths: internal error") }
		}
	}()
	return question()
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
	return q.lookElsewhere(drvPath, drv, wanted, invalid, known)
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
func (q *missingQuery) lookElsewhere(drvPath storepath.Path, drv *derivation.Derivation, wanted derivation.OutputsSpec, invalid []storepath.Path, known bool) error {
	if q.s.subst == nil || !q.sess.Settings.Substitute {
		q.mustBuild(drvPath, drv)
		return nil
	}
	allowed, err := q.s.substitutesAllowed(q.sess, drvPath, drv)
	if err != nil {
		return err
	}
	if !allowed {
		q.mustBuild(drvPath, drv)
		return nil
	}
	if known {
		q.lookOutputs(drvPath, drv, invalid)
		return nil
	}
	if err := q.sess.Settings.ExperimentalFeatures.Require(settings.CADerivations); err != nil {
		return err
	}
	q.ask(func() func() error {
		invalid, known, err := q.realised(drvPath, drv, wanted, invalid)
		return func() error {
			if err == nil && known {
				q.lookOutputs(drvPath, drv, invalid)
			} else if err == nil {
				q.mustBuild(drvPath, drv)
			}
			return err
		}
	})
	return nil
}

// realised asks the substituters what the wanted outputs became, and adds to invalid those that are not there.
func (q *missingQuery) realised(drvPath storepath.Path, drv *derivation.Derivation, wanted derivation.OutputsSpec, invalid []storepath.Path) ([]storepath.Path, bool, error) {
	ids, err := q.s.outputIDs(q.ctx, drvPath, drv)
	if err != nil {
		return nil, false, err
	}
	for name := range drv.Outputs {
		if !wanted.Contains(name) {
			continue
		}
		real, _, err := q.s.subst.Realisation(q.ctx, q.sess, ids(name))
		if err != nil || real == nil {
			return nil, false, err
		}
		valid, err := q.s.store.IsValid(q.ctx, real.OutPath)
		if err != nil {
			return nil, false, err
		}
		if !valid {
			invalid = append(invalid, real.OutPath)
		}
	}
	return storepath.SortUnique(invalid), true, nil
}

func (q *missingQuery) mustBuild(drvPath storepath.Path, drv *derivation.Derivation) {
	q.build[drvPath] = struct{}{}
	for input, node := range drv.InputDrvs {
		q.wantInput(&derivation.SingleDerivedPath{Path: input}, node)
	}
}

// lookOutputs asks for all of the outputs at once.
func (q *missingQuery) lookOutputs(drvPath storepath.Path, drv *derivation.Derivation, paths []storepath.Path) {
	left, missed := len(paths), false
	for _, p := range paths {
		q.lookFor(p, drv.Outputs["out"].CA, func(offer *Offer) {
			left--
			switch {
			case missed:
			case offer == nil:
				missed = true
				q.mustBuild(drvPath, drv)
			case left == 0:
				for _, p := range paths {
					q.want(derivation.DerivedPath{Path: p})
				}
			}
		})
	}
}

// lookFor asks who has a path. The walk calls then with the answer, nil if nobody has.
func (q *missingQuery) lookFor(p storepath.Path, ca storepath.ContentAddress, then func(*Offer)) {
	if offer, known := q.offers[p]; known && ca.IsZero() {
		then(offer)
		return
	}
	q.ask(func() func() error {
		offer, err := q.s.subst.Look(q.ctx, q.sess, p, ca)
		return func() error {
			if err != nil {
				return err
			}
			if ca.IsZero() {
				q.offers[p] = offer
			}
			then(offer)
			return nil
		}
	})
}

func (q *missingQuery) wantInput(ref *derivation.SingleDerivedPath, node *derivation.InputOutputs) {
	if len(node.Outputs) > 0 {
		q.want(derivation.DerivedPath{Drv: ref, Outputs: derivation.OutputsSpec{Names: node.Outputs}})
	}
	for output, below := range node.Dynamic {
		q.wantInput(&derivation.SingleDerivedPath{Drv: ref, Output: output}, below)
	}
}

func (q *missingQuery) lookPath(p storepath.Path) error {
	valid, err := q.s.store.IsValid(q.ctx, p)
	if err != nil || valid {
		return err
	}
	if q.s.subst == nil || !q.sess.Settings.Substitute {
		q.unknown[p] = struct{}{}
		return nil
	}
	q.lookFor(p, storepath.ContentAddress{}, func(offer *Offer) { q.offered(p, offer) })
	return nil
}

func (q *missingQuery) offered(p storepath.Path, offer *Offer) {
	if offer == nil {
		q.unknown[p] = struct{}{}
		return
	}
	q.fetch[p] = struct{}{}
	q.res.DownloadSize += offer.DownloadSize
	q.res.NarSize += offer.Info.NarSize
	for _, ref := range offer.Info.References {
		q.want(derivation.DerivedPath{Path: ref})
	}
}
