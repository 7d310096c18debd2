package peer_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nixdaemon/protocol"
	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/serve"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker/remote/peer"
	"nixdaemon/worker/workertest"
)

// trip is a store to exercise. tag makes its paths its own.
type trip struct {
	testing.TB
	s   peer.Store
	tag string
	// byHash says that the other side keys realisations by hash.
	byHash bool
}

func (t trip) must(err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// narOf writes the archives of things.
func narOf(things ...thing) func(context.Context, *pathinfo.Info, io.Writer) error {
	return func(_ context.Context, info *pathinfo.Info, w io.Writer) error {
		for _, th := range things {
			if th.info.Path == info.Path {
				_, err := w.Write(th.nar)
				return err
			}
		}
		return errors.New("unknown thing")
	}
}

// TestStores does the same through every way to reach a store.
func TestStores(t *testing.T) {
	root := workertest.Root(t)
	w, err := workertest.Open(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	socket := w.Listen(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	t.Run("unix", func(t *testing.T) {
		s := openStore(t, "unix://"+socket+"?max-connections=2&store="+root+"/store", peer.Options{})
		exercise(trip{TB: t, s: s, tag: "unix"})
	})
	for _, minor := range []uint8{18, 21, 23, 31} {
		s := openStore(t, "unix://"+socket+"?store="+root+"/store", peer.Options{Version: protocol.Version{Number: protocol.Minor(minor)}})
		exchange(trip{TB: t, s: s, tag: fmt.Sprint("minor", minor)})
	}
	t.Run("ssh-ng", func(t *testing.T) {
		direct := workertest.Root(t)
		t.Setenv(rootVar, direct)
		s := openStore(t, "ssh-ng://localhost?max-connections=2&remote-program="+self+"&store="+direct+"/store", peer.Options{})
		exercise(trip{TB: t, s: s, tag: "ng"})
	})
	t.Run("ssh", func(t *testing.T) {
		direct := workertest.Root(t)
		t.Setenv(rootVar, direct)
		s := openStore(t, "ssh://localhost?max-connections=2&remote-program="+self+"&store="+direct+"/store", peer.Options{})
		exerciseServed(trip{TB: t, s: s, tag: "served"})
	})
}

func exercise(t trip) {
	t.Helper()
	ctx := t.Context()
	t.must(t.s.Connect(ctx))
	things := exchange(t)
	trust, err := t.s.Trust(ctx)
	if err != nil || trust != protocol.Trusted {
		t.Errorf("trust %v, %v", trust, err)
	}
	if byPath, err := t.s.KeysByPath(ctx); err != nil || byPath == t.byHash {
		t.Errorf("realisations are keyed by path: %v, %v", byPath, err)
	}
	sig := pathinfo.Signature("key:" + strings.Repeat("A", 86) + "==")
	t.must(t.s.AddSignatures(ctx, things[0].info.Path, []pathinfo.Signature{sig}))
	infos, err := t.s.PathInfos(ctx, []storepath.Path{things[0].info.Path})
	if err != nil || len(infos) != 1 || !slices.Equal(infos[0].Sigs, []pathinfo.Signature{sig}) {
		t.Errorf("signatures: %+v, %v", infos, err)
	}
	builds(t)
}

// exerciseServed is exercise for a store of which less is known.
func exerciseServed(t trip) {
	t.Helper()
	ctx := t.Context()
	t.must(t.s.Connect(ctx))
	things := exchange(t)
	if trust, err := t.s.Trust(ctx); err != nil || trust != protocol.TrustUnknown {
		t.Errorf("trust %v, %v", trust, err)
	}
	var unsupported *peer.Unsupported
	err := t.s.AddSignatures(ctx, things[0].info.Path, nil)
	if !errors.As(err, &unsupported) || err.Error() != "operation 'addSignatures' is not supported by store 'ssh://localhost'" {
		t.Errorf("signatures: %v", err)
	}
	if _, err := t.s.Realisation(ctx, pathinfo.DrvOutput{}); !errors.As(err, &unsupported) {
		t.Errorf("realisation: %v", err)
	}
	drvPath, drv := recipe(t, t.tag+"-built", "echo hello > $out")
	res, err := t.s.BuildDerivation(ctx, drvPath, drv, peer.BuildOptions{KeepFailed: true})
	out := drv.Outputs["out"].Path
	if err != nil || res.Status != derivation.StatusBuilt || res.BuiltOutputs["out"].OutPath != out {
		t.Errorf("built: %+v, %v", res, err)
	}
	results, err := t.s.BuildPathsWithResults(ctx, []derivation.DerivedPath{{Path: out}}, peer.BuildOptions{})
	if err != nil || len(results) != 1 || !results[0].Status.Success() {
		t.Errorf("results: %+v, %v", results, err)
	}
	var failure *serve.BuildFailure
	missing := newThing(t, t.s.Dir(), t.tag+"-nowhere", "nowhere").info.Path
	if _, err := t.s.BuildPathsWithResults(ctx, []derivation.DerivedPath{{Path: missing}}, peer.BuildOptions{}); !errors.As(err, &failure) ||
		!strings.Contains(failure.Message, "there is no substituter") {
		t.Errorf("results of what cannot be made: %v", err)
	}
	t.must(t.s.Connect(ctx))
	t.must(t.s.Close())
	if err := t.s.Connect(ctx); err == nil {
		t.Error("connected to a closed store")
	}
}

// exchange copies paths there and back.
func exchange(t trip) []thing {
	t.Helper()
	ctx, dir := t.Context(), t.s.Dir()
	a := newThing(t, dir, t.tag+"-a", t.tag)
	b := newThing(t, dir, t.tag+"-b", t.tag, a.info.Path)
	c := newThing(t, dir, t.tag+"-c", strings.Repeat("long ", 200000), a.info.Path, b.info.Path)
	missing := newThing(t, dir, t.tag+"-missing", "missing "+t.tag).info.Path
	all := []storepath.Path{a.info.Path, b.info.Path, c.info.Path}

	valid, err := t.s.ValidPaths(ctx, all, false)
	if err != nil || len(valid) != 0 {
		t.Fatalf("valid %v, %v", valid, err)
	}
	// The order given is not that of the references.
	t.must(t.s.Import(ctx, []*pathinfo.Info{c.info, a.info, b.info}, narOf(a, b, c), peer.ImportOptions{DontCheckSigs: true}))
	valid, err = t.s.ValidPaths(ctx, append(all, missing), false)
	if diff := cmp.Diff(storepath.SortUnique(slices.Clone(all)), valid, cmp.AllowUnexported(storepath.Path{})); diff != "" || err != nil {
		t.Errorf("valid paths: %v (-want +got):\n%s", err, diff)
	}
	infos, err := t.s.PathInfos(ctx, []storepath.Path{c.info.Path, missing, a.info.Path})
	if err != nil || len(infos) != 2 || infos[0].Path != c.info.Path || infos[1].Path != a.info.Path ||
		infos[0].NarHash != c.info.NarHash || !slices.Equal(infos[0].References, c.info.References) {
		t.Errorf("infos %+v, %v", infos, err)
	}
	closure, err := t.s.Closure(ctx, []storepath.Path{c.info.Path})
	if diff := cmp.Diff(storepath.SortUnique(all), closure, cmp.AllowUnexported(storepath.Path{})); diff != "" || err != nil {
		t.Errorf("closure: %v (-want +got):\n%s", err, diff)
	}
	if _, err := t.s.Closure(ctx, []storepath.Path{missing}); err == nil {
		t.Error("closure of a path that is not valid")
	}
	archives(t, c, missing)
	return []thing{a, b, c}
}

func archives(t trip, big thing, missing storepath.Path) {
	t.Helper()
	ctx := t.Context()
	r, err := t.s.NAR(ctx, big.info.Path)
	t.must(err)
	data, err := io.ReadAll(r)
	if err != nil || !bytes.Equal(data, big.nar) {
		t.Errorf("archive of %d bytes, %v, want %d", len(data), err, len(big.nar))
	}
	t.must(r.Close())
	// One that is closed early leaves a usable store.
	r, err = t.s.NAR(ctx, big.info.Path)
	t.must(err)
	r.Read(make([]byte, 8))
	t.must(r.Close())
	if _, err := t.s.NAR(ctx, missing); err == nil {
		t.Error("archive of a path that is not valid")
	}
	// So does an import whose source fails.
	broken := errors.New("broken source")
	next := newThing(t, t.s.Dir(), t.tag+"-next", "x")
	err = t.s.Import(ctx, []*pathinfo.Info{next.info}, func(context.Context, *pathinfo.Info, io.Writer) error { return broken },
		peer.ImportOptions{DontCheckSigs: true})
	if !errors.Is(err, broken) {
		t.Errorf("import of a broken source: %v", err)
	}
	if valid, err := t.s.ValidPaths(ctx, []storepath.Path{next.info.Path}, false); err != nil || len(valid) != 0 {
		t.Errorf("valid after a broken import: %v, %v", valid, err)
	}
}

// recipe is a derivation whose output is derived as the store wants it.
func recipe(t trip, name, script string) (storepath.Path, *derivation.BasicDerivation) {
	t.Helper()
	dir := t.s.Dir()
	out := newThing(t, dir, name, "out").info.Path
	drv := &derivation.BasicDerivation{
		Name: name, Platform: "x86_64-linux", Builder: "/bin/sh", Args: []string{"-c", script},
		Env:     map[string]string{"out": dir.Print(out), "name": name},
		Outputs: map[string]derivation.Output{"out": {Kind: derivation.InputAddressed, Path: out}},
	}
	return newThing(t, dir, name+".drv", script).info.Path, drv
}

func builds(t trip) {
	t.Helper()
	var wait sync.WaitGroup
	// Each call's log goes where that call says.
	for _, word := range []string{"one", "two"} {
		wait.Go(func() {
			var log recorder
			drvPath, drv := recipe(t, t.tag+"-"+word, "echo said "+word+"; echo "+word+" > $out")
			res, err := t.s.BuildDerivation(t.Context(), drvPath, drv, peer.BuildOptions{Log: &log})
			if err != nil || res.Status != derivation.StatusBuilt {
				t.Errorf("built: %+v, %v", res, err)
			}
			if !slices.Equal(log.lines, []string{"said " + word}) {
				t.Errorf("log of %s: %q", word, log.lines)
			}
		})
	}
	wait.Wait()
	drvPath, drv := recipe(t, t.tag+"-fails", "echo no >&2; exit 3")
	res, err := t.s.BuildDerivation(t.Context(), drvPath, drv, peer.BuildOptions{})
	if err != nil || res.Status != derivation.StatusPermanentFailure || !strings.Contains(res.ErrorMsg, "failed with exit code") {
		t.Errorf("failed build: %+v, %v", res, err)
	}
	results, err := t.s.BuildPathsWithResults(t.Context(), []derivation.DerivedPath{{Path: drv.Outputs["out"].Path}}, peer.BuildOptions{})
	if err != nil || len(results) != 1 || results[0].Status.Success() {
		t.Errorf("results: %+v, %v", results, err)
	}
}

// TestCancelled hangs up in the middle of a build.
func TestCancelled(t *testing.T) {
	root := workertest.Root(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(rootVar, root)
	s := openStore(t, "ssh-ng://localhost?remote-program="+self+"&store="+root+"/store", peer.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	log := &canceller{cancel: cancel}
	drvPath, drv := recipe(trip{TB: t, s: s, tag: "c"}, "endless", "echo begun; /bin/sleep 1000")
	if _, err := s.BuildDerivation(ctx, drvPath, drv, peer.BuildOptions{Log: log}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled build: %v", err)
	}
	// The store goes on with another connection.
	if err := s.Connect(t.Context()); err != nil {
		t.Error(err)
	}
}

type canceller struct {
	recorder
	cancel context.CancelFunc
}

func (c *canceller) Result(id activity.ID, kind activity.ResultType, fields []activity.Field) {
	c.recorder.Result(id, kind, fields)
	if len(c.lines) > 0 {
		c.cancel()
	}
}

// TestHangsUp has a far side that ends before it says anything.
func TestHangsUp(t *testing.T) {
	for reference, want := range map[string]string{
		"ssh-ng://localhost?remote-program=echo": "cannot open connection to remote store 'ssh-ng://localhost': error: protocol mismatch, got '--stdio'",
		"ssh://localhost?remote-program=echo":    "'nix-store --serve' protocol mismatch from 'localhost', got '--serve --write'",
		"ssh://localhost?remote-program=true":    "cannot connect to 'localhost'",
		"ssh://localhost?remote-program=/none":   "unable to execute '/none': No such file or directory",
	} {
		if err := openStore(t, reference, peer.Options{}).Connect(t.Context()); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", reference, err, want)
		}
	}
	s := openStore(t, "ssh-ng://localhost?remote-program=true", peer.Options{})
	err := s.Connect(t.Context())
	want := "cannot open connection to remote store 'ssh-ng://localhost': error: Nix daemon disconnected unexpectedly (maybe it crashed?)"
	if err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
	var remote *protocol.Error
	if errors.As(err, &remote) {
		t.Error("it is told as a refusal")
	}
}
