package build

import (
	"maps"
	"slices"
	"strings"

	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/storepath"
)

// wanted is the goal for some outputs of a derivation that may itself have to be obtained first
// (libstore/build/derivation-trampoline-goal.cc).
type wanted struct {
	*goal
	drvRef  *derivation.SingleDerivedPath
	outputs derivation.OutputsSpec
	mode    derivation.BuildMode
	parts   []*goal
	drvPath storepath.Path
	drv     *derivation.Derivation
}

func (r *request) derivedPath(p derivation.DerivedPath, mode derivation.BuildMode) *goal {
	if p.Drv == nil {
		return r.path(p.Path, storepath.ContentAddress{}, mode == derivation.BuildRepair)
	}
	return r.wanted(p.Drv, p.Outputs, mode).goal
}

func (r *request) wanted(drv *derivation.SingleDerivedPath, outputs derivation.OutputsSpec, mode derivation.BuildMode) *wanted {
	key := "da$" + rootOf(drv).Name() + "$" + printSingle(r.dir, drv) + "^" + printOutputs(outputs) + modeSuffix(mode)
	if g, ok := r.find(key); ok {
		return g.owner.(*wanted)
	}
	w := &wanted{drvRef: drv, outputs: outputs, mode: mode}
	w.goal = r.newGoal(key, w.begin)
	w.owner = w
	if drv.Drv == nil {
		r.roots = append(r.roots, drv.Path)
	}
	return w
}

// wantedInMemory is for a derivation that came with the request.
func (r *request) wantedInMemory(drvPath storepath.Path, drv *derivation.Derivation, mode derivation.BuildMode) *wanted {
	r.inMemory = drv
	ref := &derivation.SingleDerivedPath{Path: drvPath}
	w := &wanted{drvRef: ref, outputs: derivation.OutputsSpec{All: true}, mode: mode, drvPath: drvPath, drv: drv}
	w.goal = r.newGoal("da$"+drvPath.Name()+"$"+r.dir.Print(drvPath)+"^*"+modeSuffix(mode), w.haveDerivation)
	w.owner = w
	return w
}

// modeSuffix tells the goals of one request's modes apart; upstream has one mode per request.
func modeSuffix(mode derivation.BuildMode) string {
	if mode == derivation.BuildNormal {
		return ""
	}
	return "$" + itoa(int(mode))
}

func (w *wanted) begin() {
	r := w.r
	if w.mode == derivation.BuildNormal || w.drvRef.Drv == nil {
		p, known, err := r.resolveSingle(w.drvRef)
		if err != nil {
			r.fail(err)
			return
		}
		if known {
			valid, err := r.s.store.IsValid(r.ctx, p)
			if err != nil {
				r.fail(err)
				return
			}
			if valid {
				w.drvPath = p
				w.load()
				return
			}
		}
	}
	source := r.derivedPath(derivedFromSingle(w.drvRef), derivation.BuildNormal)
	w.await([]*goal{source}, w.obtained)
}

func (w *wanted) obtained() {
	r := w.r
	if w.nrFailed > 0 {
		w.goal.fail(exitFailed, failuref(derivation.StatusDependencyFailed, "failed to obtain derivation of '%s'", printSingle(r.dir, w.drvRef)))
		return
	}
	p, known, err := r.resolveSingle(w.drvRef)
	if err == nil && !known {
		err = errorf("cannot operate on output '%s' of the unbuilt derivation '%s'", w.drvRef.Output, printSingle(r.dir, w.drvRef.Drv))
	}
	if err != nil {
		r.fail(err)
		return
	}
	w.drvPath = p
	r.roots = append(r.roots, p)
	w.load()
}

func (w *wanted) load() {
	drv, err := w.r.s.store.ReadDerivation(w.r.ctx, w.drvPath)
	if err != nil {
		w.r.fail(err)
		return
	}
	w.drv = drv
	w.haveDerivation()
}

func (w *wanted) haveDerivation() {
	names := w.outputs.Names
	if w.outputs.All {
		names = slices.Sorted(maps.Keys(w.drv.Outputs))
	}
	if len(names) == 0 {
		w.r.fail(errorf("no outputs of derivation '%s' are wanted", w.r.dir.Print(w.drvPath)))
		return
	}
	for _, name := range names {
		o, err := w.r.output(w.drvPath, w.drv, name, w.mode)
		if err != nil {
			w.r.fail(err)
			return
		}
		o.preserve = true
		w.parts = append(w.parts, o.goal)
	}
	w.await(w.parts, w.built)
}

func (w *wanted) built() {
	if w.nrFailed > 0 {
		for _, part := range w.parts {
			if part.exit != exitBusy && part.exit != exitSuccess {
				w.ran = part.ran
				w.goal.fail(part.exit, part.failure)
				return
			}
		}
	}
	outputs := make(map[string]storepath.Path, len(w.parts))
	status := w.parts[0].status
	for _, part := range w.parts {
		maps.Copy(outputs, part.outputs)
		if commonStatus(part.status) < commonStatus(status) {
			status = part.status
		}
		if part.ran != nil {
			w.ran = part.ran
		}
	}
	w.succeed(status, outputs)
}

// commonStatus orders the ways of success: what was built counts before what was there.
func commonStatus(s derivation.BuildStatus) int {
	switch s {
	case derivation.StatusBuilt:
		return 0
	case derivation.StatusSubstituted:
		return 1
	case derivation.StatusAlreadyValid:
		return 2
	}
	return 3
}

// resolveSingle finds the path that a reference to an output means, if it is known.
func (r *request) resolveSingle(p *derivation.SingleDerivedPath) (storepath.Path, bool, error) {
	if p.Drv == nil {
		return p.Path, true, nil
	}
	drvPath, known, err := r.resolveSingle(p.Drv)
	if err != nil || !known {
		return storepath.Path{}, false, err
	}
	if valid, err := r.s.store.IsValid(r.ctx, drvPath); err != nil || !valid {
		return storepath.Path{}, false, err
	}
	outputs, err := r.s.outputMap(r.ctx, r.sess.Settings.ExperimentalFeatures, drvPath)
	if err != nil {
		return storepath.Path{}, false, err
	}
	out, ok := outputs[p.Output]
	if !ok {
		return storepath.Path{}, false, errorf("derivation '%s' does not have an output named '%s'", r.dir.Print(drvPath), p.Output)
	}
	return out, !out.IsZero(), nil
}

func rootOf(p *derivation.SingleDerivedPath) storepath.Path {
	for p.Drv != nil {
		p = p.Drv
	}
	return p.Path
}

func derivedFromSingle(p *derivation.SingleDerivedPath) derivation.DerivedPath {
	if p.Drv == nil {
		return derivation.DerivedPath{Path: p.Path}
	}
	return derivation.DerivedPath{Drv: p.Drv, Outputs: derivation.OutputsSpec{Names: []string{p.Output}}}
}

// printSingle is upstream's SingleDerivedPath::to_string.
func printSingle(dir storepath.Dir, p *derivation.SingleDerivedPath) string {
	if p.Drv == nil {
		return dir.Print(p.Path)
	}
	return printSingle(dir, p.Drv) + "^" + p.Output
}

func printOutputs(o derivation.OutputsSpec) string {
	if o.All {
		return "*"
	}
	return strings.Join(o.Names, ",")
}
