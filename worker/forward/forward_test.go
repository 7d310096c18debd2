package forward_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"nixdaemon/localstore"
	"nixdaemon/protocol"
	"nixdaemon/protocol/client"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/nar/nartest"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
	"nixdaemon/protocol/wire"
	"nixdaemon/worker/workertest"
)

// minors are versions with every form of upload and build request.
var minors = []uint8{18, 21, 25, 32, 38}

// trip is one client's way through a forwarding daemon to an inner one.
type trip struct {
	testing.TB
	ctx   context.Context
	c     *client.Client
	dir   storepath.Dir
	root  string // a directory for links
	minor uint8  // of the client
	inner uint8  // of the connection between the daemons
	tag   string // makes names its own
	again func() *client.Client
	built storepath.Path // a derivation
	old   bool           // the inner daemon is an old release: other texts, fewer operations
}

func (tr *trip) must(what string, err error) {
	tr.Helper()
	if err != nil {
		tr.Fatalf("%s: %s", what, message(err))
	}
}

// mayLack is must for what old releases do not know.
func (tr *trip) mayLack(what string, err error) {
	tr.Helper()
	if !tr.old || !strings.HasPrefix(message(err), "invalid operation") {
		tr.must(what, err)
	}
}

// TestOperations runs every request through every pair of versions.
func TestOperations(t *testing.T) {
	d := workertest.New(t)
	for _, inner := range minors {
		socket := outer{socket: d.Listen(t), dir: d.Store.Dir(), version: inner}.serve(t)
		for _, minor := range minors {
			t.Run(fmt.Sprintf("1.%d over 1.%d", minor, inner), func(t *testing.T) {
				again := func() *client.Client { return connect(t, socket, d.Store.Dir(), minor, nil) }
				exercise(&trip{TB: t, ctx: t.Context(), c: again(), again: again, dir: d.Store.Dir(),
					root: t.TempDir(), minor: minor, inner: inner, tag: fmt.Sprintf("%d-%d", minor, inner)})
			})
		}
	}
}

func exercise(tr *trip) {
	a := tr.additions()
	tr.queries(a)
	tr.builds()
	tr.realisations()
	tr.exports(a)
	tr.upkeep(a)
}

// add adds a file as the client's version does.
func (tr *trip) add(name, text string, m storepath.Method) *pathinfo.Info {
	tr.Helper()
	req := protocol.AddToStoreRequest{Name: name + tr.tag, MethodAlgo: storepath.PrintCAMethod(m, nixhash.SHA256), OldMethod: m, OldAlgo: nixhash.SHA256}
	var data io.Reader = strings.NewReader(text)
	if m == storepath.MethodNAR || tr.minor < 25 {
		data = bytes.NewReader(nartest.File(text))
	}
	info, err := tr.c.AddToStore(tr.ctx, req, data)
	tr.must("add "+name, err)
	return info
}

func (tr *trip) additions() storepath.Path {
	flat := tr.add("flat", "flat contents", storepath.MethodFlat)
	tree := tr.add("tree", strings.Repeat("tree contents ", 20000), storepath.MethodNAR)
	for _, p := range []storepath.Path{flat.Path, tree.Path} {
		info, err := tr.c.PathInfo(tr.ctx, p)
		if err != nil || info == nil || info.NarSize == 0 || info.CA.IsZero() {
			tr.Fatalf("after adding %s: %+v, %v", p, info, err)
		}
	}
	text, err := tr.c.AddText(tr.ctx, protocol.AddTextRequest{Name: "text" + tr.tag, Text: "refers to " + tr.dir.Print(flat.Path), References: []storepath.Path{flat.Path}})
	tr.must("add text", err)
	tr.must("add NAR", tr.c.AddNAR(tr.ctx, protocol.AddToStoreNarRequest{Info: tr.made("nar", text), DontCheckSigs: true}, bytes.NewReader(nartest.File("nar"+tr.tag))))
	if tr.minor >= 32 {
		one, two := tr.made("one"), tr.made("two")
		several := []client.Addition{
			{Info: one, NAR: bytes.NewReader(nartest.File("one" + tr.tag))},
			{Info: one, NAR: bytes.NewReader(nartest.File("one" + tr.tag))}, // valid by now: skipped, whoever skips it
			{Info: two, NAR: bytes.NewReader(nartest.File("two" + tr.tag))},
		}
		if tr.old { // some releases do not skip
			several = slices.Delete(several, 1, 2)
		}
		tr.must("add several", tr.c.AddMultiple(tr.ctx, false, true, several))
		valid, err := tr.c.ValidPaths(tr.ctx, storepath.SortUnique([]storepath.Path{one.Path, two.Path}), true)
		if err != nil || len(valid) != 2 {
			tr.Errorf("after adding several: %v, %v", valid, err)
		}
	}
	return text
}

