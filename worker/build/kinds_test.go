package build

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker/settings"
)

// newKindsWorld is a world in which every kind of derivation is allowed.
func newKindsWorld(t testing.TB, change ...func(*Options)) *world {
	w := newWorld(t, change...)
	w.set(func(s *settings.Settings) {
		s.ExperimentalFeatures = settings.Features(settings.NixCommand, settings.CADerivations, settings.DynamicDerivations,
			settings.ImpureDerivations, settings.GitHashing, settings.BLAKE3Hashes)
	})
	return w
}

// madeOf gives a derivation outputs that are named after their contents, or, as Impure, new ones each time.
func madeOf(kind derivation.OutputKind, method storepath.Method, algo nixhash.Algo, names ...string) func(*derivation.Derivation) {
	return func(d *derivation.Derivation) {
		for _, name := range append([]string{"out"}, names...) {
			d.Outputs[name] = derivation.Output{Kind: kind, Method: method, Algo: algo}
			d.Env[name] = derivation.HashPlaceholder(name)
		}
	}
}

var floatingNAR = madeOf(derivation.FloatingCA, storepath.MethodNAR, nixhash.SHA256)

// uses names the output of another derivation, which is not known yet, in the variable "in".
func uses(drv storepath.Path) func(*derivation.Derivation) {
	return func(d *derivation.Derivation) {
		d.InputDrvs[drv] = &derivation.InputOutputs{Outputs: []string{"out"}}
		d.Env["in"] = derivation.OutputPlaceholder(drv, "out").String()
	}
}

// TestHashMethods builds a floating output of each method and algorithm, then the fixed output of the same hash by
// another derivation, which is there already, and one of another hash, which is wrong.
func TestHashMethods(t *testing.T) {
	w := newKindsWorld(t)
	all := []nixhash.Algo{nixhash.MD5, nixhash.SHA1, nixhash.SHA256, nixhash.SHA512, nixhash.BLAKE3}
	const file, tree = "echo hello > $out", "mkdir $out; echo hello > $out/file; echo x > $out/x; chmod +x $out/x; ln -s file $out/link"
	for _, tt := range []struct {
		method storepath.Method
		algos  []nixhash.Algo
		script string
	}{
		{storepath.MethodFlat, all, file},
		{storepath.MethodNAR, all, tree},
		{storepath.MethodText, []nixhash.Algo{nixhash.SHA256}, file},
		{storepath.MethodGit, []nixhash.Algo{nixhash.SHA1, nixhash.SHA256}, tree},
	} {
		for _, algo := range tt.algos {
			t.Run(fmt.Sprintf("%s%s", tt.method.Prefix(), algo), func(t *testing.T) {
				name := fmt.Sprintf("m%d-%s", tt.method, algo)
				floating := w.mustBuild(w.drv(name, tt.script, madeOf(derivation.FloatingCA, tt.method, algo)))
				info, err := w.store.PathInfo(w.ctx, floating)
				if err != nil || info.CA.Method != tt.method || info.CA.Hash.Algo() != algo || !info.IsContentAddressed(w.store.Dir()) {
					t.Fatalf("info %+v, %v", info, err)
				}
				fixedTo := func(h nixhash.Hash) func(*derivation.Derivation) {
					return func(d *derivation.Derivation) {
						d.Outputs["out"] = derivation.Output{Kind: derivation.FixedCA, CA: storepath.ContentAddress{Method: tt.method, Hash: h}}
					}
				}
				res := w.build(w.drv(name, "exit 1", fixedTo(info.CA.Hash)))
				if res.Status != derivation.StatusAlreadyValid || res.BuiltOutputs["out"].OutPath != floating {
					t.Errorf("fixed to the same: %+v", res)
				}
				other := nixhash.Of(algo, "something else")
				text := w.mustFail(w.drv(name, tt.script, fixedTo(other)), derivation.StatusOutputRejected)
				if want := "\n  specified: " + other.SRI() + "\n     got:    " + info.CA.Hash.SRI(); !strings.HasSuffix(text, want) {
					t.Errorf("fixed to another: %q, want it to end in %q", text, want)
				}
			})
		}
	}
}

// TestGitKnown pins what git itself says.
func TestGitKnown(t *testing.T) {
	w := newKindsWorld(t)
	out := w.mustBuild(w.drv("blob", "echo hello > $out", madeOf(derivation.FloatingCA, storepath.MethodGit, nixhash.SHA1)))
	info, err := w.store.PathInfo(w.ctx, out)
	if err != nil || info.CA.Hash.Base16() != "ce013625030ba8dba906f756967f9e9ca394464a" {
		t.Errorf("info %+v, %v", info, err)
	}
}

