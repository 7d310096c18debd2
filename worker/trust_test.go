package worker

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"nixdaemon/protocol"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker/session"
)

func fails(text string) func(context.Context, *session.Session) error {
	return func(context.Context, *session.Session) error { return errors.New(text) }
}

func buildIn(mode derivation.BuildMode) func(*world, *protocol.Writer) {
	return func(w *world, to *protocol.Writer) {
		someBuilds(w, to)
		to.BuildMode(mode)
	}
}

func buildGiven(given func(*world, string) *derivation.BasicDerivation, mode derivation.BuildMode) func(*world, *protocol.Writer) {
	return func(w *world, to *protocol.Writer) {
		d := given(w, "x")
		to.BuildDerivation(protocol.BuildDerivationRequest{DrvPath: somePath(d.Name + ".drv"), Derivation: d, Mode: mode})
	}
}

func theFloating(_ *world, name string) *derivation.BasicDerivation { return floating(name) }

func theInputAddressed(_ *world, name string) *derivation.BasicDerivation {
	return inputAddressed(name)
}

const lacksSignature = "cannot add path '%' because it lacks a signature by a trusted key"

func unsigned(w *world) addition {
	archive := archiveOf("unsigned")
	return addition{w.infoOf("unsigned", archive, false), archive}
}

func manySignatures() []string {
	sigs := make([]string, maxSignatures/90)
	for i := range sigs {
		sigs[i] = fmt.Sprintf("key-%d:", i) + strings.Repeat("A", 86) + "=="
	}
	return sigs
}

func manilySigned(w *world, to *protocol.Writer) (*pathinfo.Info, string) {
	info, archive := newNAR(w, "nar", to.Version)
	for _, sig := range manySignatures() {
		info.Sigs = append(info.Sigs, pathinfo.Signature(sig))
	}
	return info, archive
}

