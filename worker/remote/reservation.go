package remote

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"nixdaemon/protocol"
	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker/build"
	"nixdaemon/worker/remote/peer"
	"nixdaemon/worker/settings"
)

// reservation is a machine that is connected and has a slot for a derivation.
type reservation struct {
	b       *Builders
	machine *Machine
	slot    *os.File
	link    *link
	need    build.Need
}

var _ build.Reservation = (*reservation)(nil)

// Machine implements build.Reservation.
func (r *reservation) Machine() string { return r.machine.URI }

// Cancel implements build.Reservation.
func (r *reservation) Cancel() { r.end(true) }

// end gives slot and connection back; whole tells that the connection is still of use.
func (r *reservation) end(whole bool) {
	r.b.sites.giveBack(r.machine, r.link, whole)
	r.slot.Close()
	r.b.sites.freed()
}

// Build implements build.Reservation (build-remote.cc).
func (r *reservation) Build(ctx context.Context, t build.Task) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r.link.printTo(t.Output, cancel)
	theirs := &renumber{to: t.Log, ids: r.b.o.IDs}
	w := &errand{reservation: r, ctx: ctx, task: t, set: r.need.Settings, theirs: theirs, store: r.link.store}
	r.link.log.Turn(theirs)
	err := w.run()
	r.link.log.Turn(nil)
	theirs.end()
	r.end(err == nil || isRefusal(err) && ctx.Err() == nil)
	// What is printed may come to an end only with the connection.
	if printErr := r.link.printError(); printErr != nil {
		return printErr
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return w.verdict(err)
}

// errand is one build on a machine.
type errand struct {
	*reservation
	ctx    context.Context
	task   build.Task
	set    *settings.Settings
	theirs *renumber
	store  peer.Store

	drv    *derivation.Derivation
	kind   derivation.Type
	result derivation.BuildResult
}

// localError is one of this machine's, which is not cured by trying another one.
type localError struct{ err error }

func (e *localError) Error() string { return e.err.Error() }

func (e *localError) Unwrap() error { return e.err }

// here marks an error as this machine's.
func here(err error) error {
	if err == nil {
		return nil
	}
	return &localError{err}
}

// isRefusal tells whether the other side has answered, though not as wished.
func isRefusal(err error) bool {
	if _, ok := errors.AsType[*protocol.Error](err); ok {
		return true
	}
	if _, ok := errors.AsType[*peer.Unsupported](err); ok {
		return true
	}
	_, ok := errors.AsType[*build.Error](err)
	return ok
}

// verdict says what an error means for the build: that it has failed, with the reason told to the client, or that the
// machine was lost.
func (w *errand) verdict(err error) error {
	if err == nil {
		return nil
	}
	_, ours := errors.AsType[*localError](err)
	if ours || isRefusal(err) {
		w.task.Log.Message(activity.Error, build.ErrorMessage(err))
		return &build.RemoteFailure{ExitCode: 1}
	}
	w.task.Log.Message(activity.Error, "cannot build on '"+w.machine.URI+"': "+build.ErrorMessage(err))
	w.b.sites.failed(w.machine)
	return build.ErrLost
}

// during runs a part of the work as an activity.
func (w *errand) during(text string, f func() error) error {
	id := w.b.o.IDs.Next()
	w.task.Log.Start(id, activity.Talkative, activity.Unknown, text+" '"+w.machine.URI+"'", nil, 0)
	defer w.task.Log.Stop(id)
	return f()
}

func (w *errand) run() (err error) {
	if w.drv, err = w.b.o.Store.ReadDerivation(w.ctx, w.need.DrvPath); err != nil {
		return here(err)
	}
	if w.kind, err = w.drv.Type(); err != nil {
		return here(err)
	}
	if err := w.sendInputs(); err != nil {
		return err
	}
	trust, err := w.store.Trust(w.ctx)
	if err != nil {
		return err
	}
	if trust == protocol.NotTrusted && !w.kind.IsCA {
		err = w.buildStored()
	} else {
		err = w.buildSent()
	}
	if err != nil {
		return err
	}
	return w.bringBack()
}

// sendInputs sends what is missing there, one sender at a time.
func (w *errand) sendInputs() error {
	var lock *os.File
	err := w.during("waiting for the upload lock to", func() (err error) {
		var late bool
		if lock, late, err = w.b.load.upload(w.ctx, w.machine); late {
			w.task.Log.Message(activity.Error, "somebody is hogging the upload lock for '%s', continuing...") // sic
		}
		return here(err)
	})
	if err != nil {
		return err
	}
	defer lock.Close()
	return w.during("copying dependencies to", func() error { return w.send(w.task.Inputs) })
}

// options are for the builds there.
func (w *errand) options() peer.BuildOptions {
	return peer.BuildOptions{
		Log: w.theirs, MaxSilentTime: uint64(max(0, w.set.MaxSilentTime)), BuildTimeout: uint64(max(0, w.set.Timeout)),
		MaxLogSize: w.set.MaxBuildLogSize, KeepFailed: w.set.KeepFailed,
	}
}

