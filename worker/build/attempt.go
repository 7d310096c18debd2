package build

import (
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"nixdaemon/localstore"
	"nixdaemon/localstore/pathlock"
	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/storepath"
	"nixdaemon/sandbox"
	"nixdaemon/sandbox/buildusers"
	"nixdaemon/sandbox/cgroup"
	"nixdaemon/worker/settings"
)

// attempt is one build from slot to registration. It lives on the job's goroutine.
type attempt struct {
	*builder
	s    *Scheduler
	j    *job
	ctx  context.Context // the job's
	set  *settings.Settings
	drv  *derivation.Derivation
	kind derivation.Type

	inputs  []storepath.Path // closure, sorted
	outputs map[string]*output
	locks   *pathlock.Held
	waited  bool // for the locks
	user    *buildusers.Lease
	cgroup  *cgroup.Group // nil without one
	stuck   bool          // processes of the builder could not be killed

	external *settings.ExternalBuilder // who builds instead of us; may be nil

	tmp    *buildDir
	nested *Nested // nil unless the builder has a daemon of its own

	isolated bool    // the builder has a world of its own
	chroot   *chroot // what that needs on disk, while it is there
	root     *rootPlan

	// rewrites are the strings that the builder sees in another form: placeholders and hash parts.
	rewrites map[string]string

	activity activity.ID
	logFile  io.WriteCloser // of a build elsewhere
	out      outcome
	clock    stopwatch

	// madeElsewhere are the outputs of an impure derivation that another machine has built.
	madeElsewhere map[string]storepath.Path
	// madePaths are what the build has made, sorted.
	madePaths []storepath.Path
}

// output is one output of the derivation.
type output struct {
	name    string
	known   storepath.Path // its path, when that is known before the build
	present bool           // known is valid, though perhaps corrupt
	intact  bool           // known is valid and, when repairing, as it was registered
	scratch storepath.Path // what the builder makes
}

func (b *builder) run(s *Scheduler, j *job) outcome {
	a := &attempt{builder: b, s: s, j: j, ctx: j.ctx, set: j.settings, drv: j.drv, external: externalBuilder(j.settings, j.drv.Platform)}
	a.clock.slot = time.Now()
	err := a.build()
	// Whatever ends a build early, nobody is left to hear of it once the job was given up.
	if a.ctx.Err() != nil && err != nil {
		err = context.Cause(a.ctx)
	}
	a.finish(err == nil && !a.out.again)
	a.clock.report(a.o.Timed, j.drvPath)
	if err != nil {
		f := failed(err)
		f.builder = a.out.builder
		f.timesBuilt, f.startTime, f.stopTime = a.out.timesBuilt, a.out.startTime, a.out.stopTime
		f.cpuUser, f.cpuSystem = a.out.cpuUser, a.out.cpuSystem
		return f
	}
	return a.out
}

func (a *attempt) build() (err error) {
	if a.kind, err = a.drv.Type(); err != nil {
		return err
	}
	if err := a.findInputs(); err != nil {
		return err
	}
	place := a.lock
	if a.j.machines != nil {
		place = a.elsewhere
	}
	done, err := place()
	if err != nil || done {
		return err
	}
	if err := a.removeInvalid(); err != nil {
		return err
	}
	if err := a.checkSandbox(); err != nil {
		return err
	}
	if err := a.takeUser(); err != nil {
		return err
	}
	if a.tmp, err = a.makeBuildDir(); err != nil {
		return err
	}
	if err := a.chooseScratch(); err != nil {
		return err
	}
	spec, err := a.prepare()
	if err != nil {
		return err
	}
	if err := a.execute(spec); err != nil {
		return err
	}
	if err := a.registerMade(); err != nil {
		return err
	}
	a.removeBuildDir(false)
	a.removeChroot(true)
	return a.runPostBuildHook()
}

// findInputs computes what the builder may refer to: the closure of the wanted outputs of input derivations and of
// the sources.
func (a *attempt) findInputs() error {
	start := slices.Clone(a.drv.InputSrcs)
	for _, input := range slices.SortedFunc(maps.Keys(a.drv.InputDrvs), storepath.Compare) {
		outputs, err := a.s.outputMap(a.ctx, a.set.ExperimentalFeatures, input)
		if err != nil {
			return err
		}
		for _, name := range a.drv.InputDrvs[input].Outputs {
			p, ok := outputs[name]
			if !ok || p.IsZero() {
				return errorf("derivation '%s' requires non-existent output '%s' from input derivation '%s'",
					a.dir.Print(a.j.drvPath), name, a.dir.Print(input))
			}
			start = append(start, p)
		}
	}
	if len(start) == 0 {
		return nil
	}
	var err error
	a.inputs, err = a.s.store.Closure(a.ctx, start, localstore.ClosureOptions{})
	return err
}

// lockFiles are the files whose locks stand for the outputs.
func (a *attempt) lockFiles() ([]string, error) {
	static, err := a.drv.OutputPaths(a.dir)
	if err != nil {
		return nil, err
	}
	files := make([]string, 0, len(static))
	for name, p := range static {
		if p.IsZero() {
			files = append(files, a.store.RealPath(a.j.drvPath)+"."+name)
		} else {
			files = append(files, a.store.RealPath(p))
		}
	}
	return files, nil
}

