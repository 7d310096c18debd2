package restricted_test

import (
	"io"
	"slices"
	"strings"
	"testing"

	"nixdaemon/protocol"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
)

func opaque(p storepath.Path) []derivation.DerivedPath { return []derivation.DerivedPath{{Path: p}} }

func outputsOf(drv storepath.Path) []derivation.DerivedPath {
	return []derivation.DerivedPath{{Drv: &derivation.SingleDerivedPath{Path: drv}, Outputs: derivation.OutputsSpec{All: true}}}
}

// TestSees asks about what belongs to the build, and about what does not.
func TestSees(t *testing.T) {
	w := newWorld(t)
	server, err := w.client.Server(w.ctx)
	if err != nil || server.Trust != protocol.NotTrusted {
		t.Errorf("builder is told %+v, %v", server, err)
	}
	for p, want := range map[storepath.Path]bool{w.input.Path: true, w.dep.Path: true, w.secret.Path: false} {
		if valid, err := w.client.IsValid(w.ctx, p); err != nil || valid != want {
			t.Errorf("%s: valid %v, %v, want %v", p, valid, err, want)
		}
	}
	all, err := w.client.AllValidPaths(w.ctx)
	if err != nil || !slices.Equal(all, w.build.inputs) {
		t.Errorf("all paths are %v, %v", all, err)
	}
	valid, err := w.client.ValidPaths(w.ctx, []storepath.Path{w.input.Path, w.secret.Path}, true)
	if err != nil || !slices.Equal(valid, []storepath.Path{w.input.Path}) {
		t.Errorf("valid paths are %v, %v", valid, err)
	}
	if valid, err = w.client.ValidPaths(w.ctx, []storepath.Path{w.secret.Path}, false); err != nil || len(valid) != 0 {
		t.Errorf("valid paths are %v, %v", valid, err)
	}
	for _, p := range []storepath.Path{w.dep.Path, w.secret.Path} {
		if refs, err := w.client.Referrers(w.ctx, p); err != nil || len(refs) != 0 {
			t.Errorf("referrers of %s: %v, %v", p, refs, err)
		}
		if derivers, err := w.client.ValidDerivers(w.ctx, p); err != nil || len(derivers) != 0 {
			t.Errorf("derivers of %s: %v, %v", p, derivers, err)
		}
	}
	var b strings.Builder
	if err := w.client.Dump(w.ctx, w.input.Path, &b); err != nil || !strings.Contains(b.String(), "an input") {
		t.Errorf("dump: %q, %v", b.String(), err)
	}
	missing, err := w.client.QueryMissing(w.ctx, slices.Concat(outputsOf(w.drv.Path), opaque(w.secret.Path)))
	if err != nil || !slices.Equal(missing.WillBuild, []storepath.Path{w.drv.Path}) || !slices.Equal(missing.Unknown, []storepath.Path{w.secret.Path}) {
		t.Errorf("missing: %+v, %v", missing, err)
	}
	if outputs, err := w.client.OutputMap(w.ctx, w.drv.Path); err != nil || len(outputs) != 1 {
		t.Errorf("outputs: %v, %v", outputs, err)
	}
}

// TestCensored: who made a path, when, and who vouches for it follows from nothing that the build knows.
func TestCensored(t *testing.T) {
	w := newWorld(t)
	deriver := w.drv.Path
	signed := *w.input
	signed.Deriver, signed.Ultimate, signed.Sigs = deriver, true, []pathinfo.Signature{"k:" + pathinfo.Signature(strings.Repeat("A", 86)) + "=="}
	if err := w.store.Register(w.ctx, []*pathinfo.Info{&signed}); err != nil {
		t.Fatal(err)
	}
	info, err := w.client.PathInfo(w.ctx, w.input.Path)
	if err != nil {
		t.Fatal(err)
	}
	if !info.Deriver.IsZero() || info.RegistrationTime != 0 || info.Ultimate || len(info.Sigs) != 0 {
		t.Errorf("builder is told %+v", info)
	}
	if info.NarHash != w.input.NarHash || info.NarSize != w.input.NarSize || !slices.Equal(info.References, w.input.References) || info.CA != w.input.CA {
		t.Errorf("builder is told %+v, want what follows from %+v", info, w.input)
	}
	added, err := w.client.AddToStore(w.ctx, protocol.AddToStoreRequest{Name: "x", MethodAlgo: "text:sha256"}, strings.NewReader("x"))
	if err != nil || added.RegistrationTime != 0 || added.Ultimate {
		t.Errorf("of an addition: %+v, %v", added, err)
	}
}