// buildSent sends the derivation itself, with all its inputs as sources: a derivation without input derivations stays as
// it is, since that would change the names of its realisations.
func (w *errand) buildSent() (err error) {
	basic := w.drv.BasicDerivation
	if len(w.drv.InputDrvs) > 0 {
		basic.InputSrcs = w.task.Inputs
	}
	w.result, err = w.store.BuildDerivation(w.ctx, w.need.DrvPath, &basic, w.options())
	if err != nil {
		return err
	}
	return w.checkResult()
}

// buildStored is for machines that do not trust us: they check themselves where outputs go, by all derivations below.
func (w *errand) buildStored() error {
	closure, err := w.b.o.Store.Closure(w.ctx, []storepath.Path{w.need.DrvPath}, closureOptions)
	if err != nil {
		return here(err)
	}
	if err := w.send(closure); err != nil {
		return err
	}
	path := derivation.DerivedPath{Drv: &derivation.SingleDerivedPath{Path: w.need.DrvPath}, Outputs: derivation.OutputsSpec{All: true}}
	results, err := w.store.BuildPathsWithResults(w.ctx, []derivation.DerivedPath{path}, w.options())
	if err != nil {
		return err
	}
	if len(results) != 1 {
		return fmt.Errorf("%d results of one build", len(results))
	}
	w.result = results[0].BuildResult
	return w.checkResult()
}

func (w *errand) checkResult() error {
	if w.result.Status.Success() {
		return nil
	}
	if w.set.KeepFailed {
		hint := ""
		if w.drv.Platform == w.set.System || slices.Contains(w.set.ExtraPlatforms, w.drv.Platform) {
			hint = " You can re-run the command with `--builders ''` to disable remote building for this invocation."
		}
		w.task.Log.Message(activity.Warn, build.Warning("The failed build directory was kept on the remote builder due to `--keep-failed`."+hint))
	}
	return &build.Error{Msg: build.Textf("build of '%s' on '%s' failed: %s", w.b.o.Dir.Print(w.need.DrvPath), w.machine.URI, w.result.ErrorMsg)}
}

// bringBack copies the outputs that are missing here, and says what they are of.
func (w *errand) bringBack() error {
	var realisations []*pathinfo.Realisation
	var missing []storepath.Path
	var err error
	if w.kind.IsImpure {
		missing, err = w.impureOutputs()
	} else if !w.kind.HasKnownOutputPaths && w.set.ExperimentalFeatures.Enabled(settings.CADerivations) {
		realisations, missing, err = w.unknownOutputs()
	} else {
		missing, err = w.knownOutputs()
	}
	if err != nil {
		return err
	}
	if len(missing) > 0 {
		if err := w.during("copying outputs from", func() error { return w.fetch(missing) }); err != nil {
			return err
		}
	}
	for _, r := range realisations {
		// What is complete shall not be lost because the client has just gone.
		if err := w.b.o.Store.RegisterRealisation(context.WithoutCancel(w.ctx), r); err != nil {
			return here(err)
		}
	}
	return nil
}

func (w *errand) knownOutputs() (missing []storepath.Path, err error) {
	outputs, err := w.drv.OutputPaths(w.b.o.Dir)
	if err != nil {
		return nil, here(err)
	}
	for _, p := range outputs {
		valid, err := w.b.o.Store.IsValid(w.ctx, p)
		if err != nil {
			return nil, here(err)
		}
		if !valid {
			missing = append(missing, p)
		}
	}
	return storepath.SortUnique(missing), nil
}

// impureOutputs are what the other machine has made this time.
func (w *errand) impureOutputs() (missing []storepath.Path, err error) {
	for _, name := range w.task.Wanted {
		theirs, ok := w.result.BuiltOutputs[name]
		if !ok {
			return nil, w.untold(name)
		}
		w.task.Made(name, theirs.OutPath)
		valid, err := w.b.o.Store.IsValid(w.ctx, theirs.OutPath)
		if err != nil {
			return nil, here(err)
		}
		if !valid {
			missing = append(missing, theirs.OutPath)
		}
	}
	return storepath.SortUnique(missing), nil
}

func (w *errand) untold(output string) error {
	return &build.Error{Msg: build.Textf("'%s' has not told the path of the output '%s'", w.machine.URI, output)}
}

// unknownOutputs are those that the other machine tells us of.
func (w *errand) unknownOutputs() (realisations []*pathinfo.Realisation, missing []storepath.Path, err error) {
	hasher := &derivation.Hasher{Dir: w.b.o.Dir, Load: w.b.o.Store.ReadDerivation, Memo: w.b.memo}
	hashes, err := hasher.StaticOutputHashes(w.ctx, w.drv)
	if err != nil {
		return nil, nil, here(err)
	}
	for _, name := range w.task.Wanted {
		id := pathinfo.DrvOutput{DrvHash: hashes[name], DrvPath: w.need.DrvPath, Output: name}
		known, err := w.b.o.Store.QueryRealisation(w.ctx, id)
		if err != nil {
			return nil, nil, here(err)
		}
		if known != nil {
			continue
		}
		theirs, ok := w.result.BuiltOutputs[name]
		if !ok {
			return nil, nil, w.untold(name)
		}
		realisations = append(realisations, &pathinfo.Realisation{ID: id, OutPath: theirs.OutPath, Sigs: theirs.Sigs, Dependent: theirs.Dependent})
		missing = append(missing, theirs.OutPath)
	}
	return realisations, storepath.SortUnique(missing), nil
}