// made is the metadata of an input-addressed path.
func (tr *trip) made(name string, refs ...storepath.Path) *pathinfo.Info {
	archive := nartest.File(name + tr.tag)
	hash := nixhash.Of(nixhash.SHA256, string(archive))
	p, err := tr.dir.MakePath("output:out", hash, name+tr.tag)
	tr.must("make path", err)
	return &pathinfo.Info{Path: p, NarHash: hash, NarSize: uint64(len(archive)), References: refs, RegistrationTime: 1000}
}

func (tr *trip) queries(text storepath.Path) {
	valid, err := tr.c.IsValid(tr.ctx, text)
	if err != nil || !valid {
		tr.Errorf("IsValid: %v, %v", valid, err)
	}
	info, err := tr.c.PathInfo(tr.ctx, tr.made("absent").Path)
	if err != nil || info != nil {
		tr.Errorf("PathInfo of an invalid path: %v, %v", info, err)
	}
	nar := tr.made("nar")
	referrers, err := tr.c.Referrers(tr.ctx, text)
	if err != nil || !slices.Equal(referrers, []storepath.Path{nar.Path}) {
		tr.Errorf("Referrers: %v, %v", referrers, err)
	}
	p, err := tr.c.PathFromHashPart(tr.ctx, text.HashPart())
	if err != nil || p != text {
		tr.Errorf("PathFromHashPart: %v, %v", p, err)
	}
	all, err := tr.c.AllValidPaths(tr.ctx)
	if err != nil || !slices.Contains(all, text) {
		tr.Errorf("AllValidPaths: %d, %v", len(all), err)
	}
	sig := pathinfo.Signature("k-1:" + strings.Repeat("A", 86) + "==")
	tr.must("add signature", tr.c.AddSignatures(tr.ctx, nar.Path, []pathinfo.Signature{sig}))
	info, err = tr.c.PathInfo(tr.ctx, nar.Path)
	if err != nil || info.NarHash != nar.NarHash || info.RegistrationTime != 1000 || !slices.Contains(info.Sigs, sig) {
		tr.Errorf("PathInfo: %+v, %v", info, err)
	}
	var dumped bytes.Buffer
	tr.must("dump", tr.c.Dump(tr.ctx, nar.Path, &dumped))
	if !bytes.Equal(dumped.Bytes(), nartest.File("nar"+tr.tag)) {
		tr.Errorf("dumped %d other bytes", dumped.Len())
	}
	if err := tr.c.Dump(tr.ctx, tr.made("absent").Path, io.Discard); !strings.HasSuffix(message(err), "is not valid") {
		tr.Errorf("dump of an invalid path: %v", err)
	}
	infos, err := tr.c.SubstitutableInfos(tr.ctx, map[storepath.Path]storepath.ContentAddress{text: {}})
	subst, err2 := tr.c.SubstitutablePaths(tr.ctx, []storepath.Path{text})
	if err != nil || err2 != nil || len(infos)+len(subst) > 0 {
		tr.Errorf("substitutable: %v, %v, %v, %v", infos, err, subst, err2)
	}
}

// drv writes a derivation that runs a script.
func (tr *trip) drv(name, script string) (storepath.Path, *derivation.Derivation) {
	tr.Helper()
	d := &derivation.Derivation{BasicDerivation: derivation.BasicDerivation{
		Name: name + tr.tag, Platform: "x86_64-linux", Builder: "/bin/sh", Args: []string{"-c", script},
		Env:     map[string]string{"name": name + tr.tag, "out": "", "PATH": "/bin:/usr/bin"},
		Outputs: map[string]derivation.Output{"out": {Kind: derivation.Deferred}},
	}, InputDrvs: map[storepath.Path]*derivation.InputOutputs{}}
	hasher := &derivation.Hasher{Dir: tr.dir}
	tr.must("fill outputs", hasher.FillOutputPaths(tr.ctx, d))
	text, err := d.ATerm(tr.dir)
	tr.must("write derivation", err)
	p, err := tr.c.AddText(tr.ctx, protocol.AddTextRequest{Name: d.Name + ".drv", Text: text})
	tr.must("add derivation", err)
	return p, d
}