// lock takes the locks of the outputs. done means that they are there already, made by somebody else meanwhile.
func (a *attempt) lock() (done bool, err error) {
	files, err := a.lockFiles()
	if err != nil {
		return false, err
	}
	a.locks, err = a.store.LockPaths(a.ctx, files, pathlock.Options{TryOnly: true})
	if errors.Is(err, pathlock.ErrLocked) {
		return a.waitForLocks(files)
	}
	if err != nil {
		return false, err
	}
	return a.allThere()
}

// waitForLocks waits without a slot, since whoever holds the locks may take long.
func (a *attempt) waitForLocks(files []string) (done bool, err error) {
	if err := a.awaitLocks(files); err != nil {
		return false, err
	}
	if done, err := a.allThere(); err != nil || done {
		return done, err
	}
	return false, a.s.takeSlot(a.j)
}

func (a *attempt) awaitLocks(files []string) (err error) {
	slices.Sort(files)
	a.waited = true
	reason := "waiting for lock on " + ansiMagenta + "'" + strings.Join(files, "', '") + "'" + ansiNormal
	id := a.s.ids.Next()
	a.j.feed.Start(id, activity.Warn, activity.BuildWaiting, reason, nil, 0)
	a.j.hasBegun()
	a.s.giveSlotBack(a.j, "lock on "+strings.Join(files, ", "))
	a.locks, err = a.store.LockPaths(a.ctx, files, pathlock.Options{})
	a.j.feed.Stop(id)
	return err
}

// allThere looks which outputs exist, now that nobody else can make them.
func (a *attempt) allThere() (bool, error) {
	if err := a.lookForOutputs(); err != nil {
		return false, err
	}
	if a.j.mode == derivation.BuildCheck {
		return false, nil
	}
	paths := make(map[string]storepath.Path, len(a.outputs))
	for name, o := range a.outputs {
		if !o.intact {
			return false, nil
		}
		paths[name] = o.known
	}
	a.out = outcome{status: derivation.StatusAlreadyValid, outputs: paths}
	return true, nil
}

func (a *attempt) lookForOutputs() error {
	a.outputs = make(map[string]*output, len(a.drv.Outputs))
	for name := range a.drv.Outputs {
		o := &output{name: name}
		a.outputs[name] = o
		if a.kind.IsImpure {
			p, err := randomPath(storepath.OutputPathName(a.drv.Name, name))
			if err != nil {
				return err
			}
			o.known = p
			continue
		}
		p, valid, err := a.s.knownOutput(a.ctx, a.set.ExperimentalFeatures, a.j.drvPath, a.drv, name)
		if err != nil {
			return err
		}
		o.known, o.present, o.intact = p, valid, valid
		if valid && a.j.mode == derivation.BuildRepair {
			if o.intact, err = a.contentsGood(p); err != nil {
				return err
			}
		}
	}
	return nil
}

// contentsGood trusts what was found out before the build, unless somebody else may have changed it since.
func (a *attempt) contentsGood(p storepath.Path) (bool, error) {
	if good, known := a.j.good[p]; known && !a.waited {
		return good, nil
	}
	return a.s.contentsGood(a.ctx, p)
}

// removeInvalid deletes what an earlier, unsuccessful build has left. Upstream deletes a corrupt path here too when
// repairing; we leave it in place until its replacement is ready.
func (a *attempt) removeInvalid() error {
	if a.s.away {
		return nil // what is not valid is not seen
	}
	for _, o := range a.outputs {
		if o.known.IsZero() || o.present {
			continue
		}
		if err := a.removeTree(a.store.RealPath(o.known)); err != nil {
			return err
		}
	}
	return nil
}

// finish releases what the build has held, in reverse order.
func (a *attempt) finish(ok bool) {
	a.nested.close()
	a.removeBuildDir(a.set.KeepFailed && !ok && !a.drv.IsBuiltin())
	a.removeChroot(ok)
	if a.activity != 0 {
		a.j.feed.Stop(a.activity)
	}
	a.complain("destroy cgroup", a.endCgroup(&sandbox.Result{}))
	a.releaseUser()
	if a.locks != nil {
		// Once the outputs are valid nobody makes lock files of those names again.
		a.locks.SetDeletion(ok)
		a.complain("unlock outputs", a.locks.Unlock())
	}
}

func (a *attempt) removeBuildDir(keep bool) {
	if a.tmp == nil {
		return
	}
	if keep {
		a.j.feed.Message(activity.Error, "note: keeping build directory "+quotedPath(a.tmp.path))
	}
	a.complain("remove build directory", a.tmp.close(keep))
	a.tmp = nil
}

// complain tells the administrator of what went wrong beside the build.
func (a *attempt) complain(what string, err error) {
	if err != nil {
		a.o.Log.Warn().Str("derivation", a.j.drvPath.Base()).Err(err).Msg(what)
	}
}

func (a *attempt) now() int64 { return time.Now().Unix() }
