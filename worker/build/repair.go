package build

import (
	"context"
	"crypto/sha256"
	"errors"
	"io/fs"
	"maps"
	"slices"

	"nixdaemon/localstore"
	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker/session"
)

// contentsGood hashes a valid path to see whether it is as it was registered (libstore/build/worker.cc,
// pathContentsGood). Within one request the answer is remembered.
func (r *request) contentsGood(p storepath.Path) (bool, error) {
	if good, known := r.good[p]; known {
		return good, nil
	}
	r.log.Message(activity.Info, "checking path '"+r.dir.Print(p)+"'...")
	good, err := r.s.contentsGood(r.ctx, p)
	if err != nil {
		return false, err
	}
	if !good {
		r.log.Message(activity.Error, "path '"+r.dir.Print(p)+"' is corrupted or missing!")
	}
	if r.good == nil {
		r.good = make(map[storepath.Path]bool)
	}
	r.good[p] = good
	return good, nil
}

// markGood remembers that what was just made is good.
func (r *request) markGood(outputs map[string]storepath.Path) {
	if r.good == nil {
		r.good = make(map[storepath.Path]bool)
	}
	for _, p := range outputs {
		r.good[p] = true
	}
}

// examineOutputs looks at the contents of all outputs that are there, also of those that nobody has asked for: they are
// made anew together.
func (d *drvGoal) examineOutputs() (map[storepath.Path]bool, error) {
	r := d.r
	outputs, err := r.s.outputsOf(r.ctx, r.sess.Settings.ExperimentalFeatures, d.drvPath, d.drv)
	if err != nil {
		return nil, err
	}
	good := make(map[storepath.Path]bool, len(outputs))
	for _, name := range slices.Sorted(maps.Keys(outputs)) {
		p := outputs[name]
		if p.IsZero() {
			continue
		}
		valid, err := r.s.store.IsValid(r.ctx, p)
		if err == nil && valid {
			good[p], err = r.contentsGood(p)
		}
		if err != nil {
			return nil, err
		}
	}
	return good, nil
}

func (s *Scheduler) contentsGood(ctx context.Context, p storepath.Path) (bool, error) {
	info, err := s.store.PathInfo(ctx, p)
	if err != nil {
		return false, err
	}
	hash := sha256.New()
	if err := s.store.DumpFile(ctx, s.store.RealPath(p), hash); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		return false, err
	}
	return nixhash.FromSum(nixhash.SHA256, hash) == info.NarHash, nil
}

// repairClosure looks for damage in what a good output needs (derivation-goal.cc, repairClosure).
func (o *outputGoal) repairClosure() {
	r := o.r
	goals, err := o.damaged()
	if err != nil {
		r.fail(err)
		return
	}
	if len(goals) == 0 {
		o.succeedWith(derivation.StatusAlreadyValid)
		return
	}
	o.await(goals, func() {
		if o.nrFailed > 0 {
			r.fail(errorf("some paths in the output closure of derivation '%s' could not be repaired", r.dir.Print(o.drvPath)))
			return
		}
		o.succeedWith(derivation.StatusAlreadyValid)
	})
}

// damaged makes goals for the paths of the output's closure that are not as they should be.
func (o *outputGoal) damaged() ([]*goal, error) {
	r := o.r
	closure, err := r.s.store.Closure(r.ctx, []storepath.Path{o.path}, localstore.ClosureOptions{})
	if err != nil {
		return nil, err
	}
	own, err := r.s.outputsOf(r.ctx, r.sess.Settings.ExperimentalFeatures, o.drvPath, o.drv)
	if err != nil {
		return nil, err
	}
	mine := slices.Collect(maps.Values(own))
	var makers map[storepath.Path]storepath.Path
	var goals []*goal
	for _, p := range closure {
		if slices.Contains(mine, p) {
			continue
		}
		good, err := r.contentsGood(p)
		if err != nil {
			return nil, err
		}
		if good {
			continue
		}
		r.log.Message(activity.Error, "found corrupted or missing path '"+r.dir.Print(p)+"' in the output closure of '"+r.dir.Print(o.drvPath)+"'")
		if makers == nil {
			if makers, err = o.makers(); err != nil {
				return nil, err
			}
		}
		if drv, ok := makers[p]; ok {
			goals = append(goals, r.wanted(&derivation.SingleDerivedPath{Path: drv}, derivation.OutputsSpec{All: true}, derivation.BuildRepair).goal)
		} else {
			goals = append(goals, r.path(p, storepath.ContentAddress{}, true))
		}
	}
	return goals, nil
}

// makers tells which derivation of the closure of this one makes which path.
func (o *outputGoal) makers() (map[storepath.Path]storepath.Path, error) {
	r := o.r
	valid, err := r.s.store.IsValid(r.ctx, o.drvPath)
	if err != nil || !valid {
		return map[storepath.Path]storepath.Path{}, err
	}
	inputs, err := r.s.store.Closure(r.ctx, []storepath.Path{o.drvPath}, localstore.ClosureOptions{})
	if err != nil {
		return nil, err
	}
	makers := make(map[storepath.Path]storepath.Path)
	for _, p := range inputs {
		if !p.IsDerivation() {
			continue
		}
		outputs, err := r.s.outputMap(r.ctx, r.sess.Settings.ExperimentalFeatures, p)
		if err != nil {
			return nil, err
		}
		for _, out := range outputs {
			makers[out] = p
		}
	}
	return makers, nil
}

// RepairPath makes the contents of a valid path anew: from a substituter, or by building its deriver again.
func (s *Scheduler) RepairPath(ctx context.Context, sess *session.Session, p storepath.Path) error {
	r, err := s.newRequest(ctx, sess)
	if err != nil {
		return err
	}
	defer r.end()
	g := r.path(p, storepath.ContentAddress{}, true)
	if err := r.loop([]*goal{g}); err != nil || g.exit == exitSuccess {
		return err
	}
	info, err := s.store.PathInfo(ctx, p)
	if err != nil {
		return err
	}
	if !info.Deriver.IsZero() {
		valid, err := s.store.IsValid(ctx, info.Deriver)
		if err != nil {
			return err
		}
		if valid {
			w := r.wanted(&derivation.SingleDerivedPath{Path: info.Deriver}, derivation.OutputsSpec{All: true}, derivation.BuildRepair)
			if err := r.loop([]*goal{w.goal}); err != nil {
				return err
			}
			return r.buildError([]*goal{w.goal})
		}
	}
	return &Error{Msg: textf("cannot repair path '%s'", r.dir.Print(p)), exit: r.flags.status()}
}