// TestTrust has a line for each request that depends on trust: what becomes of
// it for those who have it and for those who do not. No text is success.
func TestTrust(t *testing.T) {
	for name, c := range map[string]struct {
		op        protocol.Op
		request   func(*world, *protocol.Writer)
		trusted   string
		untrusted string
		// ends says that the refusal ends the connection.
		ends bool
	}{
		"build":             {op: protocol.OpBuildPaths, request: buildIn(derivation.BuildNormal)},
		"check":             {op: protocol.OpBuildPaths, request: buildIn(derivation.BuildCheck)},
		"repair":            {op: protocol.OpBuildPaths, request: buildIn(derivation.BuildRepair), untrusted: string(refuseRepair), ends: true},
		"results":           {op: protocol.OpBuildPathsWithResults, request: buildIn(derivation.BuildNormal)},
		"repair, results":   {op: protocol.OpBuildPathsWithResults, request: buildIn(derivation.BuildRepair), untrusted: string(refuseRepair), ends: true},
		"input-addressed":   {op: protocol.OpBuildDerivation, request: buildGiven(theInputAddressed, 0), untrusted: string(refuseBuild)},
		"fixed":             {op: protocol.OpBuildDerivation, request: buildGiven((*world).fixed, 0)},
		"floating":          {op: protocol.OpBuildDerivation, request: buildGiven(theFloating, 0)},
		"fixed, check":      {op: protocol.OpBuildDerivation, request: buildGiven((*world).fixed, derivation.BuildCheck)},
		"fixed, repair":     {op: protocol.OpBuildDerivation, request: buildGiven((*world).fixed, derivation.BuildRepair), untrusted: string(refuseRepair)},
		"verify":            {op: protocol.OpVerifyStore, request: func(_ *world, to *protocol.Writer) { to.Bool(true); to.Bool(false) }},
		"verify and repair": {op: protocol.OpVerifyStore, request: func(_ *world, to *protocol.Writer) { to.Bool(true); to.Bool(true) }, untrusted: string(refuseVerifyRepair)},
		"log": {op: protocol.OpAddBuildLog, untrusted: string(refuseLogs), request: func(w *world, to *protocol.Writer) {
			to.String(w.drv.Path.Base())
			frames("log")(to)
		}},
		"perm root": {op: protocol.OpAddPermRoot, untrusted: string(refusePermRoot), ends: true, request: func(w *world, to *protocol.Writer) {
			aFile(w, to)
			to.String(w.store.StateDir() + "/gcroots/root")
		}},
		"indirect root": {op: protocol.OpAddIndirectRoot, request: func(_ *world, to *protocol.Writer) { to.String("/link") }},
		"signatures": {op: protocol.OpAddSignatures, request: func(w *world, to *protocol.Writer) {
			aFile(w, to)
			to.Strings([]string{"key:" + strings.Repeat("A", 86) + "=="})
		}},
		"many signatures": {op: protocol.OpAddSignatures, untrusted: string(refuseSignatures), request: func(w *world, to *protocol.Writer) {
			aFile(w, to)
			to.Strings(manySignatures())
		}},
		"added with many signatures": {op: protocol.OpAddToStoreNar, untrusted: string(refuseSignatures), request: func(w *world, to *protocol.Writer) {
			info, archive := manilySigned(w, to)
			to.AddToStoreNar(protocol.AddToStoreNarRequest{Info: info})
			frames(archive)(to)
		}},
		"several added with many signatures": {op: protocol.OpAddMultipleToStore, untrusted: string(refuseSignatures), request: func(w *world, to *protocol.Writer) {
			info, archive := manilySigned(w, to)
			to.Bool(false)
			to.Bool(false)
			frames(entries(w, 1, addition{info, archive}))(to)
		}},
		"optimise": {op: protocol.OpOptimiseStore, request: nothing},
		"unsigned": {op: protocol.OpAddToStoreNar, untrusted: lacksSignature, request: func(w *world, to *protocol.Writer) {
			to.AddToStoreNar(protocol.AddToStoreNarRequest{Info: unsigned(w).info, DontCheckSigs: true})
			frames(unsigned(w).archive)(to)
		}},
		"unsigned, checked": {op: protocol.OpAddToStoreNar, trusted: lacksSignature, untrusted: lacksSignature, request: func(w *world, to *protocol.Writer) {
			to.AddToStoreNar(protocol.AddToStoreNarRequest{Info: unsigned(w).info})
			frames(unsigned(w).archive)(to)
		}},
		"unsigned, many": {op: protocol.OpAddMultipleToStore, untrusted: lacksSignature, request: func(w *world, to *protocol.Writer) {
			to.Bool(false)
			to.Bool(true)
			frames(entries(w, 1, unsigned(w)))(to)
		}},
		"content-addressed": {op: protocol.OpAddToStoreNar, request: func(w *world, to *protocol.Writer) {
			info, archive := newNAR(w, "nar", to.Version)
			to.AddToStoreNar(protocol.AddToStoreNarRequest{Info: info, Repair: true})
			frames(archive)(to)
		}},
		"unsigned realisation": {op: protocol.OpRegisterDrvOutput, untrusted: "cannot register realisation '%' because it lacks a signature by a trusted key",
			request: func(w *world, to *protocol.Writer) { to.RegisterRealisation(realisationOf(w, to.Version)) }},
		"garbage": {op: protocol.OpCollectGarbage, request: func(_ *world, to *protocol.Writer) {
			to.GC(protocol.GCRequest{Action: protocol.GCDeleteSpecific, Paths: []storepath.Path{somePath("x")}})
		}},
		"liveness": {op: protocol.OpCollectGarbage, trusted: string(refuseLiveness), untrusted: string(refuseLiveness), request: func(_ *world, to *protocol.Writer) {
			to.GC(protocol.GCRequest{Action: protocol.GCDeleteDead, IgnoreLiveness: true})
		}},
	} {
		for _, trusted := range []bool{true, false} {
			want, ends := c.trusted, false
			if !trusted {
				want, ends = c.untrusted, c.ends
			}
			t.Run(name+map[bool]string{true: ", trusted", false: ", untrusted"}[trusted], func(t *testing.T) {
				w := newWorld(t)
				p := w.dial(trusted, protocol.ClientVersion())
				p.send(c.op, func(to *protocol.Writer) { c.request(w, to) })
				switch e := p.finish(nil); {
				case e == nil && want == "":
				case e == nil:
					t.Fatal("was not refused")
				case !matches(plainText(e.Message), want):
					t.Fatalf("got %q, want %q", e.Message, want)
				case ends:
					p.mustEnd(1, want)
				default:
					p.inStep()
				}
				if want != "" && (len(w.builder.calls) != 0 || len(w.collector.requests) != 0) {
					t.Error("was refused, but done: ", w.builder.calls, w.collector.requests)
				}
			})
		}
	}
}

// matches compares with a text in which % stands for one path.
func matches(got, want string) bool {
	before, after, one := strings.Cut(want, "%")
	return got == want || one && strings.HasPrefix(got, before) && strings.HasSuffix(got, after)
}

