package derivation

import (
	"context"
	"encoding/json"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nixdaemon/protocol/internal/fixturetest"
	"nixdaemon/protocol/storepath"
)

// trace knows what outputs became, by derived path.
type trace map[string]storepath.Path

func (tr trace) query(_ context.Context, drv SingleDerivedPath, output string) (storepath.Path, error) {
	return tr[SingleDerivedPath{Drv: &drv, Output: output}.Format(dir, SeparatorWire)], nil
}

func goldenTrace(t *testing.T, name string) trace {
	t.Helper()
	tr := trace{}
	for _, pair := range fixturetest.JSON[[][2]json.RawMessage](t, "libstore/derivation/try-resolve/"+name+"-buildTrace.json") {
		var key struct{ DrvPath, Output string }
		var out string
		if err := errors.Join(json.Unmarshal(pair[0], &key), json.Unmarshal(pair[1], &out)); err != nil {
			t.Fatal(err)
		}
		tr["/nix/store/"+key.DrvPath+"!"+key.Output] = base(t, out)
	}
	return tr
}

func TestGoldenTryResolve(t *testing.T) {
	for name, after := range map[string]string{
		"no-inputs": "no-inputs-after", "with-inputs": "with-inputs-after", "resolution-failure": "",
		"export-ref-subpath": "export-ref-subpath-resolved", "export-ref-subpath-sa": "export-ref-subpath-sa-resolved",
	} {
		t.Run(name, func(t *testing.T) {
			d := goldenDerivation(t, "try-resolve/"+name+"-before")
			before := goldenDerivation(t, "try-resolve/"+name+"-before")
			got, err := d.TryResolve(t.Context(), dir, AllFeatures(), goldenTrace(t, name).query)
			if err != nil {
				t.Fatal(err)
			}
			var want *BasicDerivation
			if after != "" {
				want = &goldenDerivation(t, "try-resolve/"+after).BasicDerivation
			}
			if diff := cmp.Diff(want, got, comparable...); diff != "" {
				t.Errorf("resolved (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(before, d, comparable...); diff != "" {
				t.Errorf("resolving changed the derivation:\n%s", diff)
			}
		})
	}
}

func TestTryResolveDynamic(t *testing.T) {
	drv := base(t, "g1w7hy3qg1w7hy3qg1w7hy3qg1w7hy3q-dyn.drv")
	inner := SingleDerivedPath{Drv: &SingleDerivedPath{Drv: &SingleDerivedPath{Path: drv}, Output: "out"}, Output: "lib"}
	d := floating("user")
	d.InputDrvs = map[storepath.Path]*InputOutputs{drv: {Dynamic: map[string]*InputOutputs{"out": {Outputs: []string{"lib"}}}}}
	d.Env["dep"] = inner.Placeholder().String() + "/lib"
	made := base(t, "f1w7hy3qg1w7hy3qg1w7hy3qg1w7hy3q-lib")
	tr := trace{dir.Print(drv) + "!out!lib": made}
	got, err := d.TryResolve(t.Context(), dir, AllFeatures(), tr.query)
	if err != nil || got == nil || got.Env["dep"] != dir.Print(made)+"/lib" || !storepath.Contains(got.InputSrcs, made) {
		t.Errorf("got %v, %v", got, err)
	}
	if got, err := d.TryResolve(t.Context(), dir, AllFeatures(), trace{}.query); got != nil || err != nil {
		t.Errorf("unknown output: got %v, %v", got, err)
	}
	failing := func(context.Context, SingleDerivedPath, string) (storepath.Path, error) {
		return storepath.Path{}, context.Canceled
	}
	if _, err := d.TryResolve(t.Context(), dir, AllFeatures(), failing); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if got, err := d.TryResolve(t.Context(), dir, Features{}, tr.query); err != nil || got.Env["dep"] != d.Env["dep"] {
		t.Errorf("without ca-derivations: got %v, %v", got, err)
	}
}

func TestTryResolveFillsDeferredOutputs(t *testing.T) {
	drv := base(t, "g1w7hy3qg1w7hy3qg1w7hy3qg1w7hy3q-dep.drv")
	made := base(t, "f1w7hy3qg1w7hy3qg1w7hy3qg1w7hy3q-dep")
	d := &Derivation{
		BasicDerivation: BasicDerivation{
			Name: "x", Outputs: map[string]Output{"out": {Kind: Deferred}},
			Env: map[string]string{"out": "", "dep": OutputPlaceholder(drv, "out").String()},
		},
		InputDrvs: map[storepath.Path]*InputOutputs{drv: {Outputs: []string{"out"}}},
	}
	got, err := d.TryResolve(t.Context(), dir, AllFeatures(), trace{dir.Print(drv) + "!out": made}.query)
	if err != nil {
		t.Fatal(err)
	}
	if o := got.Outputs["out"]; o.Kind != InputAddressed || got.Env["out"] != dir.Print(o.Path) {
		t.Errorf("got %v", got)
	}
	p, err := (&Derivation{BasicDerivation: *got}).Path(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (&Hasher{Dir: dir}).CheckInvariants(t.Context(), &Derivation{BasicDerivation: *got}, p); err != nil {
		t.Errorf("the resolved derivation is not what it should be: %v", err)
	}
}

func TestShouldResolve(t *testing.T) {
	drv := base(t, "g1w7hy3qg1w7hy3qg1w7hy3qg1w7hy3q-dep.drv")
	plain := map[storepath.Path]*InputOutputs{drv: {Outputs: []string{"out"}}}
	dynamic := map[storepath.Path]*InputOutputs{drv: {Dynamic: map[string]*InputOutputs{"out": {Outputs: []string{"out"}}}}}
	tests := []struct {
		name   string
		kind   OutputKind
		inputs map[storepath.Path]*InputOutputs
		f      Features
		want   bool
	}{
		{"no inputs", FloatingCA, nil, AllFeatures(), false},
		{"floating", FloatingCA, plain, Features{}, true},
		{"impure", Impure, plain, Features{}, true},
		{"deferred", Deferred, plain, Features{}, true},
		{"input-addressed", InputAddressed, plain, AllFeatures(), false},
		{"input-addressed, dynamic", InputAddressed, dynamic, AllFeatures(), true},
		{"fixed", FixedCA, plain, Features{}, false},
		{"fixed, ca-derivations", FixedCA, plain, Features{CADerivations: true}, true},
	}
	for _, tt := range tests {
		d := &Derivation{BasicDerivation: BasicDerivation{Outputs: map[string]Output{"out": {Kind: tt.kind}}}, InputDrvs: tt.inputs}
		if got, err := d.ShouldResolve(tt.f); got != tt.want || err != nil {
			t.Errorf("%s: got %t, %v", tt.name, got, err)
		}
	}
	if _, err := (&Derivation{InputDrvs: plain}).ShouldResolve(Features{}); err == nil {
		t.Error("a derivation without outputs has a type")
	}
}

func TestPlaceholders(t *testing.T) {
	// Both occur in upstream's golden files.
	if got := HashPlaceholder("out"); got != "/1rz4g4znpzjwh1xymhjpm42vipw92pr73vdgl6xs1hycac8kf2n9" {
		t.Errorf("own output: %s", got)
	}
	foo := base(t, "j56sf12rxpcv5swr14vsjn5cwm6bj03h-foo.drv")
	if got := OutputPlaceholder(foo, "dev").String(); got != "/0nr45p69vn6izw9446wsh9bng9nndhvn19kpsm4n96a5mycw0s4z" {
		t.Errorf("output of an input: %s", got)
	}
	// From upstream's unit tests of placeholders.
	drv := base(t, "g1w7hy3qg1w7hy3qg1w7hy3qg1w7hy3q-foo.drv.drv")
	if got := OutputPlaceholder(drv, "out").Output("out").String(); got != "/0gn6agqxjyyalf0dpihgyf49xq5hqxgw100f0wydnj6yqrhqsb3w" {
		t.Errorf("output of a dynamic input: %s", got)
	}
}

func TestApplyRewrites(t *testing.T) {
	attrs := `{"k":"A"}`
	d := &BasicDerivation{Builder: "A", Args: []string{"xA", "B"}, Env: map[string]string{"A": "1", "B": "A B"}, StructuredAttrs: &attrs}
	if err := d.ApplyRewrites(map[string]string{"A": "B", "B": "C"}); err != nil {
		t.Fatal(err)
	}
	after := `{"k":"B"}`
	want := &BasicDerivation{Builder: "B", Args: []string{"xB", "C"}, Env: map[string]string{"B": "1", "C": "B C"}, StructuredAttrs: &after}
	if diff := cmp.Diff(want, d, comparable...); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if err := d.ApplyRewrites(map[string]string{"B": `"`}); err == nil {
		t.Error("attributes that are no JSON any more are accepted")
	}
}

func TestToBasic(t *testing.T) {
	a, b := base(t, "a1w7hy3qg1w7hy3qg1w7hy3qg1w7hy3q-a"), base(t, "b1w7hy3qg1w7hy3qg1w7hy3qg1w7hy3q-b")
	d := floating("x")
	d.InputSrcs = []storepath.Path{b}
	got := d.ToBasic([]storepath.Path{b, a})
	got.Env["new"] = ""
	got.Outputs["new"] = Output{}
	if diff := cmp.Diff([]storepath.Path{a, b}, got.InputSrcs, comparable...); diff != "" || len(d.Env) != 1 || len(d.Outputs) != 1 || len(d.InputSrcs) != 1 {
		t.Errorf("%s\n%v", diff, d)
	}
}