// TestEarlyCutoff changes a derivation without changing what it makes: what depends on it is not built again.
func TestEarlyCutoff(t *testing.T) {
	w := newKindsWorld(t)
	ran := w.root + "/ran"
	build := func(n int) derivation.BuildResult {
		below := w.drv("below", fmt.Sprintf(": %d; echo same > $out", n), floatingNAR)
		return w.build(w.drv("above", "echo ran >> "+ran+"; cat $in > $out", floatingNAR, uses(below)))
	}
	first := build(1)
	if first.Status != derivation.StatusBuilt {
		t.Fatalf("first: %+v", first)
	}
	second := build(2)
	if second.Status != derivation.StatusResolvesToAlreadyValid || second.BuiltOutputs["out"].OutPath != first.BuiltOutputs["out"].OutPath {
		t.Errorf("second: %+v, first %+v", second, first)
	}
	if got := w.readFile(ran); got != "ran\n" {
		t.Errorf("ran %q", got)
	}
	if id := second.BuiltOutputs["out"].ID; id == first.BuiltOutputs["out"].ID {
		t.Error("the two derivations have one realisation")
	}
}

// TestDeferred builds an input-addressed derivation whose path depends on what its input becomes.
func TestDeferred(t *testing.T) {
	w := newKindsWorld(t)
	below := w.drv("below", "echo below > $out", floatingNAR)
	drv := w.drv("deferred", "cat $in > $out; echo $out >> $out", uses(below), func(d *derivation.Derivation) {
		d.Env["out"] = derivation.HashPlaceholder("out")
	})
	res := w.build(drv)
	out := res.BuiltOutputs["out"].OutPath
	if res.Status != derivation.StatusBuilt || w.read(out) != "below\n"+w.print(out)+"\n" {
		t.Fatalf("result %+v", res)
	}
	info, err := w.store.PathInfo(w.ctx, out)
	if err != nil || !info.CA.IsZero() {
		t.Errorf("info %+v, %v", info, err)
	}
	if got := w.out(drv, "out"); !got.IsZero() && got != out {
		t.Errorf("output map says %s", got)
	}
}

// TestOutputsOfOneBuild lets content-addressed outputs refer to each other in one direction, and in a circle.
func TestOutputsOfOneBuild(t *testing.T) {
	w := newKindsWorld(t)
	two := madeOf(derivation.FloatingCA, storepath.MethodNAR, nixhash.SHA256, "dev")
	res := w.build(w.drv("two", "echo out $out > $out; echo dev $out $dev > $dev", two))
	out, dev := res.BuiltOutputs["out"].OutPath, res.BuiltOutputs["dev"].OutPath
	if res.Status != derivation.StatusBuilt || w.read(dev) != "dev "+w.print(out)+" "+w.print(dev)+"\n" {
		t.Fatalf("result %+v", res)
	}
	info, err := w.store.PathInfo(w.ctx, dev)
	if err != nil || !slices.Equal(info.References, storepath.SortUnique([]storepath.Path{out, dev})) {
		t.Errorf("info %+v, %v", info, err)
	}
	drv := w.drv("loop", "echo $dev > $out; echo $out > $dev", two)
	text := w.mustFail(drv, derivation.StatusOutputRejected)
	if !strings.HasPrefix(text, "cycle detected in build of '"+w.print(drv)+"' in the references of output ") {
		t.Errorf("got %q", text)
	}
}

// TestCheckContentAddressed builds again what has no name before it is built.
func TestCheckContentAddressed(t *testing.T) {
	w := newKindsWorld(t)
	same := w.drv("same", "echo $out > $out", floatingNAR)
	w.mustBuild(same)
	if res := w.buildMode(same, derivation.BuildCheck); res.Status != derivation.StatusBuilt {
		t.Errorf("same: %+v", res)
	}
	left, err := filepath.Glob(w.root + "/store/*-same")
	if err != nil || len(left) != 1 {
		t.Errorf("in the store: %v, %v", left, err)
	}
}