// TestRefused asks for everything that is not for builders. Each refusal leaves the connection as it was.
func TestRefused(t *testing.T) {
	w := newWorld(t)
	secret := w.print(w.secret.Path)
	sig := pathinfo.Signature("k:" + strings.Repeat("A", 86) + "==")
	known := pathinfo.DrvOutput{DrvPath: w.drv.Path, Output: "out"}
	for _, tt := range []struct {
		name string
		ask  func() error
		want string
	}{
		{"dump", func() error { return w.client.Dump(w.ctx, w.secret.Path, io.Discard) }, "cannot dump unknown path '" + secret + "' in recursive Nix"},
		{"ensure", func() error { return w.client.EnsurePath(w.ctx, w.secret.Path) }, "cannot substitute unknown path '" + secret + "' in recursive Nix"},
		{"build", func() error { return w.client.BuildPaths(w.ctx, opaque(w.secret.Path), derivation.BuildNormal) },
			"cannot build '" + secret + "' in recursive Nix because path is unknown"},
		{"build outputs", func() error {
			_, err := w.client.BuildPathsWithResults(w.ctx, outputsOf(w.secret.Path), derivation.BuildNormal)
			return err
		}, "cannot build '" + secret + "^*' in recursive Nix because path is unknown"},
		{"check", func() error { return w.client.BuildPaths(w.ctx, outputsOf(w.drv.Path), derivation.BuildCheck) }, "unsupported build mode"},
		{"output map", func() error { _, err := w.client.OutputMap(w.ctx, w.secret.Path); return err },
			"cannot query output map for unknown path '" + secret + "' in recursive Nix"},
		{"hash part", func() error { _, err := w.client.PathFromHashPart(w.ctx, w.input.Path.HashPart()); return err }, "queryPathFromHashPart"},
		{"signatures", func() error { return w.client.AddSignatures(w.ctx, w.input.Path, []pathinfo.Signature{sig}) },
			"operation 'addSignatures' is not supported by store 'local'"},
		{"log", func() error { return w.client.AddBuildLog(w.ctx, w.drv.Path, strings.NewReader("x")) }, "you are not privileged to add logs"},
		{"repair all", func() error { _, err := w.client.Verify(w.ctx, true, true); return err }, "you are not privileged to repair paths"},
		{"realisation", func() error {
			return w.client.RegisterRealisation(w.ctx, &pathinfo.Realisation{ID: known, OutPath: w.input.Path})
		},
			"cannot register realisation '" + w.input.Path.Base() + "' because it lacks a signature by a trusted key"},
		{"derivation", func() error {
			_, err := w.client.BuildDerivation(w.ctx, protocol.BuildDerivationRequest{DrvPath: w.drv.Path, Derivation: &derivation.BasicDerivation{
				Name: "seen", Platform: "x", Builder: "/bin/sh", Env: map[string]string{"out": ""}, Outputs: map[string]derivation.Output{
					"out": {Kind: derivation.FloatingCA, Method: storepath.MethodNAR, Algo: nixhash.SHA256}},
			}})
			return err
		}, "operation 'buildDerivation' is not supported by store 'local'"},
	} {
		w.refused(tt.ask(), tt.want)
		if valid, err := w.client.IsValid(w.ctx, w.input.Path); err != nil || !valid {
			t.Fatalf("after %s: %v, %v", tt.name, valid, err)
		}
	}
	// These end the connection, as they do for every client that is not trusted.
	w.refused(w.client.BuildPaths(w.ctx, outputsOf(w.drv.Path), derivation.BuildRepair), "repairing is not allowed because you are not in 'trusted-users'")
	if _, err := w.client.AddPermRoot(w.ctx, w.input.Path, "/tmp/root"); err == nil {
		t.Error("a permanent root was made")
	}
	if len(w.build.built) != 0 {
		t.Errorf("built %v", w.build.built)
	}
}