// TestDerivationOfUntrusted shows that the client's word for a derivation's
// path counts only if it is trusted.
func TestDerivationOfUntrusted(t *testing.T) {
	for _, trusted := range []bool{true, false} {
		for _, given := range []func(*world, string) *derivation.BasicDerivation{(*world).fixed, theFloating} {
			w := newWorld(t)
			p := w.dial(trusted, minor(38))
			p.send(protocol.OpBuildDerivation, func(to *protocol.Writer) { buildGiven(given, 0)(w, to) })
			p.mustWork()
			if _, err := p.in.BuildResult(); err != nil {
				t.Fatal(err)
			}
			p.inStep()
			used := w.builder.drvPath
			if trusted {
				if used != somePath("x.drv") || w.valid(used) {
					t.Error("the path of a trusted client was not taken: ", used)
				}
				continue
			}
			if used == somePath("x.drv") || used.Name() != "x.drv" {
				t.Error("the path of an untrusted client was taken: ", used)
			}
			drv, err := w.store.ReadDerivation(context.Background(), used)
			if err != nil || drv.Builder != given(w, "x").Builder {
				t.Error("the derivation was not written: ", drv, err)
			}
		}
	}
}

// TestClaims shows which claims of a path's metadata are believed.
func TestClaims(t *testing.T) {
	for _, c := range []struct {
		trusted, many bool
		ultimate      bool
	}{{true, false, true}, {false, false, false}, {true, true, false}, {false, true, false}} {
		w := newWorld(t)
		p := w.dial(c.trusted, minor(38))
		info, archive := newNAR(w, "nar", minor(38))
		info.Ultimate, info.RegistrationTime = true, 12345
		if c.many {
			p.send(protocol.OpAddMultipleToStore, func(to *protocol.Writer) {
				to.Bool(false)
				to.Bool(false)
				frames(entries(w, 1, addition{info, archive}))(to)
			})
		} else {
			p.send(protocol.OpAddToStoreNar, func(to *protocol.Writer) {
				to.AddToStoreNar(protocol.AddToStoreNarRequest{Info: info})
				frames(archive)(to)
			})
		}
		p.mustWork()
		got, err := w.store.PathInfo(context.Background(), info.Path)
		if err != nil {
			t.Fatal(err)
		}
		if got.Ultimate != c.ultimate || got.RegistrationTime != 12345 {
			t.Errorf("%+v: ultimate %v, registered %d", c, got.Ultimate, got.RegistrationTime)
		}
		p.inStep()
	}
}

// TestSignedRealisation shows what an untrusted client may register.
func TestSignedRealisation(t *testing.T) {
	w := newWorld(t)
	key, err := pathinfo.ParseSecretKey("k:" + base64.StdEncoding.EncodeToString(ed25519.NewKeyFromSeed(make([]byte, 32))))
	if err != nil {
		t.Fatal(err)
	}
	w.keys = pathinfo.Keys{}
	w.keys.Add(key.Public())
	for _, v := range []protocol.Version{protocol.ClientVersion(), minor(31)} {
		r := realisationOf(w, v)
		if v.Has(protocol.FeatureRealisationWithPath) {
			r.SignByPath(key)
		} else {
			r.SignByHash(key)
		}
		p := w.dial(false, v)
		p.send(protocol.OpRegisterDrvOutput, func(to *protocol.Writer) { to.RegisterRealisation(r) })
		p.mustWork()
		p.inStep()
		found, err := w.store.QueryRealisation(context.Background(), r.ID)
		if err != nil || found == nil || found.OutPath != r.OutPath {
			t.Error(v, found, err)
		}
	}
}

// TestRootsOfOthers: what is in use is told to everybody, by whom is not.
func TestRootsOfOthers(t *testing.T) {
	w := newWorld(t)
	for _, trusted := range []bool{true, false} {
		p := w.dial(trusted, minor(38))
		p.send(protocol.OpFindRoots, nil)
		p.mustWork()
		if roots, err := p.in.Roots(); err != nil || len(roots) != 1 {
			t.Fatal(roots, err)
		}
	}
	if !slices.Equal(w.collector.censored, []bool{false, true}) {
		t.Error(w.collector.censored)
	}
}

