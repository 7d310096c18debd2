package worker

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"nixdaemon/protocol"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
	"nixdaemon/protocol/wire"
)

// call is one request and how its reply is read.
type call struct {
	op      protocol.Op
	request func(w *world, to *protocol.Writer)
	// pulled is what the daemon is given when it asks.
	pulled func(w *world, v protocol.Version) string
	reply  func(*protocol.Reader) error
}

func aFile(w *world, to *protocol.Writer)     { to.StorePath(w.file.Path) }
func aDrv(w *world, to *protocol.Writer)      { to.StorePath(w.drv.Path) }
func nothing(*world, *protocol.Writer)        {}
func someFiles(w *world, to *protocol.Writer) { to.StorePaths([]storepath.Path{w.file.Path}) }

func someBuilds(w *world, to *protocol.Writer) {
	to.DerivedPaths([]derivation.DerivedPath{{Path: w.file.Path}})
}

func read[T any](f func(*protocol.Reader) (T, error)) func(*protocol.Reader) error {
	return func(r *protocol.Reader) error { return second(f(r)) }
}

var (
	aBool  = read(func(r *protocol.Reader) (bool, error) { return r.Bool() })
	aPath  = read((*protocol.Reader).StorePath)
	paths  = read((*protocol.Reader).StorePaths)
	texts  = read(func(r *protocol.Reader) ([]string, error) { return r.Strings(9, 999) })
	noText = func(*protocol.Reader) error { return nil }
)

// theOne is the reply that says nothing.
func theOne(r *protocol.Reader) error {
	n, err := r.Uint64()
	if err == nil && n != 1 {
		err = fmt.Errorf("got %d, want 1", n)
	}
	return err
}

func added(r *protocol.Reader) error {
	if r.Version.AtLeast(25) {
		return second(r.Info())
	}
	return aPath(r)
}

func realisationOf(w *world, v protocol.Version) *pathinfo.Realisation {
	r := &pathinfo.Realisation{OutPath: w.file.Path}
	r.ID = pathinfo.DrvOutput{Output: "out", DrvHash: nixhash.Of(nixhash.SHA256, "drv")}
	if v.Has(protocol.FeatureRealisationWithPath) {
		r.ID = pathinfo.DrvOutput{Output: "out", DrvPath: w.drv.Path}
	}
	return r
}

// newNAR is an addition that the store does not have.
func newNAR(w *world, kind string, v protocol.Version) (*pathinfo.Info, string) {
	archive := archiveOf(fmt.Sprint(kind, v))
	return w.infoOf("nar", archive, true), archive
}

func exported(w *world, v protocol.Version) string {
	var b strings.Builder
	to := wire.NewWriter(&b)
	info, archive := newNAR(w, "exported", v)
	to.Uint64(1)
	to.WriteString(archive)
	to.Uint64(0x4558494e)
	to.String(w.store.Dir().Print(info.Path))
	to.Uint64(0)
	to.String("")
	to.Uint64(0)
	to.Uint64(0)
	to.Flush()
	return b.String()
}

