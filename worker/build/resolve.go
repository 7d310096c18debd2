package build

import (
	"context"
	"strings"

	"nixdaemon/localstore"
	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker/settings"
)

// resolve finds out what a derivation whose inputs are there is to be built as: nil for itself
// (derivation-resolution-goal.cc).
func (r *request) resolve(d *drvGoal) (*resolvedDrv, error) {
	set := r.sess.Settings.ExperimentalFeatures
	features := drvFeatures(set)
	should, err := d.drv.ShouldResolve(features)
	if err != nil || !should {
		return nil, err
	}
	if err := set.Require(settings.CADerivations); err != nil {
		return nil, err
	}
	basic, err := d.drv.TryResolve(r.ctx, r.dir, features, d.outputOf)
	if err != nil {
		return nil, err
	}
	if basic == nil {
		return nil, errorf("cannot resolve derivation '%s'", r.dir.Print(d.drvPath))
	}
	resolved := &derivation.Derivation{BasicDerivation: *basic}
	p, _, err := drvStorePath(r.dir, resolved)
	return &resolvedDrv{path: p, drv: resolved}, err
}

// outputOf tells what an output of an input became: from the goals, or else from the store.
func (d *drvGoal) outputOf(_ context.Context, drv derivation.SingleDerivedPath, output string) (storepath.Path, error) {
	want := printSingle(d.r.dir, &drv)
	for _, w := range d.inputs {
		if p, ok := w.goal.outputs[output]; ok && printSingle(d.r.dir, w.drvRef) == want {
			return p, nil
		}
	}
	p, _, err := d.r.resolveSingle(&derivation.SingleDerivedPath{Drv: &drv, Output: output})
	return p, err
}

// drvStorePath is where a derivation is stored, and its text.
func drvStorePath(dir storepath.Dir, drv *derivation.Derivation) (storepath.Path, string, error) {
	text, err := drv.ATerm(dir)
	if err != nil {
		return storepath.Path{}, "", err
	}
	ca := storepath.ContentAddress{Method: storepath.MethodText, Hash: nixhash.Of(nixhash.SHA256, text)}
	refs := append([]storepath.Path(nil), drv.InputSrcs...)
	for input := range drv.InputDrvs {
		refs = append(refs, input)
	}
	p, err := dir.FromContentAddress(drv.Name+storepath.DrvExtension, ca, storepath.References{Others: storepath.SortUnique(refs)})
	return p, text, err
}

// announceResolved tells the client what a derivation is built as. Upstream's activity lasts as long as the goal.
func (r *request) announceResolved(from, to storepath.Path) {
	id := r.s.ids.Next()
	fromText, toText := r.dir.Print(from), r.dir.Print(to)
	r.log.Start(id, activity.Info, activity.BuildWaiting, "resolved derivation: '"+fromText+"' -> '"+toText+"'",
		[]activity.Field{activity.Text(fromText), activity.Text(toText)}, 0)
	r.closing = append(r.closing, id)
}

// writeResolved stores a resolved derivation, as a record of what was really built.
func (r *request) writeResolved(drv *derivation.Derivation) error {
	_, text, err := drvStorePath(r.dir, drv)
	if err != nil {
		return err
	}
	_, err = r.s.store.AddDump(r.ctx, localstore.DumpSpec{
		Name: drv.Name + storepath.DrvExtension, Method: storepath.MethodText, Algo: nixhash.SHA256, References: drv.InputSrcs,
	}, strings.NewReader(text), localstore.AddOptions{Roots: r.sess.Roots})
	return err
}

// recordResolved notes what an output of a derivation became that was built as another one, as clients before 2.35
// look for it (derivation-goal.cc).
func (r *request) recordResolved(o *outputGoal) error {
	ids, err := r.s.outputIDs(r.ctx, o.drvPath, o.drv)
	if err != nil {
		return err
	}
	real := &pathinfo.Realisation{ID: ids(o.name), OutPath: o.path}
	keys, err := readSecretKeys(r.sess.Settings.SecretKeyFiles)
	if err != nil {
		return err
	}
	signRealisation(real, keys)
	return r.s.store.RegisterRealisation(r.ctx, real)
}