// TestOptions shows whose settings count, for whom, and what is told.
func TestOptions(t *testing.T) {
	w := newWorld(t)
	w.set.TrustedSubstituters = []string{"https://good.example/"}
	var seen []*session.Session
	w.builder.do = func(_ context.Context, sess *session.Session) error {
		seen = append(seen, sess)
		return nil
	}
	ensure := func(p *peer) {
		p.send(protocol.OpEnsurePath, func(to *protocol.Writer) { aFile(w, to) })
		p.mustWork()
		if err := theOne(p.in); err != nil {
			t.Fatal(err)
		}
	}
	for _, trusted := range []bool{true, false} {
		p := w.dial(trusted, minor(38))
		seen = nil
		ensure(p)
		p.send(protocol.OpSetOptions, func(to *protocol.Writer) {
			to.Options(protocol.ClientOptions{KeepFailed: true, MaxJobs: 7, Verbosity: 3, Overrides: []protocol.Override{
				{Name: "timeout", Value: "5"}, {Name: "sandbox", Value: "relaxed"},
				{Name: "substituters", Value: "https://good.example https://bad.example"}, {Name: "plugin-files", Value: "x"},
				{Name: "experimental-features", Value: "nix-command"}, {Name: "no-such-setting", Value: "x"},
				{Name: "max-silent-time", Value: "soon"},
			}})
		})
		p.mustWork()
		ensure(p)
		before, after := seen[0].Settings, seen[1].Settings
		if seen[0] == seen[1] || before.KeepFailed || before.Timeout == 5 {
			t.Error("an older session was changed")
		}
		if !after.KeepFailed || after.MaxJobs != 7 || after.Timeout != 5 || after.ExperimentalFeatures != before.ExperimentalFeatures {
			t.Errorf("trusted %v: %+v", trusted, after)
		}
		if changed := after.Sandbox != before.Sandbox; changed != trusted {
			t.Errorf("trusted %v changed the sandbox: %v", trusted, changed)
		}
		if got, want := len(after.Substituters), map[bool]int{true: 2, false: 1}[trusted]; got != want {
			t.Errorf("trusted %v has substituters %v", trusted, after.Substituters)
		}
		want := []string{
			"warning: Ignoring the client-specified plugin-files.\n" +
				"The client specifying plugins to the daemon never made sense, and was removed in Nix >=2.14.",
		}
		if !trusted {
			want = append(want,
				"warning: ignoring the client-specified setting 'sandbox', because it is a restricted setting and you are not a trusted user",
				"warning: ignoring the client-specified setting 'no-such-setting', because it is a restricted setting and you are not a trusted user",
				"warning: ignoring untrusted substituter 'https://bad.example', you are not a trusted user.\n"+
					"Run `man nix.conf` for more information on the `substituters` configuration option.")
		}
		for _, line := range want {
			if !slices.Contains(p.log.lines, line) {
				t.Errorf("trusted %v was not told %q but %q", trusted, line, p.log.lines)
			}
		}
		if len(p.log.lines) != len(want)+1 { // and the bad value
			t.Errorf("trusted %v: %q", trusted, p.log.lines)
		}
		p.inStep()
	}
	if w.set.KeepFailed {
		t.Error("the daemon's settings were changed")
	}
}

// TestVerifyRepairs passes wrong paths to the builder.
func TestVerifyRepairs(t *testing.T) {
	w := newWorld(t)
	path := w.store.RealPath(w.file.Path)
	if err := errors.Join(os.Chmod(path, 0o644), os.WriteFile(path, []byte("CONTENTS"), 0o644), os.Chmod(path, 0o444)); err != nil {
		t.Fatal(err)
	}
	p := w.dial(true, minor(38))
	for _, repair := range []bool{false, true} {
		w.builder.calls = nil
		p.send(protocol.OpVerifyStore, func(to *protocol.Writer) { to.Bool(true); to.Bool(repair) })
		p.mustWork()
		if _, err := p.in.Bool(); err != nil {
			t.Fatal(err)
		}
		if asked := slices.Contains(w.builder.calls, "repair"); asked != repair {
			t.Errorf("repair %v: %v", repair, w.builder.calls)
		}
	}
}

// TestTempRoots live as long as their connection.
func TestTempRoots(t *testing.T) {
	w := newWorld(t)
	p := w.dial(false, minor(38))
	p.send(protocol.OpAddTempRoot, func(to *protocol.Writer) { to.StorePath(somePath("root")) })
	p.mustWork()
	if err := theOne(p.in); err != nil {
		t.Fatal(err)
	}
	files := func() int {
		found, err := filepath.Glob(w.store.StateDir() + "/temproots/*")
		if err != nil {
			t.Fatal(err)
		}
		return len(found)
	}
	if files() != 1 {
		t.Error("no temporary root")
	}
	if err := p.end(); err != nil || files() != 0 {
		t.Error("temporary root is left: ", err)
	}
}