func outputs(drv storepath.Path) []derivation.DerivedPath {
	return []derivation.DerivedPath{{Drv: &derivation.SingleDerivedPath{Path: drv}, Outputs: derivation.OutputsSpec{All: true}}}
}

func (tr *trip) builds() {
	drv, d := tr.drv("good", "echo hello; echo made > $out")
	out := d.Outputs["out"].Path
	read, err := tr.c.ReadDerivation(tr.ctx, drv)
	if err != nil || read.Name != d.Name {
		tr.Errorf("ReadDerivation: %v, %v", read, err)
	}
	known, err := tr.c.OutputMap(tr.ctx, drv)
	if err != nil || known["out"] != out {
		tr.Errorf("OutputMap: %v, %v", known, err)
	}
	missing, err := tr.c.QueryMissing(tr.ctx, outputs(drv))
	if err != nil || !slices.Equal(missing.WillBuild, []storepath.Path{drv}) {
		tr.Errorf("QueryMissing: %+v, %v", missing, err)
	}
	results, err := tr.c.BuildPathsWithResults(tr.ctx, outputs(drv), derivation.BuildNormal)
	if err != nil || len(results) != 1 || !results[0].Status.Success() || results[0].BuiltOutputs["out"].OutPath != out {
		tr.Errorf("BuildPathsWithResults: %+v, %v", results, err)
	}
	tr.must("build again", tr.c.BuildPaths(tr.ctx, outputs(drv), derivation.BuildNormal))
	tr.must("ensure path", tr.c.EnsurePath(tr.ctx, out))
	if err := tr.c.EnsurePath(tr.ctx, tr.made("absent").Path); err == nil {
		tr.Error("an unknown path was ensured")
	}
	derivers, err := tr.c.ValidDerivers(tr.ctx, out)
	if err != nil || !slices.Equal(derivers, []storepath.Path{drv}) {
		tr.Errorf("ValidDerivers: %v, %v", derivers, err)
	}
	bad, _ := tr.drv("bad", "echo oh no >&2; exit 3")
	err = tr.c.BuildPaths(tr.ctx, outputs(bad), derivation.BuildNormal)
	if text := message(err); !tr.old && !strings.Contains(text, "builder failed with exit code 3") || !strings.Contains(text, "failed") {
		tr.Errorf("failing build: %q", text)
	}
	drv2, d2 := tr.drv("given", "echo given > $out")
	res, err := tr.c.BuildDerivation(tr.ctx, protocol.BuildDerivationRequest{DrvPath: drv2, Derivation: &d2.BasicDerivation})
	if err != nil || !res.Status.Success() {
		tr.Errorf("BuildDerivation: %+v, %v", res, err)
	}
	tr.built = drv2
}

func (tr *trip) realisations() {
	if tr.minor < 27 {
		return
	}
	r := &pathinfo.Realisation{ID: pathinfo.DrvOutput{DrvHash: nixhash.Of(nixhash.SHA256, tr.tag), Output: "out"}, OutPath: tr.made("nar").Path}
	err := tr.c.RegisterRealisation(tr.ctx, r)
	if tr.inner < 27 {
		if !strings.Contains(message(err), "too old to support content-addressing derivations") {
			tr.Errorf("register realisation: %v", err)
		}
		return
	}
	tr.must("register realisation", err)
	found, err := tr.c.QueryRealisation(tr.ctx, r.ID)
	if err != nil || found == nil || found.OutPath != r.OutPath {
		tr.Errorf("QueryRealisation: %+v, %v", found, err)
	}
}

// exports sends a path out and, from its export, in again.
func (tr *trip) exports(p storepath.Path) {
	want := fmt.Sprintf("refers to %s", tr.dir.Print(tr.add("flat", "flat contents", storepath.MethodFlat).Path))
	export := bytes.NewBuffer(wireBytes(1))
	tr.must("export", tr.c.Do(tr.ctx, func(conn *client.Conn) error {
		return conn.CallPushed(protocol.OpExportPath, func(w *protocol.Writer) {
			w.StorePath(p)
			w.Uint64(0)
		}, export, func(r *protocol.Reader) error {
			_, err := r.Uint64()
			return err
		})
	}))
	if !bytes.Contains(export.Bytes(), []byte(want)) {
		tr.Errorf("export of %d bytes lacks the text", export.Len())
	}
	export.Write(wireBytes(0))
	if _, err := tr.c.CollectGarbage(tr.ctx, protocol.GCRequest{Action: protocol.GCDeleteSpecific, Paths: []storepath.Path{p}}); err == nil {
		tr.Error("a path that is referred to was deleted")
	}
	var paths []storepath.Path
	tr.must("import", tr.c.Do(tr.ctx, func(conn *client.Conn) error {
		return conn.CallPulled(protocol.OpImportPaths, func(*protocol.Writer) {}, export, func(r *protocol.Reader) (err error) {
			paths, err = r.StorePaths()
			return err
		})
	}))
	if !slices.Equal(paths, []storepath.Path{p}) {
		tr.Errorf("imported %v", paths)
	}
}

