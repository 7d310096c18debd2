package build

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker/settings"
)

func TestBuild(t *testing.T) {
	w := newWorld(t)
	drv := w.drv("hello", "echo hi; echo hello > $out")
	res := w.build(drv)
	if res.Status != derivation.StatusBuilt || res.TimesBuilt != 1 || res.StartTime == 0 || res.CPUUser == nil {
		t.Fatalf("result %+v", res)
	}
	if id := res.BuiltOutputs["out"].ID; id.DrvHash.IsZero() || id.DrvPath != drv || id.Output != "out" {
		t.Errorf("id of the output: %+v", id)
	}
	out := w.out(drv, "out")
	if got := w.read(out); got != "hello\n" {
		t.Errorf("output %q", got)
	}
	if got := w.build(drv); got.Status != derivation.StatusAlreadyValid || got.TimesBuilt != 0 {
		t.Errorf("second build: %+v", got)
	}
	info, err := w.store.PathInfo(w.ctx, out)
	if err != nil || info.Deriver != drv || !info.Ultimate || len(info.References) != 0 || info.NarSize == 0 {
		t.Errorf("info %+v, %v", info, err)
	}
	if diff := cmp.Diff([]string{"hi"}, w.log.lines()); diff != "" {
		t.Errorf("log (-want +got)\n%s", diff)
	}
	if diff := cmp.Diff([]string{"building '" + w.print(drv) + "'"}, w.log.activities(activity.Build)); diff != "" {
		t.Errorf("activities (-want +got)\n%s", diff)
	}
	if n := w.log.unstopped(); n != 0 {
		t.Errorf("%d activities have not stopped", n)
	}
	if left := w.leftBuildDirs(); len(left) != 0 {
		t.Errorf("build directories left: %q", left)
	}
	if locks, _ := filepath.Glob(w.store.RealPath(out) + "*.lock"); len(locks) != 0 {
		t.Errorf("lock files left: %q", locks)
	}
	if log, err := os.ReadFile(w.root + "/log/drvs/" + drv.Base()[:2] + "/" + drv.Base()[2:] + ".bz2"); err != nil || len(log) == 0 {
		t.Errorf("log file: %d bytes, %v", len(log), err)
	}
}

func TestReferences(t *testing.T) {
	w := newWorld(t)
	src := w.source("src", "x")
	lib := w.drv("lib", "echo lib > $out")
	unused := w.drv("unused", "echo unused > $out")
	libOut := w.print(w.out(lib, "out"))
	drv := w.drv("user", "mkdir $out; echo $out "+libOut+" > $out/refs; echo "+w.print(src)+" > $out/src", dependsOn(lib, unused), func(d *derivation.Derivation) {
		d.InputSrcs = []storepath.Path{src}
	})
	out := w.mustBuild(drv)
	info, err := w.store.PathInfo(w.ctx, out)
	if err != nil {
		t.Fatal(err)
	}
	want := storepath.SortUnique([]storepath.Path{out, src, w.out(lib, "out")})
	if !slices.Equal(info.References, want) {
		t.Errorf("references %v, want %v", info.References, want)
	}
}

// outputs makes a derivation with several outputs.
func outputs(names ...string) func(*derivation.Derivation) {
	return func(d *derivation.Derivation) {
		for _, name := range names {
			d.Outputs[name] = derivation.Output{Kind: derivation.Deferred}
			d.Env[name] = ""
		}
	}
}

func TestSeveralOutputs(t *testing.T) {
	w := newWorld(t)
	drv := w.drv("multi", "mkdir $out $dev; echo $dev > $out/a; echo plain > $dev/b; echo $out > $doc", outputs("dev", "doc"))
	res := w.build(drv)
	if len(res.BuiltOutputs) != 3 {
		t.Fatalf("outputs %v", res.BuiltOutputs)
	}
	refs := func(name string) []storepath.Path {
		info, err := w.store.PathInfo(w.ctx, w.out(drv, name))
		if err != nil {
			t.Fatal(err)
		}
		return info.References
	}
	if got := refs("out"); !slices.Equal(got, []storepath.Path{w.out(drv, "dev")}) {
		t.Errorf("references of out: %v", got)
	}
	if got := refs("doc"); !slices.Equal(got, []storepath.Path{w.out(drv, "out")}) {
		t.Errorf("references of doc: %v", got)
	}
	// Only what is asked for is looked at and told of.
	results, err := w.sched.BuildPathsWithResults(w.ctx, w.sess, []derivation.DerivedPath{built(drv, "dev")}, derivation.BuildNormal)
	if err != nil || len(results) != 1 || len(results[0].BuiltOutputs) != 1 || results[0].Status != derivation.StatusAlreadyValid {
		t.Errorf("one output: %+v, %v", results, err)
	}
}