func TestImpure(t *testing.T) {
	w := newKindsWorld(t)
	counter := w.root + "/counter"
	impure := madeOf(derivation.Impure, storepath.MethodNAR, nixhash.SHA256)
	drv := w.drv("impure", "echo x >> "+counter+"; wc -l < "+counter+" > $out", impure)
	above := w.drv("above", "cat $in > $out", impure, uses(drv))
	for _, want := range []string{"1\n", "2\n"} {
		if got := w.read(w.mustBuild(above)); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	// A fixed output may depend on it, as nothing else may.
	if got := w.read(w.mustBuild(w.drv("fixed", "test -e $in; printf content > $out", fixed(storepath.MethodFlat, "content"), uses(drv)))); got != "content" {
		t.Errorf("fixed output %q", got)
	}
	pure := w.drv("pure", "cat $in > $out", floatingNAR, uses(drv))
	err := w.sched.BuildPaths(w.ctx, w.sess, []derivation.DerivedPath{built(pure)}, derivation.BuildNormal)
	want := "pure derivation '" + w.print(pure) + "' depends on impure derivation '" + w.print(drv) + "'"
	if err == nil || withoutColours(Coloured(err)) != want {
		t.Errorf("pure derivation: %v, want %s", err, want)
	}
	if id := w.build(drv).BuiltOutputs["out"].ID; !id.DrvHash.IsZero() {
		if real, err := w.store.QueryRealisation(w.ctx, id); real != nil || err != nil {
			t.Errorf("realisation %+v, %v", real, err)
		}
	}
}

// TestDynamic builds a derivation that another one makes, asked for directly and as an input.
func TestDynamic(t *testing.T) {
	w := newKindsWorld(t)
	inner := w.drv("inner", "echo inner > $out", floatingNAR)
	text := madeOf(derivation.FloatingCA, storepath.MethodText, nixhash.SHA256)
	maker := w.drv("inner.drv", "cat "+w.print(inner)+" > $out", text, func(d *derivation.Derivation) { d.InputSrcs = []storepath.Path{inner} })
	made := derivation.SingleDerivedPath{Drv: &derivation.SingleDerivedPath{Path: maker}, Output: "out"}
	ask := derivation.DerivedPath{Drv: &made, Outputs: derivation.OutputsSpec{Names: []string{"out"}}}
	results, err := w.sched.BuildPathsWithResults(w.ctx, w.sess, []derivation.DerivedPath{ask}, derivation.BuildNormal)
	if err != nil || len(results) != 1 || results[0].Status != derivation.StatusBuilt || w.read(results[0].BuiltOutputs["out"].OutPath) != "inner\n" {
		t.Fatalf("results %+v, %v", results, err)
	}
	warning := "Ignoring dynamic derivation " + w.print(maker) + "^out while querying missing paths; not yet implemented"
	if n := strings.Count(withoutColours(w.log.logged()), warning); n != 1 {
		t.Errorf("%d warnings in %q", n, w.log.logged())
	}

	above := w.drv("above", "cat $in > $out", floatingNAR, func(d *derivation.Derivation) {
		d.InputDrvs[maker] = &derivation.InputOutputs{Dynamic: map[string]*derivation.InputOutputs{"out": {Outputs: []string{"out"}}}}
		d.Env["in"] = derivation.OutputPlaceholder(maker, "out").Output("out").String()
	})
	if got := w.read(w.mustBuild(above)); got != "inner\n" {
		t.Errorf("as an input: %q", got)
	}

	failing := w.drv("failing.drv", "exit 3", text)
	made.Drv = &derivation.SingleDerivedPath{Path: failing}
	results, err = w.sched.BuildPathsWithResults(w.ctx, w.sess, []derivation.DerivedPath{ask}, derivation.BuildNormal)
	want := "failed to obtain derivation of '" + w.print(failing) + "^out'"
	if err != nil || len(results) != 1 || results[0].Status != derivation.StatusDependencyFailed || withoutColours(results[0].ErrorMsg) != want {
		t.Errorf("failing: %+v, %v, want %s", results, err, want)
	}
}

// TestKindsNeedTheirFeatures asks for each kind without its experimental feature.
func TestKindsNeedTheirFeatures(t *testing.T) {
	w := newWorld(t)
	for _, tt := range []struct {
		feature string
		have    []settings.Feature
		change  func(*derivation.Derivation)
	}{
		{"ca-derivations", nil, floatingNAR},
		{"impure-derivations", []settings.Feature{settings.CADerivations}, madeOf(derivation.Impure, storepath.MethodNAR, nixhash.SHA256)},
	} {
		t.Run(tt.feature, func(t *testing.T) {
			w.set(func(s *settings.Settings) { s.ExperimentalFeatures = settings.Features(tt.have...) })
			drv := w.drv(tt.feature, "echo > $out", tt.change)
			err := w.sched.BuildPaths(w.ctx, w.sess, []derivation.DerivedPath{built(drv)}, derivation.BuildNormal)
			want := "experimental Nix feature '" + tt.feature + "' is disabled; add '--extra-experimental-features " + tt.feature + "' to enable it"
			if err == nil || withoutColours(Coloured(err)) != want {
				t.Errorf("got %v, want %s", err, want)
			}
		})
	}
}

// TestSystemFeaturesAreTheDaemons lets a client claim a feature that the machine lacks, and deny one that it has.
func TestSystemFeaturesAreTheDaemons(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.SystemFeatures = []string{"kvm"} })
	w.set(func(s *settings.Settings) { s.SystemFeatures = []string{"unusual"} })
	needs := func(feature string) storepath.Path {
		return w.drv(feature, "echo > $out", func(d *derivation.Derivation) { d.Env["requiredSystemFeatures"] = feature })
	}
	w.mustBuild(needs("kvm"))
	text := w.mustFail(needs("unusual"), derivation.StatusInputRejected)
	if !strings.HasSuffix(text, "\nRequired features: {unusual}\nAvailable features: {kvm}") {
		t.Errorf("got %q", text)
	}
}

