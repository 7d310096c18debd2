package derivation

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/storepath"
)

// drvStore is a store of derivations in memory; it counts what is read.
type drvStore struct {
	drvs  map[storepath.Path]*Derivation
	reads int
}

func newStore(t testing.TB, drvs ...*Derivation) *drvStore {
	t.Helper()
	s := &drvStore{drvs: make(map[storepath.Path]*Derivation)}
	for _, d := range drvs {
		p, err := d.Path(dir)
		if err != nil {
			t.Fatal(err)
		}
		s.drvs[p] = d
	}
	return s
}

func (s *drvStore) load(_ context.Context, p storepath.Path) (*Derivation, error) {
	s.reads++
	if d, ok := s.drvs[p]; ok {
		return d, nil
	}
	return nil, fmt.Errorf("path '%s' is not valid", dir.Print(p))
}

func (s *drvStore) hasher() *Hasher { return &Hasher{Dir: dir, Load: s.load, Memo: NewMemo(100)} }

func TestGoldenHashModulo(t *testing.T) {
	const at = "hash-modulo/"
	var drvs []*Derivation
	for _, name := range []string{"source-first", "source-second", "intermediate-first", "intermediate-second"} {
		drvs = append(drvs, goldenDerivation(t, at+name))
	}
	s := newStore(t, drvs...)
	h := s.hasher()
	for _, name := range []string{"intermediate-first", "intermediate-second", "parent-joined", "parent-split"} {
		d := goldenDerivation(t, at+name)
		m, err := h.Modulo(t.Context(), d, true)
		if err != nil {
			t.Fatal(err)
		}
		want := nixhash.Of(nixhash.SHA256, goldenATerm(t, at+name+"-modulo"))
		for output, got := range m.Outputs {
			if got != want {
				t.Errorf("%s, output %s: hash modulo %v, want %v", name, output, got, want)
			}
		}
		if m.Deferred || len(m.Outputs) != len(d.Outputs) {
			t.Errorf("%s: %v", name, m)
		}
	}
	if s.reads != len(drvs) {
		t.Errorf("%d derivations were read, want %d: the memo is not used", s.reads, len(drvs))
	}
}

// Output paths that upstream computed are found again.
func TestGoldenOutputPaths(t *testing.T) {
	for _, name := range []string{
		"ia/advanced-attributes-defaults", "ia/advanced-attributes-structured-attrs-defaults", "invariants/filled-in-idempotent",
	} {
		d := goldenDerivation(t, name)
		p, err := d.Path(dir)
		if err != nil {
			t.Fatal(err)
		}
		if warnings, err := newStore(t).hasher().CheckInvariants(t.Context(), d, p); err != nil || len(warnings) != 0 {
			t.Errorf("%s: %v, %v", name, warnings, err)
		}
	}
}

func TestGoldenFillOutputPaths(t *testing.T) {
	for pre, post := range map[string]string{
		"filled-in-deferred-empty-env-var-pre": "filled-in-deferred-empty-env-var-post",
		"filled-in-deferred-no-env-var-pre":    "filled-in-deferred-no-env-var-post",
		"filled-in-idempotent":                 "filled-in-idempotent",
	} {
		d := goldenDerivation(t, "invariants/"+pre)
		if err := newStore(t).hasher().FillOutputPaths(t.Context(), d); err != nil {
			t.Fatalf("%s: %v", pre, err)
		}
		if diff := cmp.Diff(goldenDerivation(t, "invariants/"+post), d, comparable...); diff != "" {
			t.Errorf("%s (-want +got):\n%s", pre, diff)
		}
	}
}

// floating is the dependency of upstream's tests of invariants.
func floating(name string) *Derivation {
	return &Derivation{BasicDerivation: BasicDerivation{
		Name: name, Platform: "x86_64-linux", Builder: "/bin/sh", Env: map[string]string{"out": ""},
		Outputs: map[string]Output{"out": {Kind: FloatingCA, Method: storepath.MethodNAR, Algo: nixhash.SHA256}},
	}}
}