// TestRewriting builds again when one output is there: the other must come out with the real path in it.
func TestRewriting(t *testing.T) {
	w := newWorld(t)
	drv := w.drv("multi", "mkdir $out; echo self $out dev $dev > $out/a; ln -s $dev/b $out/l; mkdir $dev; echo $dev > $dev/b", outputs("dev"))
	w.mustBuild(drv)
	out, dev := w.out(drv, "out"), w.out(drv, "dev")
	before, err := w.store.PathInfo(w.ctx, out)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.store.DeletePath(w.ctx, out); err != nil {
		t.Fatal(err)
	}
	if res := w.build(drv); res.Status != derivation.StatusBuilt || res.BuiltOutputs["dev"].OutPath != dev {
		t.Fatalf("result %+v", res)
	}
	after, err := w.store.PathInfo(w.ctx, out)
	if err != nil || after.NarHash != before.NarHash || !slices.Equal(after.References, before.References) {
		t.Errorf("after %+v, %v; before %+v", after, err, before)
	}
	if target, err := os.Readlink(w.store.RealPath(out) + "/l"); target != w.print(dev)+"/b" {
		t.Errorf("link %q, %v", target, err)
	}
	entries, err := os.ReadDir(w.root + "/store")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") && !strings.HasSuffix(e.Name(), ".drv.lock") && e.Name() != out.Base() && e.Name() != dev.Base() && e.Name() != drv.Base() {
			t.Errorf("left in the store: %s", e.Name())
		}
	}
}

func TestGraph(t *testing.T) {
	w := newWorld(t)
	a := w.drv("a", "echo a > $out")
	b := w.drv("b", "cat "+w.print(w.out(a, "out"))+" > $out", dependsOn(a))
	c := w.drv("c", "cat "+w.print(w.out(a, "out"))+" > $out", dependsOn(a))
	d := w.drv("d", "cat "+w.print(w.out(b, "out"))+" "+w.print(w.out(c, "out"))+" > $out", dependsOn(b, c))
	if err := w.sched.BuildPaths(w.ctx, w.sess, []derivation.DerivedPath{built(d), built(b)}, derivation.BuildNormal); err != nil {
		t.Fatal(err)
	}
	if got := w.read(w.out(d, "out")); got != "a\na\n" {
		t.Errorf("output %q", got)
	}
	if got := len(w.log.activities(activity.Build)); got != 4 {
		t.Errorf("%d builds, want 4", got)
	}
}

func fixed(method storepath.Method, content string) func(*derivation.Derivation) {
	return func(d *derivation.Derivation) {
		d.Outputs = map[string]derivation.Output{"out": {Kind: derivation.FixedCA,
			CA: storepath.ContentAddress{Method: method, Hash: nixhash.Of(nixhash.SHA256, content)}}}
	}
}

func TestFixedOutput(t *testing.T) {
	w := newWorld(t)
	drv := w.drv("good", "printf content > $out", fixed(storepath.MethodFlat, "content"))
	out := w.mustBuild(drv)
	info, err := w.store.PathInfo(w.ctx, out)
	if err != nil || info.CA.IsZero() || !info.IsContentAddressed(w.store.Dir()) {
		t.Errorf("info %+v, %v", info, err)
	}
	bad := w.drv("bad", "printf other > $out", fixed(storepath.MethodFlat, "content"))
	text := w.mustFail(bad, derivation.StatusOutputRejected)
	want := "hash mismatch in fixed-output derivation '" + w.print(bad) + "':\n  specified: " + nixhash.Of(nixhash.SHA256, "content").SRI() +
		"\n     got:    " + nixhash.Of(nixhash.SHA256, "other").SRI()
	if text != want {
		t.Errorf("got %q, want %q", text, want)
	}
	// The result is good under its own name.
	right := w.drv("bad", "exit 1", fixed(storepath.MethodFlat, "other"))
	if res := w.build(right); res.Status != derivation.StatusAlreadyValid {
		t.Errorf("result under its own path: %+v", res)
	}
	if staged, _ := filepath.Glob(w.root + "/store/tmp-*"); len(staged) != 0 {
		t.Errorf("staging directories left: %q", staged)
	}
}