// TestRepairOfOneOutput damages one output of two: the other is looked at, too, but only once, and stays.
func TestRepairOfOneOutput(t *testing.T) {
	w := newWorld(t)
	drv := w.drv("two", "echo out $dev > $out; echo dev > $dev", outputs("dev"))
	w.mustBuild(drv)
	out, dev := w.out(drv, "out"), w.out(drv, "dev")
	before, err := os.Stat(w.store.RealPath(out))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(w.store.RealPath(dev)); err != nil {
		t.Fatal(err)
	}
	results, err := w.sched.BuildPathsWithResults(w.ctx, w.sess, []derivation.DerivedPath{built(drv, "dev")}, derivation.BuildRepair)
	if err != nil || results[0].Status != derivation.StatusBuilt || w.read(dev) != "dev\n" {
		t.Fatalf("results %+v, %v", results, err)
	}
	after, err := os.Stat(w.store.RealPath(out))
	if err != nil || !os.SameFile(before, after) {
		t.Errorf("the good output was replaced: %v", err)
	}
	want := []string{"checking path '" + w.print(dev) + "'...", "path '" + w.print(dev) + "' is corrupted or missing!", "checking path '" + w.print(out) + "'..."}
	if got := strings.Split(w.log.logged(), "\n"); !slices.Equal(got, want) {
		t.Errorf("logged %q, want %q", got, want)
	}
	if got := w.log.activities(activity.Build); !slices.Contains(got, "repairing outputs of '"+w.print(drv)+"'") {
		t.Errorf("activities %q", got)
	}
}

// TestWrongAttribute has a trace for each place on the way to what is wrong.
func TestWrongAttribute(t *testing.T) {
	w := newWorld(t)
	drv := w.drv("wrong", "echo > $out", func(d *derivation.Derivation) {
		attrs := `{"builder":"/bin/sh","name":"wrong","requiredSystemFeatures":"kvm","system":"x86_64-linux"}`
		d.StructuredAttrs = &attrs
	})
	err := w.sched.BuildPaths(w.ctx, w.sess, []derivation.DerivedPath{built(drv)}, derivation.BuildNormal)
	traced, ok := err.(*traceError)
	want := []string{"while parsing derivation '" + w.print(drv) + "'", `while parsing attribute "requiredSystemFeatures"`}
	if !ok || !slices.Equal(traced.Traces(), want) || !strings.HasPrefix(err.Error(), "Expected JSON value to be of type 'array' but it is of type 'string': ") {
		t.Errorf("got %v, %+v; want %q", err, traced, want)
	}
}

// TestRepairDies ends a repair after each of its steps: there is always something in the place of the output, old or
// new, and the next repair ends well.
func TestRepairDies(t *testing.T) {
	w := newWorld(t)
	drv := w.drv("dies", "mkdir $out; echo good > $out/file")
	out := w.mustBuild(drv)
	file := w.store.RealPath(out) + "/file"
	died := errors.New("died")
	for after := 0; ; after++ {
		w.damage(file)
		n := 0
		w.step = func(string) error {
			if n++; n > after {
				return died
			}
			return nil
		}
		_, err := w.sched.BuildPathsWithResults(w.ctx, w.sess, []derivation.DerivedPath{built(drv)}, derivation.BuildRepair)
		w.step = nil
		if got := w.readFile(file); got != "damaged" && got != "good\n" {
			t.Errorf("after step %d: %q", after, got)
		}
		if err == nil {
			if after == 0 {
				t.Error("a repair without steps")
			}
			break
		}
		if !errors.Is(err, died) {
			t.Fatalf("step %d: %v", after, err)
		}
		if res := w.buildMode(drv, derivation.BuildRepair); !res.Status.Success() {
			t.Fatalf("after step %d: %+v", after, res)
		}
		w.verify(out)
	}
	w.verify(out)
	left, err := filepath.Glob(w.root + "/store/*dies")
	if err != nil || len(left) != 1 {
		t.Errorf("in the store: %q, %v", left, err)
	}
}

// damage changes a file that is read-only.
func (w *world) damage(path string) {
	w.Helper()
	if err := os.Chmod(path, 0o644); err != nil {
		w.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("damaged"), 0o644); err != nil {
		w.Fatal(err)
	}
}