func TestGoldenBadInvariants(t *testing.T) {
	const wrong = "/nix/store/c015dhfh5l0lp6wxyvdn7bmwhbbr6hr9-wrong-name"
	h := newStore(t, floating("dependency")).hasher()
	d := goldenDerivation(t, "invariants/depends-on-drv-pre")
	if err := h.FillOutputPaths(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(goldenDerivation(t, "invariants/depends-on-drv-pre"), d, comparable...); diff != "" {
		t.Errorf("a deferred output below a floating one was filled in:\n%s", diff)
	}
	for name, want := range map[string]string{
		"bad-path":               "derivation has incorrect output '" + wrong + "', should be '%s'",
		"bad-env-var":            "derivation has incorrect environment variable 'out', should be '%s' but is actually '" + wrong + "'",
		"bad-depends-on-drv-pre": "derivation has incorrect output '" + wrong + "', should be deferred",
	} {
		d := goldenDerivation(t, "invariants/"+name)
		correct := goldenDerivation(t, "invariants/"+name)
		correct.Outputs["out"] = Output{Kind: Deferred}
		correct.Env["out"] = ""
		if err := h.FillOutputPaths(t.Context(), correct); err != nil {
			t.Fatal(err)
		}
		want = strings.ReplaceAll(want, "%s", correct.Env["out"])
		p, err := d.Path(dir)
		if err != nil {
			t.Fatal(err)
		}
		_, err = h.CheckInvariants(t.Context(), d, p)
		trace := (*TraceError)(nil)
		if !errors.As(err, &trace) || trace.Trace != "while checking derivation '"+dir.Print(p)+"'" {
			t.Fatalf("%s: %v", name, err)
		}
		if err.Error() != want {
			t.Errorf("%s: got %s, want %s", name, err, want)
		}
	}
}

func TestInvariants(t *testing.T) {
	fixed := func(env map[string]string) *Derivation {
		return &Derivation{BasicDerivation: BasicDerivation{Name: "x", Env: env, Outputs: map[string]Output{
			"out": {Kind: FixedCA, CA: storepath.ContentAddress{Method: storepath.MethodFlat, Hash: nixhash.Of(nixhash.SHA256, "x")}},
		}}}
	}
	deferred := &Derivation{BasicDerivation: BasicDerivation{Name: "x", Env: map[string]string{"out": ""}, Outputs: map[string]Output{"out": {Kind: Deferred}}}}
	filled := deferred.ToBasic(nil)
	if err := newStore(t).hasher().FillOutputPaths(t.Context(), &Derivation{BasicDerivation: *filled}); err != nil {
		t.Fatal(err)
	}
	right := filled.Env["out"]
	unfilled := deferred.ToBasic(nil)
	unfilled.Env["out"] = right
	// The path of flat "x" with the name "x" is that of nix-store --print-fixed-path.
	const path = "/nix/store/prmfd0ax3s09yxyl9j2z0c5x6zsbz1px-x"
	tests := []struct {
		name     string
		d        *Derivation
		warnings []string
		err      string
	}{
		{"fixed", fixed(map[string]string{"out": path}), nil, ""},
		{"fixed without variable", fixed(map[string]string{}), nil,
			"derivation has missing environment variable 'out', should be '" + path + "' but is not present"},
		{"fixed with another", fixed(map[string]string{"out": "/x"}), nil,
			"derivation has incorrect environment variable 'out', should be '" + path + "' but is actually '/x'"},
		{"floating", floating("x"), nil, ""},
		{"input-addressed", &Derivation{BasicDerivation: *filled}, nil, ""},
		{"deferred without need", &Derivation{BasicDerivation: *unfilled}, []string{"derivation has incorrect deferred output, should be '" + right +
			"'.\nThis will be an error in future versions of Nix; compatibility of CA derivations will be broken."}, ""},
		{"no outputs", &Derivation{BasicDerivation: BasicDerivation{Name: "x"}}, nil, "must have at least one output"},
	}
	drvPath := base(t, "g1w7hy3qg1w7hy3qg1w7hy3qg1w7hy3q-x.drv")
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			warnings, err := newStore(t).hasher().CheckInvariants(t.Context(), tt.d, drvPath)
			if got := fmt.Sprint(err); got != tt.err && (err != nil || tt.err != "") {
				t.Errorf("got %v\nwant %s", err, tt.err)
			}
			if diff := cmp.Diff(tt.warnings, warnings); diff != "" {
				t.Errorf("warnings (-want +got):\n%s", diff)
			}
		})
	}
	_, err := newStore(t).hasher().CheckInvariants(t.Context(), floating("y"), drvPath)
	if want := "derivation '" + dir.Print(drvPath) + "' has name 'y' which does not match its path"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestModuloErrors(t *testing.T) {
	dep := floating("dep")
	p, err := dep.Path(dir)
	if err != nil {
		t.Fatal(err)
	}
	user := floating("user")
	user.InputDrvs = map[storepath.Path]*InputOutputs{p: {Outputs: []string{"lib"}}}
	h := newStore(t, dep).hasher()
	if _, err := h.Modulo(t.Context(), user, true); err == nil || err.Error() != "no hash for output 'lib' of derivation 'user'" {
		t.Errorf("got %v", err)
	}
	if _, err := newStore(t).hasher().Modulo(t.Context(), user, true); err == nil || err.Error() != "path '"+dir.Print(p)+"' is not valid" {
		t.Errorf("got %v", err)
	}
	if _, err := (&Hasher{Dir: dir}).Modulo(t.Context(), user, true); err == nil {
		t.Error("inputs were hashed without a store")
	}
	// A store that was tampered with could say that a derivation needs itself.
	looped := floating("dep")
	looped.InputDrvs = map[storepath.Path]*InputOutputs{p: {Outputs: []string{"out"}}}
	h = (&drvStore{drvs: map[storepath.Path]*Derivation{p: looped}}).hasher()
	if _, err := h.Modulo(t.Context(), user, true); err == nil || err.Error() != "cycle detected in the inputs of derivation '"+dir.Print(p)+"'" {
		t.Errorf("got %v", err)
	}
}