func TestFixedOutputKeepsNoDescriptor(t *testing.T) {
	w := newWorld(t)
	// Whoever has the file open that the builder wrote does not have the one that is registered.
	drv := w.drv("fd", "printf content > $out; ls -i $out > "+w.root+"/inode", fixed(storepath.MethodFlat, "content"))
	out := w.mustBuild(drv)
	inode, err := os.ReadFile(w.root + "/inode")
	if err != nil {
		t.Fatal(err)
	}
	after, err := os.Stat(w.store.RealPath(out))
	if err != nil {
		t.Fatal(err)
	}
	if strings.HasPrefix(string(inode), inodeOf(after)+" ") {
		t.Errorf("the registered file is the builder's own, inode %s", inode)
	}
}

func TestFixedOutputReferences(t *testing.T) {
	w := newWorld(t)
	src := w.source("src", "x")
	content := w.print(src)
	drv := w.drv("refs", "printf %s "+content+" > $out", fixed(storepath.MethodNAR, "anything"), func(d *derivation.Derivation) {
		d.InputSrcs = []storepath.Path{src}
	})
	text := w.mustFail(drv, derivation.StatusOutputRejected)
	_, got, ok := strings.Cut(text, "     got:    ")
	if !ok {
		t.Fatalf("text %q", text)
	}
	hash, err := nixhash.Parse(got)
	if err != nil {
		t.Fatal(err)
	}
	drv = w.drv("refs", "printf %s "+content+" > $out", func(d *derivation.Derivation) {
		d.InputSrcs = []storepath.Path{src}
		d.Outputs["out"] = derivation.Output{Kind: derivation.FixedCA, CA: storepath.ContentAddress{Method: storepath.MethodNAR, Hash: hash}}
	})
	want := "fixed-output derivations must not reference store paths: '" + w.print(drv) + "' references 1 distinct paths, e.g. '" + w.print(src) + "'"
	if text := w.mustFail(drv, derivation.StatusOutputRejected); text != want {
		t.Errorf("got %q, want %q", text, want)
	}
}

