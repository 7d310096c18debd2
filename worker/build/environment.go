package build

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"

	"nixdaemon/localstore"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker/settings"
)

// homeDir is where programs are told that their home is; it must not exist.
const homeDir = "/homeless-shelter"

// environment is a builder's environment and files before placeholders and hash parts are rewritten.
type environment struct {
	vars  map[string]string
	files map[string]string
}

// environment composes what the builder is told, in upstream's order: what is set later wins
// (unix/build/derivation-builder.cc, initEnv; build/derivation-env-desugar.cc).
func (a *attempt) environment() (*environment, error) {
	env := &environment{files: make(map[string]string), vars: map[string]string{
		"PATH":            "/path-not-set",
		"HOME":            homeDir,
		"NIX_STORE":       string(a.dir),
		"NIX_BUILD_CORES": strconv.FormatUint(uint64(a.set.EffectiveCores()), 10),
	}}
	if err := a.addAttributes(env); err != nil {
		return nil, err
	}
	for _, name := range []string{"NIX_BUILD_TOP", "TMPDIR", "TEMPDIR", "TMP", "TEMP", "PWD"} {
		env.vars[name] = a.tmp.inside
	}
	if a.kind.IsFixed {
		env.vars["NIX_OUTPUT_CHECKED"] = "1"
	}
	if !a.kind.IsSandboxed {
		if err := a.addImpureVars(env); err != nil {
			return nil, err
		}
	}
	env.vars["NIX_LOG_FD"] = "2"
	env.vars["TERM"] = "xterm-256color"
	return env, nil
}

// addAttributes passes the derivation's own variables, in the environment or in files.
func (a *attempt) addAttributes(env *environment) error {
	graphs, err := a.exportedGraphs()
	if err != nil {
		return err
	}
	if a.drv.StructuredAttrs != nil {
		return a.addStructured(env, graphs)
	}
	for name, value := range a.drv.Env {
		if !slices.Contains(a.j.options.PassAsFile, name) {
			env.vars[name] = value
		}
	}
	for _, name := range a.j.options.PassAsFile {
		if value, ok := a.drv.Env[name]; ok {
			file := derivation.PassAsFileName(name)
			env.files[file] = value
			a.setFile(env, name+"Path", a.tmp.inside+"/"+file)
		}
	}
	for file, paths := range graphs {
		text, err := a.registration(paths)
		if err != nil {
			return err
		}
		env.files[file] = text
	}
	return nil
}

// setFile sets the variable that names a file, unless a later variable of the derivation has that name: "fooPath"
// comes after "foo" in their order and wins upstream.
func (a *attempt) setFile(env *environment, name, value string) {
	if _, taken := a.drv.Env[name]; !taken || slices.Contains(a.j.options.PassAsFile, name) {
		env.vars[name] = value
	}
}

func (a *attempt) addStructured(env *environment, graphs map[string][]storepath.Path) error {
	exported := make(map[string][]derivation.ExportedPath, len(graphs))
	for key, paths := range graphs {
		for _, p := range paths {
			item, err := a.exportedPath(p)
			if err != nil {
				return err
			}
			exported[key] = append(exported[key], item)
		}
	}
	json, shell, err := a.drv.AttrsFiles(a.dir, exported)
	if err != nil {
		return err
	}
	env.files[".attrs.sh"], env.files[".attrs.json"] = shell, json
	env.vars["NIX_ATTRS_SH_FILE"] = a.tmp.inside + "/.attrs.sh"
	env.vars["NIX_ATTRS_JSON_FILE"] = a.tmp.inside + "/.attrs.json"
	return nil
}

// addImpureVars lets variables through that only builds may see whose result is checked by its content.
func (a *attempt) addImpureVars(env *environment) error {
	if len(a.set.ImpureEnv) > 0 {
		if err := a.set.ExperimentalFeatures.Require(settings.ConfigurableImpureEnv); err != nil {
			return err
		}
	}
	for _, name := range a.j.options.ImpureEnvVars {
		value, ok := a.set.ImpureEnv[name]
		if !ok && a.o.Getenv != nil {
			value = a.o.Getenv(name)
		}
		env.vars[name] = value
	}
	return nil
}

// strings is the environment as the builder gets it.
func (env *environment) strings(rewrites map[string]string) []string {
	list := make([]string, 0, len(env.vars))
	for _, name := range slices.Sorted(maps.Keys(env.vars)) {
		list = append(list, rewriteString(name+"="+env.vars[name], rewrites))
	}
	return list
}

