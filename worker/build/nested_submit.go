package build

import (
	"context"
	"maps"
	"slices"
	"strings"

	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
)

// Bounds of what a builder can submit before it is told, at its end, that there are no such outputs.
const (
	maxSubmitted  = 4096
	maxOutputName = 211 // of a store path's name
)

// Submit notes that a path is an output, in upstream's words where it refuses
// (unix/build/derivation-builder-impl.hh, submitOutput). Upstream takes any valid path; we want one that the builder can
// see.
func (n *Nested) Submit(p *derivation.SingleDerivedPath, output string) error {
	dir := n.a.dir
	if p.Drv != nil {
		return errorf("Attempted to submit Built path '%s' for output '%s'.\n"+
			" Only Opaque paths are supported, see https://github.com/NixOS/nix/issues/12727", printSingle(dir, p), output)
	}
	if !n.MayUse(p.Path) {
		return errorf("cannot submit '%s' in recursive Nix because path is unknown", dir.Print(p.Path))
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if old, again := n.submitted[output]; again {
		return errorf("Attempted to submit duplicate output '%s' (old '%s', new '%s')", output, dir.Print(old), dir.Print(p.Path))
	}
	if len(output) > maxOutputName || len(n.submitted) >= maxSubmitted {
		return errorf("too many outputs, or too long a name of one")
	}
	n.submitted[output] = p.Path
	return nil
}

// registerSubmitted makes outputs of the paths that the builder has submitted, which are store objects already
// (unix/build/derivation-builder.cc, checkSubmittedOutputs). The builder's daemon has stopped.
func (a *attempt) registerSubmitted() error {
	infos := make(map[string]*pathinfo.Info, len(a.nested.submitted))
	for name, p := range a.nested.submitted {
		info, err := a.store.PathInfo(a.ctx, p)
		if err != nil {
			return err
		}
		infos[name] = info
	}
	for _, name := range sortedNames(infos) {
		if err := a.checkSubmitted(name, infos); err != nil {
			return err
		}
	}
	checker := &outputChecker{dir: a.dir, drvPath: a.j.drvPath, drv: &a.drv.BasicDerivation, options: a.j.options,
		outputs: infos, resolve: a.resolveRef, info: a.pathInfo}
	if err := checker.check(a.ctx); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(a.drv.Outputs)) {
		if infos[name] == nil {
			return failuref(derivation.StatusOutputRejected, "builder for '%s' failed to submit output path for '%s'",
				a.dir.Print(a.j.drvPath), name)
		}
	}
	a.out.status = derivation.StatusBuilt
	if a.j.mode == derivation.BuildCheck {
		return a.compareSubmitted(infos)
	}
	return a.commitSubmitted(infos)
}

// checkSubmitted checks what an output that the daemon has made is in any case (build/derivation-check.cc).
func (a *attempt) checkSubmitted(name string, infos map[string]*pathinfo.Info) error {
	drv, info := a.dir.Print(a.j.drvPath), infos[name]
	reject := func(format string, args ...any) error {
		return failuref(derivation.StatusOutputRejected, format, args...)
	}
	o, ok := a.drv.Outputs[name]
	if !ok {
		return reject("builder for '%s' submitted unknown output '%s' (Valid outputs are [%s])", drv, name, strings.Join(sortedNames(infos), ", "))
	}
	path := a.dir.Print(info.Path)
	if want := storepath.OutputPathName(a.drv.Name, name); info.Path.Name() != want {
		return reject("derivation '%s' output '%s' (at '%s') was named '%s', expected '%s'", drv, name, path, info.Path.Name(), want)
	}
	method, algo := o.Method, o.Algo
	if o.Kind == derivation.FixedCA {
		method, algo = o.CA.Method, o.CA.Hash.Algo()
	}
	switch {
	case info.CA.IsZero():
		return reject("floating content-addressing derivation '%s' output '%s' (at '%s') was not content-addressed", drv, name, path)
	case info.CA.Method != method:
		return reject("content-addressing derivation '%s' output '%s' (at '%s') was hashed with method '%s', expected '%s'",
			drv, name, path, methodName(info.CA.Method), methodName(method))
	case info.CA.Hash.Algo() != algo:
		return reject("content-addressing derivation '%s' output '%s' (at '%s') was hashed with algorithm '%s', expected '%s'",
			drv, name, path, info.CA.Hash.Algo().String(), algo.String())
	}
	return nil
}

// methodName is upstream's name of a method (libstore/content-address.cc, ContentAddressMethod::render).
func methodName(m storepath.Method) string {
	switch m {
	case storepath.MethodNAR:
		return "nar"
	case storepath.MethodText:
		return "text"
	case storepath.MethodGit:
		return "git"
	}
	return "flat"
}

// compareSubmitted tells whether another build of the derivation submitted the same. Upstream does not look.
func (a *attempt) compareSubmitted(infos map[string]*pathinfo.Info) error {
	for _, name := range sortedNames(infos) {
		o := a.outputs[name]
		if o.present && o.known != infos[name].Path {
			return nonDeterministic("derivation '%s' may not be deterministic: output %s differs from %s", a.dir.Print(a.j.drvPath),
				quotedPath(a.store.RealPath(o.known)), quotedPath(a.store.RealPath(infos[name].Path)))
		}
		a.madePaths = append(a.madePaths, infos[name].Path)
	}
	a.madePaths = storepath.SortUnique(a.madePaths)
	return nil
}

func (a *attempt) commitSubmitted(infos map[string]*pathinfo.Info) error {
	a.out.outputs = make(map[string]storepath.Path, len(infos))
	for _, name := range sortedNames(infos) {
		p := infos[name].Path
		if err := a.s.addRoot(a.ctx, a.j, p); err != nil {
			return err
		}
		a.out.outputs[name] = p
		a.madePaths = append(a.madePaths, p)
	}
	a.madePaths = storepath.SortUnique(a.madePaths)
	return a.recordRealisations(context.WithoutCancel(a.ctx), infos)
}