// calls holds every request that is answered, with a success each.
var calls = []call{
	{op: protocol.OpIsValidPath, request: aFile, reply: aBool},
	{op: protocol.OpHasSubstitutes, request: aFile, reply: aBool},
	{op: protocol.OpQueryPathHash, request: aFile, reply: read((*protocol.Reader).NarHash)},
	{op: protocol.OpQueryReferences, request: aFile, reply: paths},
	{op: protocol.OpQueryReferrers, request: aFile, reply: paths},
	{op: protocol.OpAddToStore, reply: added, request: func(w *world, to *protocol.Writer) {
		archive := archiveOf(fmt.Sprint("add", to.Version))
		to.AddToStore(protocol.AddToStoreRequest{
			Name: "add", MethodAlgo: "fixed:r:sha256", OldMethod: storepath.MethodNAR, OldAlgo: nixhash.SHA256,
		})
		if to.Version.AtLeast(25) {
			frames(archive[:9], archive[9:])(to)
		} else {
			to.WriteString(archive)
		}
	}},
	{op: protocol.OpAddTextToStore, reply: aPath, request: func(w *world, to *protocol.Writer) {
		to.AddText(protocol.AddTextRequest{Name: "text", Text: fmt.Sprint(to.Version)})
	}},
	{op: protocol.OpBuildPaths, reply: theOne, request: func(w *world, to *protocol.Writer) {
		someBuilds(w, to)
		to.BuildMode(derivation.BuildCheck)
	}},
	{op: protocol.OpEnsurePath, request: aFile, reply: theOne},
	{op: protocol.OpAddTempRoot, request: aFile, reply: theOne},
	{op: protocol.OpAddIndirectRoot, reply: theOne, request: func(w *world, to *protocol.Writer) {
		to.String("relative/link")
	}},
	{op: protocol.OpSyncWithGC, request: nothing, reply: theOne},
	{op: protocol.OpFindRoots, request: nothing, reply: read((*protocol.Reader).Roots)},
	{op: protocol.OpExportPath, reply: theOne, request: func(w *world, to *protocol.Writer) {
		aFile(w, to)
		to.Uint64(0)
	}},
	{op: protocol.OpQueryDeriver, request: aFile, reply: read((*protocol.Reader).OptionalStorePath)},
	{op: protocol.OpSetOptions, reply: noText, request: func(w *world, to *protocol.Writer) {
		to.Options(protocol.ClientOptions{Verbosity: 3, MaxJobs: 1, Substitute: true})
	}},
	{op: protocol.OpCollectGarbage, reply: read((*protocol.Reader).GCResults), request: func(w *world, to *protocol.Writer) {
		to.GC(protocol.GCRequest{Action: protocol.GCReturnDead, WholeStore: true})
	}},
	{op: protocol.OpQuerySubstitutablePathInfo, request: aFile, reply: func(r *protocol.Reader) error {
		found, err := r.Bool()
		if err == nil && found {
			_, err = r.SubstitutableInfo(somePath("x"))
		}
		return err
	}},
	{op: protocol.OpQueryDerivationOutputs, request: aDrv, reply: paths},
	{op: protocol.OpQueryAllValidPaths, request: nothing, reply: paths},
	{op: protocol.OpQueryFailedPaths, request: nothing, reply: texts},
	{op: protocol.OpClearFailedPaths, request: someFiles, reply: theOne},
	{op: protocol.OpQueryPathInfo, request: aFile, reply: func(r *protocol.Reader) error {
		if valid, err := r.Bool(); err != nil || !valid {
			return fmt.Errorf("valid %v, error %v", valid, err)
		}
		return second(r.InfoOf(somePath("x")))
	}},
	{op: protocol.OpImportPaths, request: nothing, pulled: exported, reply: paths},
	{op: protocol.OpQueryDerivationOutputNames, request: aDrv, reply: texts},
	{op: protocol.OpQueryPathFromHashPart, reply: aPath, request: func(w *world, to *protocol.Writer) {
		to.String(w.file.Path.HashPart())
	}},
	{op: protocol.OpQuerySubstitutablePathInfos, request: func(w *world, to *protocol.Writer) {
		someFiles(w, to)
		if to.Version.AtLeast(22) {
			to.String("")
		}
	}, reply: func(r *protocol.Reader) error {
		n, err := r.Count(9)
		for range n {
			if err = aPath(r); err == nil {
				_, err = r.SubstitutableInfo(somePath("x"))
			}
		}
		return err
	}},
	{op: protocol.OpQueryValidPaths, reply: paths, request: func(w *world, to *protocol.Writer) {
		someFiles(w, to)
		if to.Version.AtLeast(27) {
			to.Bool(true)
		}
	}},
	{op: protocol.OpQuerySubstitutablePaths, request: someFiles, reply: paths},
	{op: protocol.OpQueryValidDerivers, request: aFile, reply: paths},
	{op: protocol.OpOptimiseStore, request: nothing, reply: theOne},
	{op: protocol.OpVerifyStore, reply: aBool, request: func(w *world, to *protocol.Writer) {
		to.Bool(true)
		to.Bool(false)
	}},
	{op: protocol.OpBuildDerivation, reply: read((*protocol.Reader).BuildResult), request: func(w *world, to *protocol.Writer) {
		to.BuildDerivation(protocol.BuildDerivationRequest{DrvPath: somePath("x.drv"), Derivation: floating("x")})
	}},
	{op: protocol.OpAddSignatures, reply: theOne, request: func(w *world, to *protocol.Writer) {
		aFile(w, to)
		to.Strings([]string{"key:" + strings.Repeat("A", 86) + "=="})
	}},
	{op: protocol.OpNarFromPath, request: aFile, reply: read(func(r *protocol.Reader) (int, error) {
		archive := make([]byte, len(archiveOf("contents")))
		n, err := io.ReadFull(r, archive)
		if err == nil && string(archive) != archiveOf("contents") {
			err = fmt.Errorf("got archive %q", archive)
		}
		return n, err
	})},
	{op: protocol.OpAddToStoreNar, reply: noText, request: func(w *world, to *protocol.Writer) {
		info, archive := newNAR(w, "nar", to.Version)
		to.AddToStoreNar(protocol.AddToStoreNarRequest{Info: info})
		switch {
		case to.Version.AtLeast(23):
			frames(archive)(to)
		case !to.Version.AtLeast(21):
			to.WriteString(archive)
		}
	}, pulled: func(w *world, v protocol.Version) string { return second2(newNAR(w, "nar", v)) }},
	{op: protocol.OpQueryMissing, request: someBuilds, reply: read((*protocol.Reader).Missing)},
	{op: protocol.OpQueryDerivationOutputMap, request: aDrv, reply: read((*protocol.Reader).OutputMap)},
	{op: protocol.OpRegisterDrvOutput, reply: noText, request: func(w *world, to *protocol.Writer) {
		to.RegisterRealisation(realisationOf(w, to.Version))
	}},
	{op: protocol.OpQueryRealisation, request: func(w *world, to *protocol.Writer) {
		to.DrvOutput(realisationOf(w, to.Version).ID)
	}, reply: func(r *protocol.Reader) error {
		_, err := r.FoundRealisation(pathinfo.DrvOutput{})
		return err
	}},
	{op: protocol.OpAddMultipleToStore, reply: noText, request: func(w *world, to *protocol.Writer) {
		info, archive := newNAR(w, "many", to.Version)
		to.Bool(false)
		to.Bool(false)
		frames(entries(w, 1, addition{info, archive}))(to)
	}},
	{op: protocol.OpAddBuildLog, reply: theOne, request: func(w *world, to *protocol.Writer) {
		to.String(w.drv.Path.Base())
		frames("log", " of a build")(to)
	}},
	{op: protocol.OpBuildPathsWithResults, reply: read((*protocol.Reader).KeyedBuildResults), request: func(w *world, to *protocol.Writer) {
		someBuilds(w, to)
		to.BuildMode(derivation.BuildNormal)
	}},
	{op: protocol.OpAddPermRoot, reply: texts1, request: func(w *world, to *protocol.Writer) {
		aFile(w, to)
		to.String(w.store.StateDir() + "/gcroots/x/../root")
	}},
}