func wireBytes(n uint64) []byte {
	var b bytes.Buffer
	w := wire.NewWriter(&b)
	w.Uint64(n)
	w.Flush()
	return b.Bytes()
}

func (tr *trip) upkeep(p storepath.Path) {
	tr.must("temporary root", tr.c.AddTempRoot(tr.ctx, p))
	link := filepath.Join(tr.root, "link"+tr.tag)
	tr.must("link", os.Symlink(tr.dir.Print(p), link))
	tr.must("indirect root", tr.c.AddIndirectRoot(tr.ctx, link))
	roots, err := tr.c.Roots(tr.ctx)
	if err != nil || !slices.Contains(roots, protocol.Root{Link: link, Target: p}) {
		tr.Errorf("Roots: %v, %v", roots, err)
	}
	if tr.minor >= 36 && tr.inner >= 36 && !tr.old {
		perm := filepath.Join(tr.root, "perm"+tr.tag)
		got, err := tr.c.AddPermRoot(tr.ctx, p, perm)
		if err != nil || got != perm {
			tr.Errorf("AddPermRoot: %q, %v", got, err)
		}
	}
	tr.must("optimise", tr.c.Optimise(tr.ctx))
	found, err := tr.c.Verify(tr.ctx, true, false)
	if err != nil || found {
		tr.Errorf("Verify: %v, %v", found, err)
	}
	// What a connection adds it also protects, so another one has to delete it.
	tr.c.Close()
	tr.c = tr.again()
	nar := tr.made("nar").Path
	if !tr.eventuallyDead(nar) {
		tr.Error("a path without roots is not dead")
	}
	gone, err := tr.c.CollectGarbage(tr.ctx, protocol.GCRequest{Action: protocol.GCDeleteSpecific, Paths: []storepath.Path{nar}, MaxFreed: 1<<64 - 1})
	if err != nil || len(gone.Paths) != 1 {
		tr.Errorf("delete: %+v, %v", gone, err)
	}
	if valid, err := tr.c.IsValid(tr.ctx, nar); err != nil || valid {
		tr.Errorf("a deleted path is valid: %v, %v", valid, err)
	}
	if tr.minor >= 32 { // last: a daemon that does not know it hangs up
		tr.mayLack("add build log", tr.c.AddBuildLog(tr.ctx, tr.built, strings.NewReader("a log\n")))
	}
}

// eventuallyDead waits for the daemons to notice that a connection has ended.
func (tr *trip) eventuallyDead(p storepath.Path) bool {
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		dead, err := tr.c.CollectGarbage(tr.ctx, protocol.GCRequest{Action: protocol.GCReturnDead, WholeStore: true, MaxFreed: 1<<64 - 1})
		tr.must("find dead paths", err)
		if slices.Contains(dead.Paths, tr.dir.Print(p)) {
			return true
		}
	}
	return false
}

// TestTempRootsEndWithTheConnection checks that roots live behind, for as long
// as the client's connection.
func TestTempRootsEndWithTheConnection(t *testing.T) {
	d := workertest.New(t)
	socket := outer{socket: d.Listen(t), dir: d.Store.Dir()}.serve(t)
	info, err := d.Store.AddDump(t.Context(), localstore.DumpSpec{Name: "x", Method: storepath.MethodText, Algo: nixhash.SHA256},
		strings.NewReader("x"), localstore.AddOptions{})
	if err != nil {
		t.Fatal(err)
	}
	c := connect(t, socket, d.Store.Dir(), 0, nil)
	if err := c.AddTempRoot(t.Context(), info.Path); err != nil {
		t.Fatal(err)
	}
	live := func() bool {
		paths, err := d.Store.TempRootPaths()
		if err != nil {
			t.Fatal(err)
		}
		return slices.Contains(paths, info.Path)
	}
	if !live() {
		t.Error("a temporary root did not arrive")
	}
	c.Close()
	for live() { // ends with the test's own time limit if it never does
	}
}
