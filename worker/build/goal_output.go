package build

import (
	"context"

	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker/settings"
)

// outputGoal is the goal for one output of a derivation that is at hand (libstore/build/derivation-goal.cc).
type outputGoal struct {
	*goal
	drvPath storepath.Path
	drv     *derivation.Derivation
	kind    derivation.Type
	name    string
	mode    derivation.BuildMode
	below   *drvGoal
	path    storepath.Path // of the output, when it is known

	resolved *outputGoal
}

func (r *request) output(drvPath storepath.Path, drv *derivation.Derivation, name string, mode derivation.BuildMode) (*outputGoal, error) {
	key := "db$" + drvPath.Name() + "$" + r.dir.Print(drvPath) + "^" + name + modeSuffix(mode)
	if g, ok := r.find(key); ok {
		return g.owner.(*outputGoal), nil
	}
	if _, ok := drv.Outputs[name]; !ok {
		return nil, errorf("derivation '%s' does not have output '%s'", r.dir.Print(drvPath), name)
	}
	o := &outputGoal{drvPath: drvPath, drv: drv, name: name, mode: mode}
	o.goal = r.newGoal(key, o.begin)
	o.owner = o
	r.progress.expected++
	// All known outputs become roots before any is looked for.
	for out := range drv.Outputs {
		p, err := drv.Outputs[out].OutputPath(r.dir, drv.Name, out)
		if err != nil {
			return nil, err
		}
		if !p.IsZero() {
			r.roots = append(r.roots, p)
		}
		if out == name {
			o.path = p
		}
	}
	return o, nil
}

func (o *outputGoal) begin() {
	r := o.r
	kind, err := o.drv.Type()
	if err != nil {
		r.fail(err)
		return
	}
	o.kind = kind
	features := r.sess.Settings.ExperimentalFeatures
	if !kind.HasKnownOutputPaths {
		if err := features.Require(settings.CADerivations); err != nil {
			r.fail(err)
			return
		}
	}
	if kind.IsImpure {
		if err := features.Require(settings.ImpureDerivations); err != nil {
			r.fail(err)
			return
		}
		o.build()
		return
	}
	valid, ok := o.check()
	if !ok {
		return
	}
	if valid && o.mode == derivation.BuildNormal {
		o.succeedWith(derivation.StatusAlreadyValid)
		return
	}
	o.substitute()
}

// check finds out whether the output is there and, when repairing, intact. ok is false when the request has failed.
func (o *outputGoal) check() (valid, ok bool) {
	r := o.r
	p, valid, err := r.s.knownOutput(r.ctx, r.sess.Settings.ExperimentalFeatures, o.drvPath, o.drv, o.name)
	if err == nil && valid && o.mode == derivation.BuildRepair {
		valid, err = r.contentsGood(p)
	}
	if err != nil {
		r.fail(err)
		return false, false
	}
	o.path = p
	return valid, true
}

// substitute tries to get the output from elsewhere.
func (o *outputGoal) substitute() {
	r := o.r
	if r.s.subst == nil || !r.sess.Settings.Substitute {
		o.substituted()
		return
	}
	allowed, err := r.s.substitutesAllowed(r.sess, o.drvPath, o.drv)
	if err != nil {
		r.fail(err)
		return
	}
	if !allowed {
		o.substituted()
		return
	}
	if o.path.IsZero() {
		o.findRealisation()
		return
	}
	sub := r.path(o.path, o.drv.Outputs[o.name].CA, o.mode == derivation.BuildRepair)
	o.await([]*goal{sub}, o.substituted)
}

// findRealisation asks what the output became elsewhere, and fetches that (drv-output-substitution-goal.cc).
func (o *outputGoal) findRealisation() {
	r := o.r
	ids, err := r.s.outputIDs(r.ctx, o.drvPath, o.drv)
	if err != nil {
		r.fail(err)
		return
	}
	id := ids(o.name)
	if r.s.subst.RealisationAtHand(r.ctx, r.sess, id) {
		real, failed, err := r.s.subst.Realisation(r.ctx, r.sess, id)
		o.foundRealisation(id, real, failed, err)
		return
	}
	o.step = nil
	r.fetching.start(r, func(ctx context.Context) func() {
		real, failed, err := r.s.subst.Realisation(ctx, r.sess, id)
		return func() { o.foundRealisation(id, real, failed, err) }
	})
}