var texts1 = read(func(r *protocol.Reader) (string, error) { return r.Text() })

func second2[A, B any](_ A, b B) B { return b }

type addition struct {
	info    *pathinfo.Info
	archive string
}

// entries is the data of AddMultipleToStore, saying that there are so many.
func entries(w *world, count uint64, additions ...addition) string {
	var b strings.Builder
	to := protocol.NewWriter(wire.NewWriter(&b), w.store.Dir(), minor(16))
	to.Uint64(count)
	for _, a := range additions {
		to.Info(a.info)
		to.WriteString(a.archive)
	}
	to.Flush()
	return b.String()
}

// TestEveryRequestInEveryVersion makes each request over one connection and
// looks whether the stream is in step afterwards. At the moment of the answer
// the store holds store paths alone: no lock files of what was added.
func TestEveryRequestInEveryVersion(t *testing.T) {
	w := newWorld(t)
	w.substituter.paths = []storepath.Path{w.file.Path}
	w.builder.outputs = map[string]storepath.Path{"out": {}, "dev": w.file.Path}
	versions := []protocol.Version{protocol.ClientVersion()}
	for n := uint8(18); n <= 38; n++ {
		versions = append(versions, minor(n))
	}
	for _, v := range versions {
		p := w.dial(true, v)
		for _, c := range calls {
			p.send(c.op, func(to *protocol.Writer) { c.request(w, to) })
			var data io.Reader
			if c.pulled != nil {
				data = strings.NewReader(c.pulled(w, v))
			}
			if e := p.finish(data); e != nil {
				t.Fatalf("%v %s: %s", v, c.op, e.Message)
			}
			if err := c.reply(p.in); err != nil {
				t.Fatalf("%v %s: %v", v, c.op, err)
			}
			if extra := w.extra(); len(extra) != 0 {
				t.Fatalf("%v %s: store holds %v", v, c.op, extra)
			}
			p.inStep()
		}
		if err := p.end(); err != nil {
			t.Fatal(err)
		}
	}
	for op := range handlers {
		if !slices.ContainsFunc(calls, func(c call) bool { return c.op == op }) {
			t.Error("not tried: ", op)
		}
	}
}

// extra lists what the store directory holds besides valid paths.
func (w *world) extra() []string {
	w.t.Helper()
	entries, err := os.ReadDir(w.store.RealDir())
	if err != nil {
		w.t.Fatal(err)
	}
	var extra []string
	for _, entry := range entries {
		if p, err := storepath.ParseBase(entry.Name()); entry.Name() != ".links" && (err != nil || !w.valid(p)) {
			extra = append(extra, entry.Name())
		}
	}
	return extra
}