// TestCrash ends the registration at each of its steps: nothing is valid that is not complete, and the next attempt
// succeeds.
func TestCrash(t *testing.T) {
	for _, change := range []func(*derivation.Derivation){outputs("dev"), fixed(storepath.MethodFlat, "content")} {
		w := newWorld(t)
		drv := w.drv("crash", "printf content > $out; test -z \"$dev\" || echo $out > $dev", change)
		died := errors.New("died")
		for after := 0; ; after++ {
			n := 0
			w.step = func(string) error {
				if n++; n > after {
					return died
				}
				return nil
			}
			_, err := w.sched.BuildPathsWithResults(w.ctx, w.sess, []derivation.DerivedPath{built(drv)}, derivation.BuildNormal)
			w.step = nil
			for name := range w.outputsOf(drv) {
				out := w.out(drv, name)
				valid, err := w.store.IsValid(w.ctx, out)
				if err != nil {
					t.Fatal(err)
				}
				if valid {
					w.verify(out)
				}
			}
			if n <= after {
				if err != nil {
					t.Errorf("without an accident: %v", err)
				}
				break
			}
			if !errors.Is(err, died) {
				t.Fatalf("step %d: %v", after, err)
			}
			if res := w.build(drv); !res.Status.Success() {
				t.Fatalf("after step %d: %+v", after, res)
			}
			for name := range w.outputsOf(drv) {
				if _, err := w.store.Invalidate(w.ctx, w.out(drv, name)); err != nil && name != "out" {
					t.Fatal(err)
				}
			}
			if _, err := w.store.Invalidate(w.ctx, w.out(drv, "out")); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func (w *world) outputsOf(drv storepath.Path) map[string]derivation.Output {
	w.Helper()
	d, err := w.store.ReadDerivation(w.ctx, drv)
	if err != nil {
		w.Fatal(err)
	}
	return d.Outputs
}

// verify hashes a valid path.
func (w *world) verify(p storepath.Path) {
	w.Helper()
	if good, err := w.sched.contentsGood(w.ctx, p); !good || err != nil {
		w.Errorf("%s is valid and not as registered: %v", p, err)
	}
}

func TestFloatingCA(t *testing.T) {
	w := newWorld(t)
	w.set(func(s *settings.Settings) {
		s.ExperimentalFeatures = settings.Features(settings.CADerivations, settings.NixCommand)
	})
	floating := func(d *derivation.Derivation) {
		d.Outputs["out"] = derivation.Output{Kind: derivation.FloatingCA, Method: storepath.MethodNAR, Algo: nixhash.SHA256}
		d.Env["out"] = derivation.HashPlaceholder("out")
	}
	dep := w.drv("dep", "mkdir $out; echo self $out > $out/file", floating)
	out := w.mustBuild(dep)
	if got := w.read(out, "file"); got != "self "+w.print(out)+"\n" {
		t.Errorf("self reference: %q, path %s", got, out)
	}
	info, err := w.store.PathInfo(w.ctx, out)
	if err != nil || !info.IsContentAddressed(w.store.Dir()) || !slices.Equal(info.References, []storepath.Path{out}) {
		t.Errorf("info %+v, %v", info, err)
	}
	user := w.drv("user", "cat $dep/file > $out", floating, dependsOn(dep), func(d *derivation.Derivation) {
		d.Env["dep"] = derivation.OutputPlaceholder(dep, "out").String()
	})
	res := w.build(user)
	if res.Status != derivation.StatusBuilt {
		t.Fatalf("result %+v", res)
	}
	if got := w.read(res.BuiltOutputs["out"].OutPath); got != "self "+w.print(out)+"\n" {
		t.Errorf("output %q", got)
	}
	if res := w.build(user); res.Status != derivation.StatusResolvesToAlreadyValid && res.Status != derivation.StatusAlreadyValid {
		t.Errorf("again: %+v", res)
	}
}

func TestBuildDerivation(t *testing.T) {
	w := newWorld(t)
	src := w.source("src", "from the source\n")
	drv := derivation.BasicDerivation{Name: "mem", Platform: "x86_64-linux", Builder: "/bin/sh",
		Args: []string{"-c", "/bin/cat " + w.print(src) + " > $out"}, Env: map[string]string{}, InputSrcs: []storepath.Path{src}}
	p, err := storepath.ParseBase("00000000000000000000000000000000-mem")
	if err != nil {
		t.Fatal(err)
	}
	drvPath, err := storepath.ParseBase("11111111111111111111111111111111-mem.drv")
	if err != nil {
		t.Fatal(err)
	}
	drv.Outputs = map[string]derivation.Output{"out": {Kind: derivation.InputAddressed, Path: p}}
	drv.Env["out"] = w.print(p)
	res, err := w.sched.BuildDerivation(w.ctx, w.sess, drvPath, &drv, derivation.BuildNormal)
	if err != nil || res.Status != derivation.StatusBuilt {
		t.Fatalf("result %+v, %v", res, err)
	}
	if got := w.read(p); got != "from the source\n" {
		t.Errorf("output %q", got)
	}
	missing, err := storepath.ParseBase("22222222222222222222222222222222-gone")
	if err != nil {
		t.Fatal(err)
	}
	drv.InputSrcs = []storepath.Path{missing}
	drv.Outputs["out"] = derivation.Output{Kind: derivation.InputAddressed, Path: missing}
	res, err = w.sched.BuildDerivation(w.ctx, w.sess, drvPath, &drv, derivation.BuildNormal)
	want := "dependency '" + w.print(missing) + "' of '" + w.print(drvPath) + "' does not exist, and substitution is disabled"
	if err != nil || res.Status != derivation.StatusMiscFailure || withoutColours(res.ErrorMsg) != want {
		t.Errorf("result %+v, %v", res, err)
	}
}

func TestEnsurePath(t *testing.T) {
	w := newWorld(t)
	src := w.source("src", "x")
	if err := w.sched.EnsurePath(w.ctx, w.sess, src); err != nil {
		t.Error(err)
	}
	missing, err := storepath.ParseBase("22222222222222222222222222222222-gone")
	if err != nil {
		t.Fatal(err)
	}
	want := "path '" + w.print(missing) + "' is required, but there is no substituter that can build it"
	if err := w.sched.EnsurePath(w.ctx, w.sess, missing); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestQueryMissing(t *testing.T) {
	w := newWorld(t)
	a := w.drv("a", "echo a > $out")
	b := w.drv("b", "echo b > $out", dependsOn(a))
	gone, err := storepath.ParseBase("22222222222222222222222222222222-gone")
	if err != nil {
		t.Fatal(err)
	}
	ask := func() Missing {
		m, err := w.sched.QueryMissing(w.ctx, w.sess, []derivation.DerivedPath{built(b), {Path: gone}})
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	want := Missing{WillBuild: storepath.SortUnique([]storepath.Path{a, b}), WillSubstitute: []storepath.Path{}, Unknown: []storepath.Path{gone}}
	paths := cmp.Comparer(func(x, y storepath.Path) bool { return x == y })
	empty := cmp.Comparer(func(x, y []storepath.Path) bool { return slices.Equal(x, y) })
	if diff := cmp.Diff(want, ask(), empty, paths); diff != "" {
		t.Errorf("before (-want +got)\n%s", diff)
	}
	w.mustBuild(a)
	want.WillBuild = []storepath.Path{b}
	if diff := cmp.Diff(want, ask(), empty, paths); diff != "" {
		t.Errorf("after a (-want +got)\n%s", diff)
	}
}