func TestMemoIsBounded(t *testing.T) {
	m := NewMemo(2)
	paths := []string{"a", "b", "c"}
	for _, name := range paths {
		m.put(base(t, "g1w7hy3qg1w7hy3qg1w7hy3qg1w7hy3q-"+name), Modulo{})
	}
	if len(m.known) > 2 {
		t.Errorf("the memo holds %d hashes, want at most 2", len(m.known))
	}
	if _, ok := m.get(base(t, "g1w7hy3qg1w7hy3qg1w7hy3qg1w7hy3q-c")); !ok {
		t.Error("the last one was forgotten")
	}
}

func TestStaticOutputHashes(t *testing.T) {
	d := floating("x")
	hashes, err := newStore(t).hasher().StaticOutputHashes(t.Context(), d)
	text, _ := d.Unparse(dir, true, map[string]*InputOutputs{})
	if want := nixhash.Of(nixhash.SHA256, text); hashes["out"] != want || err != nil {
		t.Errorf("got %v, %v, want %v", hashes, err, want)
	}
}

// ladder is a store of derivations in layers of two, each of which needs both of the layer below: the ways through it
// double with every layer. It gives the last one, too.
func ladder(t testing.TB, layers int) (*drvStore, *Derivation) {
	t.Helper()
	s := newStore(t)
	inputs := map[storepath.Path]*InputOutputs{}
	var d *Derivation
	for i := range layers {
		next := map[storepath.Path]*InputOutputs{}
		for _, side := range []string{"a", "b"} {
			d = &Derivation{BasicDerivation: BasicDerivation{
				Name: fmt.Sprintf("%s%d", side, i), Platform: "x", Builder: "y",
				Outputs: map[string]Output{"out": {Kind: Deferred}},
			}, InputDrvs: inputs}
			p, err := d.Path(dir)
			if err != nil {
				t.Fatal(err)
			}
			s.drvs[p] = d
			next[p] = &InputOutputs{Outputs: []string{"out"}}
		}
		inputs = next
	}
	return s, d
}

// A memo that is too small for the inputs costs one pass over them, not one for each way through them.
func TestModuloWithForgetfulMemo(t *testing.T) {
	s, d := ladder(t, 60)
	h := &Hasher{Dir: dir, Load: s.load, Memo: NewMemo(10)}
	m, err := h.Modulo(t.Context(), d, true)
	if err != nil {
		t.Fatal(err)
	}
	if s.reads > len(s.drvs) {
		t.Errorf("%d derivations were read of %d", s.reads, len(s.drvs))
	}
	want, err := (&Hasher{Dir: dir, Load: s.load, Memo: NewMemo(1000)}).Modulo(t.Context(), d, true)
	if err != nil || m.Outputs["out"] != want.Outputs["out"] {
		t.Errorf("hash modulo %v, with a large memo %v (%v)", m, want, err)
	}
}

// The stack does not grow with the length of a chain of inputs, which clients decide on: overflow ends the process.
func TestModuloOfLongChain(t *testing.T) {
	const limit = 4 << 20
	defer debug.SetMaxStack(debug.SetMaxStack(limit))
	s, d := ladder(t, 10_000)
	if _, err := s.hasher().Modulo(t.Context(), d, true); err != nil {
		t.Fatal(err)
	}
}

func TestModuloEndsWithContext(t *testing.T) {
	s, d := ladder(t, 3)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.hasher().Modulo(ctx, d, true); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}
