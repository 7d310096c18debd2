package derivation

import (
	"context"
	"maps"
	"slices"
	"strings"

	"nixdaemon/protocol/storepath"
)

// Query tells what an output of a derivation became, zero if that is not
// known. The derivation may itself be an output.
type Query func(ctx context.Context, drv SingleDerivedPath, output string) (storepath.Path, error)

// ToBasic gives the derivation with inputs, a set of store paths, beside its
// sources instead of its input derivations. Nothing is rewritten: it is for
// inputs whose paths were known beforehand.
func (d *Derivation) ToBasic(inputs []storepath.Path) *BasicDerivation {
	b := d.clone()
	b.InputSrcs = storepath.SortUnique(append(b.InputSrcs, inputs...))
	return b
}

// clone copies what resolving changes.
func (d *BasicDerivation) clone() *BasicDerivation {
	b := *d
	b.Outputs = maps.Clone(d.Outputs)
	b.InputSrcs = slices.Clip(slices.Clone(d.InputSrcs))
	b.Args = slices.Clone(d.Args)
	b.Env = maps.Clone(d.Env)
	return &b
}

// ShouldResolve tells whether a derivation is built as what it resolves to:
// when its paths depend on what its inputs become.
func (d *Derivation) ShouldResolve(f Features) (bool, error) {
	if len(d.InputDrvs) == 0 {
		return false, nil
	}
	t, err := d.Type()
	if err != nil {
		return false, err
	}
	if t.IsFixed {
		return f.CADerivations || d.hasDynamicInputs(), nil
	}
	return t.IsCA || t.IsDeferred || d.hasDynamicInputs(), nil
}

// TryResolve replaces the input derivations by what they became and their
// placeholders by those paths; deferred outputs get their paths. It gives nil
// when an input is not known to query. Placeholders are looked for with the
// feature ca-derivations only (libstore/derivations.cc, tryResolve).
func (d *Derivation) TryResolve(ctx context.Context, dir storepath.Dir, f Features, query Query) (*BasicDerivation, error) {
	r := &resolver{dir: dir, query: query, rewrites: make(map[string]string)}
	for _, p := range slices.SortedFunc(maps.Keys(d.InputDrvs), storepath.Compare) {
		known, err := r.input(ctx, SingleDerivedPath{Path: p}, d.InputDrvs[p])
		if err != nil || !known {
			return nil, err
		}
	}
	b := d.ToBasic(r.paths)
	if f.CADerivations {
		if err := b.ApplyRewrites(r.rewrites); err != nil {
			return nil, err
		}
	}
	if err := b.fillDeferred(ctx, dir); err != nil {
		return nil, err
	}
	return b, nil
}

type resolver struct {
	dir      storepath.Dir
	query    Query
	paths    []storepath.Path
	rewrites map[string]string
}

func (r *resolver) input(ctx context.Context, drv SingleDerivedPath, in *InputOutputs) (known bool, err error) {
	for _, name := range in.Outputs {
		p, err := r.query(ctx, drv, name)
		if err != nil || p.IsZero() {
			return false, err
		}
		r.paths = append(r.paths, p)
		r.rewrites[SingleDerivedPath{Drv: &drv, Output: name}.Placeholder().String()] = r.dir.Print(p)
	}
	for _, name := range slices.Sorted(maps.Keys(in.Dynamic)) {
		known, err := r.input(ctx, SingleDerivedPath{Drv: &drv, Output: name}, in.Dynamic[name])
		if err != nil || !known {
			return false, err
		}
	}
	return true, nil
}

// fillDeferred gives deferred outputs the paths that follow now that the
// inputs are known.
func (d *BasicDerivation) fillDeferred(ctx context.Context, dir storepath.Dir) error {
	t, err := d.Type()
	if err != nil || !t.IsDeferred {
		return err
	}
	m, err := (&Hasher{Dir: dir}).Modulo(ctx, &Derivation{BasicDerivation: *d}, true)
	if err != nil {
		return err
	}
	for name := range d.Outputs {
		p, err := dir.MakeOutputPath(name, m.Outputs[name], d.Name)
		if err != nil {
			return err
		}
		if d.Env == nil {
			d.Env = make(map[string]string)
		}
		d.Env[name] = dir.Print(p)
		d.Outputs[name] = Output{Kind: InputAddressed, Path: p}
	}
	return nil
}

// ApplyRewrites replaces strings in the builder, its arguments, the environment
// with its names, and the structured attributes. The derivation must not be
// shared.
func (d *BasicDerivation) ApplyRewrites(rewrites map[string]string) error {
	if len(rewrites) == 0 {
		return nil
	}
	replace := Rewriter(rewrites).Replace
	d.Builder = replace(d.Builder)
	for i, arg := range d.Args {
		d.Args[i] = replace(arg)
	}
	env := make(map[string]string, len(d.Env))
	for _, name := range slices.Sorted(maps.Keys(d.Env)) {
		renamed := replace(name)
		if _, taken := env[renamed]; !taken {
			env[renamed] = replace(d.Env[name])
		}
	}
	d.Env = env
	if d.StructuredAttrs == nil {
		return nil
	}
	attrs, err := parseAttrs(replace(*d.StructuredAttrs))
	d.StructuredAttrs = attrs
	return err
}

// Rewriter replaces all keys by their values in one pass: what a value brings
// in is not searched again.
func Rewriter(rewrites map[string]string) *strings.Replacer {
	pairs := make([]string, 0, 2*len(rewrites))
	for _, from := range slices.Sorted(maps.Keys(rewrites)) {
		pairs = append(pairs, from, rewrites[from])
	}
	return strings.NewReplacer(pairs...)
}

// sortedSet sorts texts in place and drops duplicates.
func sortedSet(texts []string) []string {
	slices.Sort(texts)
	return slices.Compact(texts)
}
