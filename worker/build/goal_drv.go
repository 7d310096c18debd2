package build

import (
	"maps"
	"slices"
	"strings"

	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker/settings"
)

// drvGoal is the goal of carrying out a derivation: its inputs, then what it resolves to or a job
// (libstore/build/derivation-resolution-goal.cc, derivation-building-goal.cc).
type drvGoal struct {
	*goal
	drvPath storepath.Path
	drv     *derivation.Derivation
	mode    derivation.BuildMode
	inputs  []*wanted
	running bool
	sub     *subscription

	// resolved is set when the derivation is to be built as another one.
	resolved *resolvedDrv
}

type resolvedDrv struct {
	path storepath.Path
	drv  *derivation.Derivation
}

func (r *request) drvGoal(drvPath storepath.Path, drv *derivation.Derivation, mode derivation.BuildMode) *drvGoal {
	key := "dd$" + drvPath.Name() + "$" + r.dir.Print(drvPath) + modeSuffix(mode)
	if g, ok := r.find(key); ok {
		return g.owner.(*drvGoal)
	}
	d := &drvGoal{drvPath: drvPath, drv: drv, mode: mode}
	d.goal = r.newGoal(key, d.begin)
	d.owner = d
	return d
}

func (d *drvGoal) begin() {
	mode := derivation.BuildNormal
	if d.mode == derivation.BuildRepair {
		mode = derivation.BuildRepair
	}
	var waitFor []*goal
	for _, input := range slices.SortedFunc(maps.Keys(d.drv.InputDrvs), storepath.Compare) {
		if !d.checkPure(input) {
			return
		}
		d.addInput(&derivation.SingleDerivedPath{Path: input}, d.drv.InputDrvs[input], mode)
	}
	for _, w := range d.inputs {
		waitFor = append(waitFor, w.goal)
	}
	d.await(waitFor, d.inputsDone)
}

// addInput wants the outputs of an input, and of derivations that its outputs are.
func (d *drvGoal) addInput(ref *derivation.SingleDerivedPath, node *derivation.InputOutputs, mode derivation.BuildMode) {
	if len(node.Outputs) > 0 {
		d.inputs = append(d.inputs, d.r.wanted(ref, derivation.OutputsSpec{Names: node.Outputs}, mode))
	}
	for _, output := range slices.Sorted(maps.Keys(node.Dynamic)) {
		d.addInput(&derivation.SingleDerivedPath{Drv: ref, Output: output}, node.Dynamic[output], mode)
	}
}

// checkPure refuses impure inputs of a derivation that is to be reproducible.
func (d *drvGoal) checkPure(input storepath.Path) bool {
	r := d.r
	if !r.sess.Settings.ExperimentalFeatures.Enabled(settings.ImpureDerivations) {
		return true
	}
	kind, err := d.drv.Type()
	if err == nil && !kind.IsSandboxed {
		return true
	}
	var drv *derivation.Derivation
	if err == nil {
		drv, err = r.s.store.ReadDerivation(r.ctx, input)
	}
	if err == nil {
		kind, err = drv.Type()
	}
	if err == nil && kind.IsImpure {
		err = errorf("pure derivation '%s' depends on impure derivation '%s'", r.dir.Print(d.drvPath), r.dir.Print(input))
	}
	if err != nil {
		r.fail(err)
	}
	return err == nil
}

func (d *drvGoal) inputsDone() {
	r := d.r
	if d.nrFailed > 0 {
		// The goals for outputs that wait for this one count the failure.
		d.goal.fail(exitFailed, dependenciesFailed(r.dir, d.drvPath, &d.drv.BasicDerivation, d.nrFailed))
		return
	}
	resolved, err := r.resolve(d)
	if err != nil {
		r.fail(err)
		return
	}
	if resolved != nil {
		d.resolved = resolved
		r.announceResolved(d.drvPath, resolved.path)
		d.goal.succeed(derivation.StatusBuilt, nil)
		return
	}
	d.haveSources()
}

// haveSources makes sure that the input sources are there. They always are, unless a client sends a derivation
// without its inputs.
func (d *drvGoal) haveSources() {
	r := d.r
	var waitFor []*goal
	for _, src := range d.drv.InputSrcs {
		valid, err := r.s.store.IsValid(r.ctx, src)
		if err != nil {
			r.fail(err)
			return
		}
		if valid {
			continue
		}
		if !r.sess.Settings.Substitute {
			r.fail(errorf("dependency '%s' of '%s' does not exist, and substitution is disabled", r.dir.Print(src), r.dir.Print(d.drvPath)))
			return
		}
		waitFor = append(waitFor, r.path(src, storepath.ContentAddress{}, false))
	}
	if len(waitFor) == 0 {
		d.start()
		return
	}
	d.await(waitFor, d.sourcesDone)
}