// TestNothingHappens: what is a no-op for builders must not reach the store.
func TestNothingHappens(t *testing.T) {
	w := newWorld(t)
	if err := w.client.AddTempRoot(w.ctx, w.secret.Path); err != nil {
		t.Error(err)
	}
	if err := w.client.AddIndirectRoot(w.ctx, "/some/link"); err != nil {
		t.Error(err)
	}
	if roots, err := w.client.Roots(w.ctx); err != nil || len(roots) != 0 {
		t.Errorf("roots %v, %v", roots, err)
	}
	for _, action := range []protocol.GCAction{protocol.GCReturnLive, protocol.GCDeleteDead} {
		res, err := w.client.CollectGarbage(w.ctx, protocol.GCRequest{Action: action, WholeStore: true, MaxFreed: 1 << 60})
		if err != nil || len(res.Paths) != 0 || res.BytesFreed != 0 {
			t.Errorf("collection: %+v, %v", res, err)
		}
	}
	if err := w.client.Optimise(w.ctx); err != nil {
		t.Error(err)
	}
	if found, err := w.client.Verify(w.ctx, true, false); err != nil || found {
		t.Errorf("verify: %v, %v", found, err)
	}
	if valid, err := w.store.IsValid(w.ctx, w.secret.Path); err != nil || !valid {
		t.Errorf("the builder's collection has reached the store: %v, %v", valid, err)
	}
}

// TestBuild passes a derivation on whose inputs are seen, and tells how that went.
func TestBuild(t *testing.T) {
	w := newWorld(t)
	w.build.result = derivation.BuildResult{Status: derivation.StatusBuilt}
	added, err := w.client.AddText(w.ctx, protocol.AddTextRequest{Name: "inner.drv", Text: w.derivation("inner", w.input.Path), References: []storepath.Path{w.input.Path}})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.client.BuildPaths(w.ctx, outputsOf(added), derivation.BuildNormal); err != nil {
		t.Error(err)
	}
	w.build.result = derivation.BuildResult{Status: derivation.StatusPermanentFailure, ErrorMsg: "it is broken"}
	w.refused(w.client.BuildPaths(w.ctx, outputsOf(added), derivation.BuildNormal), "it is broken")
	results, err := w.client.BuildPathsWithResults(w.ctx, outputsOf(added), derivation.BuildNormal)
	if err != nil || len(results) != 1 || results[0].ErrorMsg != "it is broken" {
		t.Errorf("got %+v, %v", results, err)
	}
	if err := w.client.EnsurePath(w.ctx, added); err != nil {
		t.Error(err)
	}
}

// TestRealisations knows what was built for the builder alone, under both keys.
func TestRealisations(t *testing.T) {
	w := newWorld(t)
	id := pathinfo.DrvOutput{DrvPath: w.drv.Path, Output: "out"}
	if err := w.store.RegisterRealisation(w.ctx, &pathinfo.Realisation{ID: id, OutPath: w.input.Path}); err != nil {
		t.Fatal(err)
	}
	if real, err := w.client.QueryRealisation(w.ctx, id); err != nil || real != nil {
		t.Errorf("builder knows %v, %v", real, err)
	}
	w.build.outputs = append(w.build.outputs, id)
	if real, err := w.client.QueryRealisation(w.ctx, id); err != nil || real == nil || real.OutPath != w.input.Path {
		t.Errorf("builder knows %v, %v", real, err)
	}
}