// exportedGraphs are the closures that the derivation asks for, sorted.
func (a *attempt) exportedGraphs() (map[string][]storepath.Path, error) {
	if len(a.j.options.ExportReferencesGraph) == 0 {
		return nil, nil
	}
	graphs := make(map[string][]storepath.Path, len(a.j.options.ExportReferencesGraph))
	for file, refs := range a.j.options.ExportReferencesGraph {
		paths := make([]storepath.Path, 0, len(refs))
		for i := range refs {
			p, err := a.resolveRef(&refs[i])
			if err != nil {
				return nil, err
			}
			paths = append(paths, p)
		}
		graph, err := a.exportReferences(paths)
		if err != nil {
			return nil, err
		}
		graphs[file] = graph
	}
	return graphs, nil
}

// exportReferences is the closure of paths among the inputs, and of the outputs of derivations in it
// (libstore/store-api.cc, exportReferences).
func (a *attempt) exportReferences(paths []storepath.Path) ([]storepath.Path, error) {
	for _, p := range paths {
		if !storepath.Contains(a.inputs, p) {
			return nil, failuref(derivation.StatusInputRejected,
				"cannot export references of path '%s' because it is not in the input closure of the derivation", a.dir.Print(p))
		}
	}
	closure, err := a.store.Closure(a.ctx, paths, localstore.ClosureOptions{})
	if err != nil {
		return nil, err
	}
	start := slices.Clone(closure)
	for _, p := range closure {
		if !p.IsDerivation() {
			continue
		}
		drv, err := a.store.ReadDerivation(a.ctx, p)
		if err != nil {
			return nil, err
		}
		outputs, err := drv.OutputPaths(a.dir)
		if err != nil {
			return nil, err
		}
		for _, out := range outputs {
			if out.IsZero() {
				// Upstream refuses these, in these words (libstore/store-api.cc, exportReferences).
				return nil, errorf("exportReferences on CA derivations is not yet implemented")
			}
			start = append(start, out)
		}
	}
	if len(start) > len(closure) {
		if closure, err = a.store.Closure(a.ctx, start, localstore.ClosureOptions{}); err != nil {
			return nil, err
		}
	}
	return storepath.SortUnique(closure), nil
}

// registration is the text that nix-store --load-db reads, without hashes.
func (a *attempt) registration(paths []storepath.Path) (string, error) {
	var b strings.Builder
	for _, p := range paths {
		info, err := a.store.PathInfo(a.ctx, p)
		if err != nil {
			return "", err
		}
		b.WriteString(a.dir.Print(p) + "\n\n" + itoa(len(info.References)) + "\n")
		for _, ref := range info.References {
			b.WriteString(a.dir.Print(ref) + "\n")
		}
	}
	return b.String(), nil
}

func (a *attempt) exportedPath(p storepath.Path) (derivation.ExportedPath, error) {
	info, err := a.store.PathInfo(a.ctx, p)
	if err != nil {
		return derivation.ExportedPath{}, err
	}
	closure, err := a.store.Closure(a.ctx, []storepath.Path{p}, localstore.ClosureOptions{})
	if err != nil {
		return derivation.ExportedPath{}, err
	}
	var size uint64
	for _, c := range closure {
		below, err := a.store.PathInfo(a.ctx, c)
		if err != nil {
			return derivation.ExportedPath{}, err
		}
		size += below.NarSize
	}
	return derivation.ExportedPath{Info: info, ClosureSize: size}, nil
}

// resolveRef finds the path that an attribute means.
func (a *attempt) resolveRef(ref *derivation.SingleDerivedPath) (storepath.Path, error) {
	if ref.Drv == nil {
		return ref.Path, nil
	}
	drvPath, err := a.resolveRef(ref.Drv)
	if err != nil {
		return storepath.Path{}, err
	}
	outputs, err := a.s.outputMap(a.ctx, a.set.ExperimentalFeatures, drvPath)
	if err != nil {
		return storepath.Path{}, err
	}
	p := outputs[ref.Output]
	if p.IsZero() {
		return p, errorf("cannot operate on output '%s' of the unbuilt derivation '%s'", ref.Output, a.dir.Print(drvPath))
	}
	return p, nil
}

// pathInfo is for checks of outputs.
func (a *attempt) pathInfo(ctx context.Context, p storepath.Path) (*pathinfo.Info, error) {
	return a.store.PathInfo(ctx, p)
}