// TestAnswers looks at what some requests say, which reading them does not.
func TestAnswers(t *testing.T) {
	w := newWorld(t)
	b, a := w.addText("b", "b").Path, w.addText("a", "a").Path
	w.substituter.paths = storepath.SortUnique([]storepath.Path{a, b})
	w.builder.outputs = map[string]storepath.Path{"out": {}, "dev": w.file.Path}
	p := w.dial(true, minor(38))

	p.send(protocol.OpQueryPathInfo, func(to *protocol.Writer) { to.StorePath(somePath("gone")) })
	p.mustWork()
	if valid, err := p.in.Bool(); valid || err != nil {
		t.Error("invalid path has metadata: ", valid, err)
	}
	p.send(protocol.OpQueryReferrers, func(to *protocol.Writer) { to.StorePath(somePath("gone")) })
	p.mustWork()
	if found, err := p.in.StorePaths(); len(found) != 0 || err != nil {
		t.Error("invalid path has referrers: ", found, err)
	}
	p.send(protocol.OpQueryDeriver, func(to *protocol.Writer) { to.StorePath(somePath("gone")) })
	p.mustFail("path '" + w.store.Dir().Print(somePath("gone")) + "' is not valid")

	p.send(protocol.OpQueryDerivationOutputs, func(to *protocol.Writer) { aDrv(w, to) })
	p.mustWork()
	if found, err := p.in.StorePaths(); err != nil || !slices.Equal(found, []storepath.Path{w.file.Path}) {
		t.Error("outputs: ", found, err)
	}
	p.send(protocol.OpQuerySubstitutablePathInfos, func(to *protocol.Writer) {
		to.Uint64(2)
		for _, path := range []storepath.Path{b, a} {
			to.StorePath(path)
			to.String("")
		}
	})
	p.mustWork()
	n, err := p.in.Count(9)
	if n != 2 || err != nil {
		t.Fatal(n, err)
	}
	for _, want := range w.substituter.paths {
		got, err := p.in.StorePath()
		if got != want || err != nil {
			t.Error("not in order: ", got, err)
		}
		if _, err := p.in.SubstitutableInfo(got); err != nil {
			t.Fatal(err)
		}
	}

	// What AddToStore says is what QueryPathInfo says later.
	p.send(protocol.OpAddToStore, func(to *protocol.Writer) {
		to.AddToStore(protocol.AddToStoreRequest{Name: "flat", MethodAlgo: "fixed:sha1"})
		frames("bytes")(to)
	})
	p.mustWork()
	info, err := p.in.Info()
	if err != nil {
		t.Fatal(err)
	}
	p.send(protocol.OpQueryPathInfo, func(to *protocol.Writer) { to.StorePath(info.Path) })
	p.mustWork()
	p.in.Bool()
	later, err := p.in.InfoOf(info.Path)
	if err != nil || later.NarHash != info.NarHash || later.CA != info.CA || later.RegistrationTime != info.RegistrationTime || later.RegistrationTime == 0 {
		t.Errorf("%+v, later %+v, %v", info, later, err)
	}

	p.send(protocol.OpExportPath, func(to *protocol.Writer) { aFile(w, to); to.Uint64(0) })
	p.mustWork()
	if err := theOne(p.in); err != nil || !strings.HasPrefix(p.log.data.String(), archiveOf("contents")) {
		t.Errorf("export: %v, %q", err, p.log.data.String())
	}
	p.inStep()
}

// TestSubstituteFirst tries what is missing before it says what is valid.
func TestSubstituteFirst(t *testing.T) {
	w := newWorld(t)
	gone := somePath("gone")
	w.builder.missing.WillSubstitute = []storepath.Path{gone}
	w.builder.do = fails("could not fetch '" + "x" + "'")
	p := w.dial(false, minor(38))
	for _, substitute := range []bool{false, true} {
		p.send(protocol.OpQueryValidPaths, func(to *protocol.Writer) {
			to.StorePaths([]storepath.Path{gone})
			to.Bool(substitute)
		})
		p.mustWork()
		if found, err := p.in.StorePaths(); err != nil || len(found) != 0 {
			t.Fatal(found, err)
		}
		if tried := slices.Equal(w.builder.calls, []string{"build"}); tried != substitute {
			t.Fatalf("substitute %v: %v", substitute, w.builder.calls)
		}
	}
	if !slices.Contains(p.log.lines, "warning: could not fetch 'x'") {
		t.Error(p.log.lines)
	}
	p.inStep()
}