func (d *drvGoal) sourcesDone() {
	if d.nrFailed > 0 {
		d.failWith(dependenciesFailed(d.r.dir, d.drvPath, &d.drv.BasicDerivation, d.nrFailed))
		return
	}
	d.start()
}

// start asks for the job, unless no machine can do it.
func (d *drvGoal) start() {
	r := d.r
	options, err := r.s.options(r.sess.Settings, r.log, d.drvPath, d.drv)
	if err != nil {
		r.fail(err)
		return
	}
	text, err := d.textHash()
	if err == nil && r.unstored[d.drv] {
		err = r.writeResolved(d.drv)
	}
	if err != nil {
		r.fail(err)
		return
	}
	here := d.whyNotHere(options)
	machines, err := d.machinesFor(options, here == nil)
	if err != nil {
		r.fail(err)
		return
	}
	if machines == nil && here != nil {
		if f, ok := here.(*Failure); ok {
			d.failWith(f)
		} else {
			r.fail(here)
		}
		return
	}
	d.submit(options, text, machines, here)
}

// whyNotHere is nil if this machine can do it.
func (d *drvGoal) whyNotHere(options *derivation.Options) error {
	if f := d.r.s.rejectLocal(d.r.sess.Settings, d.drvPath, d.drv, options); f != nil {
		return f
	}
	if err := d.unableToStart(); err != nil {
		return err
	}
	return nil
}

// submit makes the goal wait for a job.
func (d *drvGoal) submit(options *derivation.Options, text nixhash.Hash, machines Machines, here error) {
	r := d.r
	var good map[storepath.Path]bool
	if d.mode == derivation.BuildRepair {
		var err error
		if good, err = d.examineOutputs(); err != nil {
			r.fail(err)
			return
		}
	}
	d.step = nil
	j := &job{
		good:    good,
		key:     jobKey{drv: d.drvPath, mode: d.mode, settings: r.outcomeSettings, text: text},
		options: options, machines: machines, here: here,
		drvPath: d.drvPath, drv: d.drv, mode: d.mode, settings: r.sess.Settings,
	}
	if machines != nil {
		j.gate = gateKey{machines: machines.Key(), system: d.drv.Platform, features: strings.Join(requiredFeatures(d.drv, options), " ")}
		j.key.machines = machines.Key()
		if here != nil {
			j.key.machines += "\x00" + here.Error()
		}
	}
	if d.sub = r.s.subscribe(r, d, j); d.sub == nil {
		r.fail(errorf("derivation '%s' is being built by the builder that asks for it", r.dir.Print(d.drvPath)))
		return
	}
	r.subs[d.sub] = struct{}{}
}

// textHash is zero for the store's own derivation.
func (d *drvGoal) textHash() (nixhash.Hash, error) {
	if d.drv != d.r.inMemory {
		return nixhash.Hash{}, nil
	}
	return hashOfDrv(d.r.dir, d.drv)
}

func (d *drvGoal) setRunning(running bool) {
	if d.exit != exitBusy || running == d.running {
		return
	}
	d.running = running
	if running {
		d.r.progress.running++
	} else {
		d.r.progress.running--
	}
}

// jobDone ends the goal as its job ended.
func (d *drvGoal) jobDone(j *job, out *outcome) {
	r := d.r
	d.setRunning(false)
	d.ran = out
	switch {
	case out.err != nil:
		r.fail(out.err)
	case out.failure != nil:
		f := *out.failure
		if out.builder != nil {
			f.Msg = out.builder.text(r.dir, d.drvPath, &d.drv.BasicDerivation, j.feed.tail(r.sess.Settings.LogLines), nixLogCommand(r.sess.Settings))
		}
		d.failWith(&f)
	default:
		if out.status == derivation.StatusBuilt {
			r.progress.done++
		}
		if d.mode == derivation.BuildRepair {
			r.markGood(out.outputs)
		}
		d.goal.succeed(out.status, out.outputs)
	}
}

func (d *drvGoal) failWith(f *Failure) {
	d.r.countFailure(f)
	d.goal.fail(exitFailed, f)
}

func nixLogCommand(s *settings.Settings) string {
	if s.ExperimentalFeatures.Enabled(settings.NixCommand) {
		return "nix log"
	}
	return "nix-store -l"
}