func (o *outputGoal) foundRealisation(id pathinfo.DrvOutput, real *pathinfo.Realisation, failed bool, err error) {
	r := o.r
	switch {
	case err != nil:
		r.fail(err)
	case real == nil:
		o.nrFailed++
		if failed {
			r.progress.fetchesFailed++
		} else {
			o.nrNoSubst++
		}
		o.substituted()
	default:
		real.ID = id
		sub := r.path(real.OutPath, storepath.ContentAddress{}, false)
		o.await([]*goal{sub}, func() { o.fetchedRealisation(real) })
	}
}

// fetchedRealisation records what the output became once that is there.
func (o *outputGoal) fetchedRealisation(real *pathinfo.Realisation) {
	if o.nrFailed == 0 {
		if err := o.r.s.store.RegisterRealisation(o.r.ctx, real); err != nil {
			o.r.fail(err)
			return
		}
	}
	o.substituted()
}

func (o *outputGoal) substituted() {
	r := o.r
	if o.nrFailed > o.nrNoSubst && !r.sess.Settings.Fallback {
		o.failWith(exitFailed, failuref(derivation.StatusTransientFailure,
			"some substitutes for the outputs of derivation '%s' failed (usually happens due to networking issues); try '--fallback' to build derivation from source ",
			r.dir.Print(o.drvPath)))
		return
	}
	o.nrFailed, o.nrNoSubst = 0, 0
	valid, ok := o.check()
	switch {
	case !ok:
	case valid && o.mode == derivation.BuildNormal:
		o.succeedWith(derivation.StatusSubstituted)
	case valid && o.mode == derivation.BuildRepair:
		o.repairClosure()
	case !valid && o.mode == derivation.BuildCheck:
		r.fail(errorf("some outputs of '%s' are not valid, so checking is not possible\n"+
			"Hint: --rebuild and --check error if the derivation was not previously built and cannot be substituted.\n"+
			"      Remove it to perform a fresh build, or use --repair to rewrite missing or corrupted builds in the store.",
			r.dir.Print(o.drvPath)))
	default:
		o.build()
	}
}

func (o *outputGoal) build() {
	o.below = o.r.drvGoal(o.drvPath, o.drv, o.mode)
	o.below.preserve = true
	o.await([]*goal{o.below.goal}, o.built)
}

func (o *outputGoal) built() {
	r := o.r
	below := o.below
	o.ran = below.ran
	switch {
	case below.exit != exitSuccess:
		r.progress.expected--
		o.goal.fail(below.exit, below.failure)
	case below.resolved != nil:
		o.buildResolved()
	case o.mode == derivation.BuildCheck || below.outputs[o.name].IsZero():
		valid, ok := o.check()
		if ok && !valid {
			r.fail(errorf("some outputs are unexpectedly invalid"))
		}
		if ok && valid {
			o.succeedWith(below.status)
		}
	default:
		o.path = below.outputs[o.name]
		o.succeedWith(below.status)
	}
}

// buildResolved goes on with the derivation that this one turned out to be.
func (o *outputGoal) buildResolved() {
	to := o.below.resolved
	o.r.unstored[to.drv] = true
	resolved, err := o.r.output(to.path, to.drv, o.name, o.mode)
	if err != nil {
		o.r.fail(err)
		return
	}
	o.resolved = resolved
	o.await([]*goal{resolved.goal}, o.resolvedBuilt)
}

func (o *outputGoal) resolvedBuilt() {
	r := o.r
	if o.nrFailed > 0 {
		o.failWith(exitFailed, failuref(derivation.StatusDependencyFailed, "build of resolved derivation '%s' failed", r.dir.Print(o.resolved.drvPath)))
		return
	}
	o.ran = o.resolved.ran
	o.path = o.resolved.outputs[o.name]
	if !o.kind.IsImpure {
		if err := r.recordResolved(o); err != nil {
			r.fail(err)
			return
		}
	}
	status := o.resolved.status
	if status == derivation.StatusAlreadyValid {
		status = derivation.StatusResolvesToAlreadyValid
	}
	o.succeedWith(status)
}

func (o *outputGoal) succeedWith(status derivation.BuildStatus) {
	o.r.progress.expected--
	o.goal.succeed(status, map[string]storepath.Path{o.name: o.path})
}

func (o *outputGoal) failWith(e exit, f *Failure) {
	r := o.r
	r.progress.expected--
	r.countFailure(f)
	o.goal.fail(e, f)
}

// countFailure notes a failure for the exit status and for the client's display.
func (r *request) countFailure(f *Failure) {
	r.flags.add(f)
	if f.Status != derivation.StatusDependencyFailed {
		r.progress.failed++
	}
}
