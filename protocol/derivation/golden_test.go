package derivation

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nixdaemon/protocol/internal/fixturetest"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/storepath"
)

const dir = storepath.DefaultDir

func base(t testing.TB, s string) storepath.Path {
	t.Helper()
	p, err := storepath.ParseBase(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

var comparable = []cmp.Option{
	cmp.Comparer(func(a, b storepath.Path) bool { return a == b }),
	cmp.Comparer(func(a, b storepath.ContentAddress) bool { return a == b }),
	cmp.Comparer(func(a, b nixhash.Hash) bool { return a == b }),
}

// The types below are upstream's JSON of derivations, version 4, which no
// daemon reads or writes.
type jsonOutput struct {
	Path, Method, HashAlgo, Hash string
	Impure                       bool
}

type jsonInputs struct {
	Outputs        []string
	DynamicOutputs map[string]jsonInputs
}

type jsonDerivation struct {
	Name, System, Builder string
	Args                  []string
	Env                   map[string]string
	Inputs                json.RawMessage
	Outputs               map[string]jsonOutput
	StructuredAttrs       json.RawMessage
}

var jsonMethods = map[string]storepath.Method{
	"flat": storepath.MethodFlat, "nar": storepath.MethodNAR, "text": storepath.MethodText, "git": storepath.MethodGit,
}

func (o jsonOutput) output(t testing.TB) Output {
	t.Helper()
	switch {
	case o.Path != "":
		return Output{Kind: InputAddressed, Path: base(t, o.Path)}
	case o.Hash != "":
		h, err := nixhash.ParseSRI(o.Hash)
		if err != nil {
			t.Fatal(err)
		}
		return Output{Kind: FixedCA, CA: storepath.ContentAddress{Method: jsonMethods[o.Method], Hash: h}}
	case o.HashAlgo == "":
		return Output{Kind: Deferred}
	}
	algo, err := nixhash.ParseAlgo(o.HashAlgo)
	if err != nil {
		t.Fatal(err)
	}
	kind := FloatingCA
	if o.Impure {
		kind = Impure
	}
	return Output{Kind: kind, Method: jsonMethods[o.Method], Algo: algo}
}

func (in jsonInputs) inputs() *InputOutputs {
	out := &InputOutputs{Outputs: in.Outputs}
	for name, child := range in.DynamicOutputs {
		if out.Dynamic == nil {
			out.Dynamic = make(map[string]*InputOutputs)
		}
		out.Dynamic[name] = child.inputs()
	}
	return out
}

func goldenDerivation(t testing.TB, name string) *Derivation {
	t.Helper()
	j := fixturetest.JSON[jsonDerivation](t, "libstore/derivation/"+name+".json")
	d := &Derivation{
		BasicDerivation: BasicDerivation{
			Name: j.Name, Outputs: make(map[string]Output), Platform: j.System, Builder: j.Builder, Env: j.Env,
		},
		InputDrvs: make(map[storepath.Path]*InputOutputs),
	}
	if len(j.Args) > 0 {
		d.Args = j.Args
	}
	for name, o := range j.Outputs {
		d.Outputs[name] = o.output(t)
	}
	var inputs struct {
		Srcs []string
		Drvs map[string]jsonInputs
	}
	into := any(&inputs)
	if bytes.HasPrefix(j.Inputs, []byte("[")) {
		into = &inputs.Srcs
	}
	if err := json.Unmarshal(j.Inputs, into); err != nil {
		t.Fatal(err)
	}
	for _, src := range inputs.Srcs {
		d.InputSrcs = append(d.InputSrcs, base(t, src))
	}
	for drv, in := range inputs.Drvs {
		d.InputDrvs[base(t, drv)] = in.inputs()
	}
	if j.StructuredAttrs != nil {
		attrs, err := parseAttrs(string(j.StructuredAttrs))
		if err != nil {
			t.Fatal(err)
		}
		d.StructuredAttrs = attrs
	}
	return d
}

func goldenATerm(t testing.TB, name string) string {
	t.Helper()
	return fixturetest.Read(t, "libstore/derivation/"+name+".drv")
}

func TestGoldenATerms(t *testing.T) {
	for _, name := range []string{
		"simple-derivation", "dyn-dep-derivation", "hash-modulo/source-first", "hash-modulo/source-second",
		"hash-modulo/intermediate-first", "hash-modulo/intermediate-second", "hash-modulo/parent-joined", "hash-modulo/parent-split",
	} {
		t.Run(name, func(t *testing.T) {
			want, text := goldenDerivation(t, name), goldenATerm(t, name)
			got, err := Parse(dir, text, want.Name, AllFeatures())
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got, comparable...); diff != "" {
				t.Errorf("parsed (-want +got):\n%s", diff)
			}
			if again, err := want.ATerm(dir); again != text || err != nil {
				t.Errorf("written: %s, %v\nwant %s", again, err, text)
			}
		})
	}
}

// Upstream made these of real derivations; as their hashes were blanked their
// lists are not sorted any more, so only the second text reads back the same.
func TestRealATerms(t *testing.T) {
	for _, name := range []string{"hello", "firefox"} {
		text := goldenATerm(t, name)
		d, err := Parse(dir, text, name, Features{})
		if err != nil {
			t.Fatal(err)
		}
		again, err := Parse(dir, mustATerm(t, d), name, Features{})
		if diff := cmp.Diff(d, again, comparable...); diff != "" || err != nil {
			t.Errorf("%s: %v (-want +got):\n%s", name, err, diff)
		}
		if len(mustATerm(t, d)) != len(text) {
			t.Errorf("%s is written in %d bytes, read from %d", name, len(mustATerm(t, d)), len(text))
		}
	}
}

func mustATerm(t testing.TB, d *Derivation) string {
	t.Helper()
	text, err := d.ATerm(dir)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestGoldenBadATerms(t *testing.T) {
	drvPath := base(t, "g1w7hy3qg1w7hy3qg1w7hy3qg1w7hy3q-x.drv")
	const where = "error parsing derivation '/nix/store/g1w7hy3qg1w7hy3qg1w7hy3qg1w7hy3q-x.drv': "
	for name, want := range map[string]string{
		"bad-version":              where + "Unknown derivation ATerm format version 'invalid-version'",
		"bad-old-version-dyn-deps": where + "expected string '['",
	} {
		if _, err := ParseFile(dir, drvPath, goldenATerm(t, name), AllFeatures()); err == nil || err.Error() != want {
			t.Errorf("%s: got %v, want %s", name, err, want)
		}
	}
	const want = "derivation output 'out' has path '/nix/store/c015dhfh5l0lp6wxyvdn7bmwhbbr6hr9-fixed', which does not match its content address"
	if _, err := Parse(dir, goldenATerm(t, "bad-ca-fixed-path"), "fixed", Features{}); err == nil || err.Error() != want {
		t.Errorf("bad-ca-fixed-path: got %v, want %s", err, want)
	}
}

func TestGoldenOutputs(t *testing.T) {
	kinds := map[string]OutputKind{
		"caFixedFlat": FixedCA, "caFixedNAR": FixedCA, "caFixedText": FixedCA, "caFloating": FloatingCA,
		"deferred": Deferred, "impure": Impure, "inputAddressed": InputAddressed,
	}
	for name, kind := range kinds {
		o := fixturetest.JSON[jsonOutput](t, "libstore/derivation/output-"+name+".json").output(t)
		if o.Kind != kind {
			t.Errorf("%s is of kind %d, want %d", name, o.Kind, kind)
		}
		path, algo, hash, err := o.Texts(dir, "drv-name", "output-name")
		if err != nil {
			t.Fatal(err)
		}
		if again, err := ParseOutput(dir, "drv-name", "output-name", path, algo, hash, AllFeatures()); again != o || err != nil {
			t.Errorf("%s: %q %q %q reads as %v, %v", name, path, algo, hash, again, err)
		}
	}
}

// jsonRef gives a path or an output of the derivation itself, or of another
// one, as upstream's JSON of options has it.
func jsonRef(r Ref) any {
	if r.isOutput() {
		return map[string]any{"drvPath": "self", "output": r.Output}
	}
	return jsonSingle(r.Path)
}

func jsonSingle(p SingleDerivedPath) any {
	if p.Drv == nil {
		return p.Path.Base()
	}
	return map[string]any{"drvPath": jsonSingle(*p.Drv), "output": p.Output}
}

func jsonRefs(refs []Ref) []any {
	out := make([]any, 0, len(refs))
	for _, r := range refs {
		out = append(out, jsonRef(r))
	}
	return out
}

func jsonChecks(c OutputChecks) map[string]any {
	out := map[string]any{
		"ignoreSelfRefs": c.IgnoreSelfRefs, "maxSize": c.MaxSize, "maxClosureSize": c.MaxClosureSize,
		"allowedReferences": nil, "allowedRequisites": nil,
		"disallowedReferences": jsonRefs(c.DisallowedReferences), "disallowedRequisites": jsonRefs(c.DisallowedRequisites),
	}
	if c.AllowedReferences != nil {
		out["allowedReferences"] = jsonRefs(c.AllowedReferences)
	}
	if c.AllowedRequisites != nil {
		out["allowedRequisites"] = jsonRefs(c.AllowedRequisites)
	}
	return out
}

// jsonOptions is upstream's JSON of options, as canonical text.
func jsonOptions(t *testing.T, o *Options) string {
	t.Helper()
	checks := map[string]any{}
	if o.AllOutputs != nil {
		checks["forAllOutputs"] = jsonChecks(*o.AllOutputs)
	} else {
		per := map[string]any{}
		for name, c := range o.PerOutput {
			per[name] = jsonChecks(c)
		}
		checks["perOutput"] = per
	}
	graphs := map[string][]any{}
	for name, paths := range o.ExportReferencesGraph {
		graphs[name] = []any{}
		for _, p := range paths {
			graphs[name] = append(graphs[name], jsonSingle(p))
		}
	}
	set := func(s []string) []string { return append([]string{}, s...) }
	discard := map[string]bool{}
	for name, yes := range o.UnsafeDiscardReferences {
		discard[name] = yes
	}
	text, err := json.Marshal(map[string]any{
		"outputChecks": checks, "unsafeDiscardReferences": discard, "passAsFile": set(o.PassAsFile),
		"exportReferencesGraph": graphs, "additionalSandboxProfile": o.SandboxProfile, "noChroot": o.NoChroot,
		"impureHostDeps": set(o.ImpureHostDeps), "impureEnvVars": set(o.ImpureEnvVars),
		"allowLocalNetworking": o.AllowLocalNetworking, "requiredSystemFeatures": set(o.RequiredSystemFeatures),
		"preferLocalBuild": o.PreferLocalBuild, "allowSubstitutes": o.AllowSubstitutes,
	})
	if err != nil {
		t.Fatal(err)
	}
	return fixturetest.Canonical(t, string(text))
}

func TestGoldenOptions(t *testing.T) {
	tests := map[string]string{
		"ia/advanced-attributes":                           "ia/derivation-options/all_set",
		"ia/advanced-attributes-defaults":                  "ia/derivation-options/defaults",
		"ia/advanced-attributes-structured-attrs":          "ia/derivation-options/structuredAttrs_all_set",
		"ia/advanced-attributes-structured-attrs-defaults": "ia/derivation-options/structuredAttrs_defaults",
		"ca/advanced-attributes":                           "ca/derivation-options/all_set",
		"ca/advanced-attributes-defaults":                  "ia/derivation-options/defaults",
		"ca/advanced-attributes-structured-attrs":          "ca/derivation-options/structuredAttrs_all_set",
		"ca/advanced-attributes-structured-attrs-defaults": "ia/derivation-options/structuredAttrs_defaults",
		"try-resolve/export-ref-subpath-before":            "try-resolve/export-ref-subpath-before-options",
		"try-resolve/export-ref-subpath-sa-before":         "try-resolve/export-ref-subpath-sa-before-options",
		"try-resolve/export-ref-subpath-resolved":          "try-resolve/export-ref-subpath-resolved-options",
		"try-resolve/export-ref-subpath-sa-resolved":       "try-resolve/export-ref-subpath-sa-resolved-options",
	}
	for name, options := range tests {
		t.Run(name, func(t *testing.T) {
			d := goldenDerivation(t, name)
			o, warnings, err := d.Options(dir, AllFeatures())
			if err != nil || len(warnings) != 0 {
				t.Fatal(warnings, err)
			}
			want := fixturetest.Canonical(t, fixturetest.Read(t, "libstore/derivation/"+options+".json"))
			if diff := cmp.Diff(want, jsonOptions(t, o)); diff != "" {
				t.Errorf("options (-want +got):\n%s", diff)
			}
			features := []string{"rainbow", "uid-range"}
			if o.RequiredSystemFeatures == nil {
				features = nil
			}
			kind, err := d.Type()
			if err != nil {
				t.Fatal(err)
			}
			if kind.IsCA {
				features = append([]string{"ca-derivations"}, features...)
			}
			if diff := cmp.Diff(features, o.SystemFeatures(kind)); diff != "" {
				t.Errorf("system features (-want +got):\n%s", diff)
			}
		})
	}
}

// Reading the golden JSON and writing it as ATerm keeps everything.
func TestGoldenAttributesReadBack(t *testing.T) {
	for _, name := range []string{
		"ia/advanced-attributes", "ia/advanced-attributes-structured-attrs", "ca/advanced-attributes",
		"ca/advanced-attributes-structured-attrs", "ca/self-contained",
	} {
		want := goldenDerivation(t, name)
		got, err := Parse(dir, mustATerm(t, want), want.Name, AllFeatures())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, comparable...); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestGoldenDerivedPaths(t *testing.T) {
	single := map[string]string{
		"single_opaque":      "/nix/store/g1w7hy3qg1w7hy3qg1w7hy3qg1w7hy3q-foo.drv",
		"single_built":       "/nix/store/g1w7hy3qg1w7hy3qg1w7hy3qg1w7hy3q-foo.drv!bar",
		"single_built_built": "/nix/store/g1w7hy3qg1w7hy3qg1w7hy3qg1w7hy3q-foo.drv!bar!baz",
	}
	for name, text := range single {
		p, err := ParseSingleDerivedPath(dir, text, SeparatorWire, AllFeatures())
		if err != nil {
			t.Fatal(err)
		}
		if want := fixturetest.JSON[any](t, "libstore/derived-path/"+name+".json"); cmp.Diff(want, jsonSingle(p)) != "" {
			t.Errorf("%s: got %v, want %v", name, jsonSingle(p), want)
		}
	}
	multi := map[string]string{
		"multi_opaque":               "/nix/store/g1w7hy3qg1w7hy3qg1w7hy3qg1w7hy3q-foo.drv",
		"mutli_built":                "/nix/store/g1w7hy3qg1w7hy3qg1w7hy3qg1w7hy3q-foo.drv^bar,baz",
		"multi_built_built":          "/nix/store/g1w7hy3qg1w7hy3qg1w7hy3qg1w7hy3q-foo.drv^bar^baz,quux",
		"multi_built_built_wildcard": "/nix/store/g1w7hy3qg1w7hy3qg1w7hy3qg1w7hy3q-foo.drv^bar^*",
	}
	for name, text := range multi {
		p, err := ParseDerivedPath(dir, text, SeparatorCLI, AllFeatures())
		if err != nil {
			t.Fatal(err)
		}
		got := any(p.Path.Base())
		if p.Drv != nil {
			got = map[string]any{"drvPath": jsonSingle(*p.Drv), "outputs": jsonSpec(p.Outputs)}
		}
		if want := fixturetest.JSON[any](t, "libstore/derived-path/"+name+".json"); cmp.Diff(want, got) != "" {
			t.Errorf("%s: got %v, want %v", name, got, want)
		}
	}
}

func jsonSpec(s OutputsSpec) any {
	names := s.Names
	if s.All {
		names = []string{"*"}
	}
	out := make([]any, 0, len(names))
	for _, name := range names {
		out = append(out, name)
	}
	return out
}

func TestGoldenOutputsSpecs(t *testing.T) {
	for name, text := range map[string]string{"all": "*", "name": "a", "names": "a,b", "extended/all": "*", "extended/name": "a", "extended/names": "b,a"} {
		s, err := ParseOutputsSpec(text)
		if err != nil {
			t.Fatal(err)
		}
		if want := fixturetest.JSON[any](t, "libstore/outputs-spec/"+name+".json"); cmp.Diff(want, jsonSpec(s)) != "" {
			t.Errorf("%s: got %v, want %v", name, s, want)
		}
	}
}

func TestGoldenBuildResults(t *testing.T) {
	type golden struct {
		Status  string
		Success bool
	}
	for name, want := range map[string]BuildStatus{
		"not-deterministic": StatusNotDeterministic, "output-rejected": StatusOutputRejected, "success": StatusBuilt,
	} {
		got := fixturetest.JSON[golden](t, "libstore/build-result/"+name+".json")
		if got.Status != want.String() || got.Success != want.Success() {
			t.Errorf("%s: %v, want %v (%t)", name, got, want, want.Success())
		}
	}
}
