package build

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker/session"
)

// BuildPaths makes the paths exist. When one of them failed the error is its *Failure; when several did, the failures
// are logged and the error is an *Error that names them (libstore/build/entry-points.cc). Use [Coloured] for its text.
func (s *Scheduler) BuildPaths(ctx context.Context, sess *session.Session, paths []derivation.DerivedPath, mode derivation.BuildMode) error {
	r, err := s.newRequest(ctx, sess)
	if err != nil {
		return err
	}
	defer r.end()
	goals := r.derivedPaths(paths, mode)
	if err := r.loop(goals); err != nil {
		return err
	}
	return r.buildError(goals)
}

func (r *request) derivedPaths(paths []derivation.DerivedPath, mode derivation.BuildMode) []*goal {
	goals := make([]*goal, len(paths))
	for i, p := range paths {
		goals[i] = r.derivedPath(p, mode)
	}
	return goals
}

// buildError turns the goals' failures into one error.
func (r *request) buildError(goals []*goal) error {
	goals = slices.Compact(slices.SortedFunc(slices.Values(goals), compareGoals))
	names := make(map[string]struct{})
	var first *Failure
	for _, g := range goals {
		if g.exit == exitSuccess {
			continue
		}
		names["'"+g.target()+"'"] = struct{}{}
		switch {
		case g.failure == nil:
		case first == nil:
			first = g.failure
		default:
			r.logFailure(g.failure)
		}
	}
	switch {
	case len(names) == 0:
		return nil
	case len(names) == 1 && first != nil:
		return first.withExitStatus(r.flags.status())
	case first != nil:
		r.logFailure(first)
	}
	list := strings.Join(slices.Sorted(maps.Keys(names)), ", ")
	return &Error{Msg: textf("build of %s failed", list), exit: r.flags.status()}
}

// target names what a top goal is about.
func (g *goal) target() string {
	switch owner := g.owner.(type) {
	case *wanted:
		return printSingle(g.r.dir, owner.drvRef)
	case *pathGoal:
		return g.r.dir.Print(owner.path)
	}
	return g.key
}

// BuildPathsWithResults makes the paths exist and tells of each how that went. What was given up because something
// else failed is left out.
func (s *Scheduler) BuildPathsWithResults(ctx context.Context, sess *session.Session, paths []derivation.DerivedPath, mode derivation.BuildMode) ([]derivation.KeyedBuildResult, error) {
	r, err := s.newRequest(ctx, sess)
	if err != nil {
		return nil, err
	}
	defer r.end()
	return r.withResults(paths, mode)
}

func (r *request) withResults(paths []derivation.DerivedPath, mode derivation.BuildMode) ([]derivation.KeyedBuildResult, error) {
	goals := r.derivedPaths(paths, mode)
	if err := r.loop(goals); err != nil {
		return nil, err
	}
	results := make([]derivation.KeyedBuildResult, 0, len(goals))
	for i, g := range goals {
		if g.exit == exitBusy {
			continue
		}
		res, err := r.result(g)
		if err != nil {
			return nil, err
		}
		results = append(results, derivation.KeyedBuildResult{Path: paths[i], BuildResult: res})
	}
	return results, nil
}

// BuildDerivation builds a derivation that came with the request, under a name that the store need not know.
// An error that is no failure of the build becomes a MiscFailure, except the end of ctx.
func (s *Scheduler) BuildDerivation(ctx context.Context, sess *session.Session, drvPath storepath.Path, drv *derivation.BasicDerivation, mode derivation.BuildMode) (derivation.BuildResult, error) {
	r, err := s.newRequest(ctx, sess)
	if err != nil {
		return derivation.BuildResult{}, err
	}
	defer r.end()
	if len(drv.Outputs) == 0 {
		return derivation.BuildResult{}, fmt.Errorf("derivation '%s' has no outputs", r.dir.Print(drvPath))
	}
	g := r.wantedInMemory(drvPath, &derivation.Derivation{BasicDerivation: *drv}, mode).goal
	if err := r.loop([]*goal{g}); err != nil {
		if ctx.Err() != nil || err == ErrClosed {
			return derivation.BuildResult{}, err
		}
		return derivation.BuildResult{Status: derivation.StatusMiscFailure, ErrorMsg: Coloured(err)}, nil
	}
	return r.result(g)
}

// EnsurePath makes a path valid by substitution if it is not.
func (s *Scheduler) EnsurePath(ctx context.Context, sess *session.Session, p storepath.Path) error {
	if valid, err := s.store.IsValid(ctx, p); err != nil || valid {
		return err
	}
	r, err := s.newRequest(ctx, sess)
	if err != nil {
		return err
	}
	defer r.end()
	g := r.path(p, storepath.ContentAddress{}, false)
	if err := r.loop([]*goal{g}); err != nil {
		return err
	}
	switch {
	case g.exit == exitSuccess:
		return nil
	case g.failure != nil:
		return g.failure.withExitStatus(r.flags.status())
	}
	return &Error{Msg: textf("path '%s' does not exist and cannot be created", r.dir.Print(p)), exit: r.flags.status()}
}

// result is a goal's end as the protocol has it.
func (r *request) result(g *goal) (derivation.BuildResult, error) {
	res := derivation.BuildResult{Status: g.status}
	if g.ran != nil {
		res.TimesBuilt = g.ran.timesBuilt
		res.StartTime, res.StopTime = g.ran.startTime, g.ran.stopTime
		res.CPUUser, res.CPUSystem = g.ran.cpuUser, g.ran.cpuSystem
	}
	if g.failure != nil {
		res.Status = g.failure.Status
		res.ErrorMsg = g.failure.Coloured()
		res.IsNonDeterministic = g.failure.NonDeterministic
		return res, nil
	}
	w, ok := g.owner.(*wanted)
	if !ok || len(g.outputs) == 0 {
		return res, nil
	}
	ids, err := r.s.outputIDs(r.ctx, w.drvPath, w.drv)
	if err != nil {
		return res, err
	}
	res.BuiltOutputs = make(map[string]pathinfo.Realisation, len(g.outputs))
	for name, p := range g.outputs {
		res.BuiltOutputs[name] = pathinfo.Realisation{ID: ids(name), OutPath: p}
	}
	return res, nil
}
