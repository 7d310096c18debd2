package protocol

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/protocoltest"
	"nixdaemon/protocol/storepath"
	"nixdaemon/protocol/wire"
)

// codec decodes one value, shows it as upstream's JSON does, and encodes it.
type codec struct {
	version Version
	// step handles one value of the file.
	step func(t *testing.T, r *Reader, w *Writer) any
	once bool // the file holds one value that is not in a JSON array
}

func at(minor uint8, features ...Feature) Version { return Version{Minor(minor), features} }

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// otherForm are the files that spell the same value as another release does:
// the JSON of 2.35 has signatures as objects, where the releases that are sent
// it, up to 2.34, have texts.
var otherForm = map[string]bool{"realisation": true}

// objectSigs is HashJSON with its signatures as 2.35 shows them.
func objectSigs(r *pathinfo.Realisation) string {
	sigs := []any{}
	for _, sig := range r.Sigs {
		name, text, _ := strings.Cut(string(sig), ":")
		sigs = append(sigs, map[string]any{"keyName": name, "sig": text})
	}
	view := jsonOf(r.HashJSON()).(map[string]any)
	view["signatures"] = sigs
	text, _ := json.Marshal(view)
	return string(text)
}

// value makes a step of a decoder, an encoder and a view.
func value[T any](read func(*Reader) (T, error), write func(*Writer, T), view func(*Reader, T) any) func(*testing.T, *Reader, *Writer) any {
	return func(t *testing.T, r *Reader, w *Writer) any {
		v := must[T](t)(read(r))
		write(w, v)
		return view(r, v)
	}
}

var goldens = map[string]codec{
	"build-mode": {at(38), value((*Reader).BuildMode, (*Writer).BuildMode,
		func(_ *Reader, m derivation.BuildMode) any { return int(m) }), false},
	"build-result-1.27":                           {at(27), buildResult(false), false},
	"build-result-1.28":                           {at(28), buildResult(false), false},
	"build-result-1.29":                           {at(29), buildResult(false), false},
	"build-result-1.29-compat":                    {at(29), buildResult(true), false},
	"build-result-1.37":                           {at(37), buildResult(false), false},
	"build-result-realisation-with-path-not-hash": {at(38, FeatureRealisationWithPath), buildResult(true), false},
	"keyed-build-result-1.29": {at(29), value(func(r *Reader) (derivation.KeyedBuildResult, error) {
		p, err := r.DerivedPath()
		if err != nil {
			return derivation.KeyedBuildResult{}, err
		}
		res, err := r.BuildResult()
		return derivation.KeyedBuildResult{Path: p, BuildResult: res}, err
	}, func(w *Writer, k derivation.KeyedBuildResult) {
		w.DerivedPath(k.Path)
		w.BuildResult(k.BuildResult)
	}, func(_ *Reader, k derivation.KeyedBuildResult) any {
		view := viewBuildResult(k.BuildResult, false)
		view["path"] = viewDerivedPath(k.Path)
		return view
	}), false},
	"content-address":          {at(38), contentAddress, false},
	"optional-content-address": {at(38), contentAddress, false},
	"derived-path-1.29":        {at(29), derivedPath, false},
	"derived-path-1.30":        {at(30), derivedPath, false},
	"drv-output": {at(27), value((*Reader).DrvOutput, (*Writer).DrvOutput,
		func(_ *Reader, id pathinfo.DrvOutput) any { return id.HashID() }), false},
	"drv-output-realisation-with-path-not-hash": {at(38, FeatureRealisationWithPath), value((*Reader).DrvOutput, (*Writer).DrvOutput,
		func(_ *Reader, id pathinfo.DrvOutput) any {
			return map[string]any{"drvPath": id.DrvPath.Base(), "outputName": id.Output}
		}), false},
	"optional-store-path": {at(38), value((*Reader).OptionalStorePath, (*Writer).StorePath, viewPath), false},
	"store-path":          {at(38), value((*Reader).StorePath, (*Writer).StorePath, viewPath), false},
	"optional-trusted-flag": {at(38), value((*Reader).trust, func(w *Writer, t Trust) { w.Uint64(uint64(t)) },
		func(_ *Reader, t Trust) any {
			return map[Trust]any{TrustUnknown: nil, Trusted: true, NotTrusted: false}[t]
		}), false},
	"realisation":           {at(31), realisation(objectSigs), false},
	"realisation-with-deps": {at(31), realisation((*pathinfo.Realisation).HashJSON), false},
	"realisation-realisation-with-path-not-hash": {at(38, FeatureRealisationWithPath),
		realisation((*pathinfo.Realisation).PathJSON), true},
	"unkeyed-realisation-realisation-with-path-not-hash": {at(38, FeatureRealisationWithPath), value(
		func(r *Reader) (*pathinfo.Realisation, error) { return r.unkeyedRealisation(pathinfo.DrvOutput{}) },
		(*Writer).unkeyedRealisation,
		func(_ *Reader, v *pathinfo.Realisation) any { return jsonOf(v.ValueJSON()) }), true},
	"string": {at(38), value(func(r *Reader) (string, error) { return r.String(1000) },
		func(w *Writer, s string) { w.String(s) }, func(_ *Reader, s string) any { return s }), false},
	"unkeyed-valid-path-info-1.15": {at(15), value(func(r *Reader) (*pathinfo.Info, error) { return r.InfoOf(storepath.Path{}) },
		(*Writer).InfoOf, viewInfo), false},
	"valid-path-info-1.15": {at(15), value((*Reader).Info, (*Writer).Info, viewInfo), false},
	"valid-path-info-1.16": {at(16), value((*Reader).Info, (*Writer).Info, viewInfo), false},
}

var contentAddress = value((*Reader).ContentAddress, func(w *Writer, ca storepath.ContentAddress) { w.String(ca.String()) },
	func(_ *Reader, ca storepath.ContentAddress) any { return viewCA(ca) })

var derivedPath = value((*Reader).DerivedPath, (*Writer).DerivedPath,
	func(_ *Reader, p derivation.DerivedPath) any { return viewDerivedPath(p) })

func realisation(show func(*pathinfo.Realisation) string) func(*testing.T, *Reader, *Writer) any {
	return value((*Reader).Realisation, (*Writer).Realisation,
		func(_ *Reader, r *pathinfo.Realisation) any { return jsonOf(show(r)) })
}

func buildResult(valuesOnly bool) func(*testing.T, *Reader, *Writer) any {
	return value((*Reader).BuildResult, (*Writer).BuildResult,
		func(_ *Reader, res derivation.BuildResult) any { return viewBuildResult(res, valuesOnly) })
}

// statusNames are those that occur in the files.
var statusNames = map[derivation.BuildStatus]string{
	derivation.StatusBuilt: "Built", derivation.StatusOutputRejected: "OutputRejected",
	derivation.StatusNotDeterministic: "NotDeterministic",
}

func viewBuildResult(res derivation.BuildResult, valuesOnly bool) map[string]any {
	view := map[string]any{
		"status": statusNames[res.Status], "success": res.Status.Success(), "timesBuilt": res.TimesBuilt,
		"startTime": res.StartTime, "stopTime": res.StopTime,
	}
	if res.CPUUser != nil {
		view["cpuUser"], view["cpuSystem"] = *res.CPUUser, *res.CPUSystem
	}
	if !res.Status.Success() {
		view["errorMsg"], view["isNonDeterministic"] = res.ErrorMsg, res.IsNonDeterministic
		return view
	}
	outputs := map[string]any{}
	for name, built := range res.BuiltOutputs {
		if valuesOnly {
			outputs[name] = jsonOf(built.ValueJSON())
		} else {
			outputs[name] = jsonOf(built.HashJSON())
		}
	}
	view["builtOutputs"] = outputs
	return view
}

func viewPath(_ *Reader, p storepath.Path) any {
	if p.IsZero() {
		return nil
	}
	return p.Base()
}

func viewCA(ca storepath.ContentAddress) any {
	if ca.IsZero() {
		return nil
	}
	method := map[storepath.Method]string{storepath.MethodText: "text", storepath.MethodFlat: "flat", storepath.MethodNAR: "nar"}
	return map[string]any{"hash": ca.Hash.SRI(), "method": method[ca.Method]}
}

func viewDerivedPath(p derivation.DerivedPath) any {
	if p.Drv == nil {
		return p.Path.Base()
	}
	names := p.Outputs.Names
	if p.Outputs.All {
		names = []string{"*"}
	}
	return map[string]any{"drvPath": p.Drv.Path.Base(), "outputs": names}
}

func viewInfo(r *Reader, info *pathinfo.Info) any {
	view := map[string]any{
		"ca": viewCA(info.CA), "deriver": viewPath(nil, info.Deriver), "narHash": info.NarHash.SRI(), "narSize": info.NarSize,
		"registrationTime": info.RegistrationTime, "storeDir": string(r.Dir), "ultimate": info.Ultimate, "version": 3,
	}
	refs, sigs := []string{}, []any{}
	for _, ref := range info.References {
		refs = append(refs, ref.Base())
	}
	for _, sig := range info.Sigs {
		name, text, _ := strings.Cut(string(sig), ":")
		sigs = append(sigs, map[string]any{"keyName": name, "sig": text})
	}
	view["references"], view["signatures"] = refs, sigs
	if !info.Path.IsZero() {
		view["path"] = info.Path.Base()
	}
	return view
}

func jsonOf(text string) any {
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		panic(err)
	}
	return v
}

// normal takes a value through JSON, so that two of the same text are equal.
func normal(t *testing.T, v any) any {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return jsonOf(string(text))
}

func TestGolden(t *testing.T) {
	for _, folder := range []string{"worker-protocol", "common-protocol"} {
		dir := protocoltest.Fixtures(t, "libstore", folder)
		files, err := filepath.Glob(filepath.Join(dir, "*.bin"))
		if err != nil || len(files) == 0 {
			t.Fatalf("no golden files in %s: %v", dir, err)
		}
		for _, file := range files {
			name := strings.TrimSuffix(filepath.Base(file), ".bin")
			t.Run(folder+"/"+name, func(t *testing.T) { golden(t, file, name) })
		}
	}
}

// otherwise are the files that TestGolden does not handle, and which test does.
var otherwise = map[string]string{
	"client-handshake-info_1_30": "TestGoldenHandshake", "client-handshake-info_1_33": "TestGoldenHandshake",
	"client-handshake-info_1_35": "TestGoldenHandshake", "handshake-to-client": "TestGoldenHandshake",
	"set": "TestGoldenLists", "vector": "TestGoldenLists",
}

func golden(t *testing.T, file, name string) {
	c, ok := goldens[name]
	if !ok {
		if otherwise[name] == "" {
			t.Fatalf("no test decodes %s", file)
		}
		return
	}
	data := must[[]byte](t)(os.ReadFile(file))
	want := jsonOf(string(must[[]byte](t)(os.ReadFile(strings.TrimSuffix(file, ".bin") + ".json"))))
	in := wire.NewReader(bytes.NewReader(data))
	r := NewReader(in, storepath.DefaultDir, c.version)
	r.Features = derivation.AllFeatures()
	var out bytes.Buffer
	w := NewWriter(wire.NewWriter(&out), storepath.DefaultDir, c.version)
	var got any
	if list, many := want.([]any); many && !c.once {
		var values []any
		for range list {
			values = append(values, c.step(t, r, w))
		}
		got = values
	} else {
		got = c.step(t, r, w)
	}
	if _, err := in.Uint64(); err != io.EOF {
		t.Errorf("bytes are left after the last value: %v", err)
	}
	if diff := cmp.Diff(want, normal(t, got)); diff != "" {
		t.Errorf("decoded (-want +got):\n%s", diff)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	if !otherForm[name] && !bytes.Equal(out.Bytes(), data) {
		t.Errorf("encoded:\n%q\nwant:\n%q", out.Bytes(), data)
	}
}

// TestGoldenLists reads lists and sets of strings: three of them, and one of
// lists.
func TestGoldenLists(t *testing.T) {
	for _, name := range []string{"set", "vector"} {
		file := filepath.Join(protocoltest.Fixtures(t, "libstore", "common-protocol"), name)
		data := must[[]byte](t)(os.ReadFile(file + ".bin"))
		var want []json.RawMessage
		if err := json.Unmarshal(must[[]byte](t)(os.ReadFile(file+".json")), &want); err != nil {
			t.Fatal(err)
		}
		r := wire.NewReader(bytes.NewReader(data))
		var out bytes.Buffer
		w := wire.NewWriter(&out)
		list := func() []string {
			l := must[[]string](t)(r.Strings(10, 100))
			w.Strings(l)
			return append([]string{}, l...)
		}
		var got []any
		for range 3 {
			got = append(got, list())
		}
		n := must[int](t)(r.Count(10))
		w.Uint64(uint64(n))
		var nested []any
		for range n {
			nested = append(nested, list())
		}
		got = append(got, nested)
		if diff := cmp.Diff(normal(t, want), normal(t, got)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		if w.Flush(); !bytes.Equal(out.Bytes(), data) {
			t.Errorf("%s encoded:\n%q\nwant:\n%q", name, out.Bytes(), data)
		}
	}
}

func TestGoldenHandshake(t *testing.T) {
	dir := protocoltest.Fixtures(t, "libstore", "worker-protocol")
	tests := []struct {
		file    string
		version Version
		infos   []ServerInfo
	}{
		{"client-handshake-info_1_30", at(30), []ServerInfo{{}}},
		{"client-handshake-info_1_33", at(33), []ServerInfo{{NixVersion: "foo"}, {NixVersion: "bar"}}},
		{"client-handshake-info_1_35", at(35), []ServerInfo{{NixVersion: "foo", Trust: NotTrusted}, {NixVersion: "bar", Trust: Trusted}}},
	}
	for _, tt := range tests {
		data := must[[]byte](t)(os.ReadFile(filepath.Join(dir, tt.file+".bin")))
		r := NewReader(wire.NewReader(bytes.NewReader(data)), storepath.DefaultDir, tt.version)
		var out bytes.Buffer
		w := NewWriter(wire.NewWriter(&out), storepath.DefaultDir, tt.version)
		for _, want := range tt.infos {
			if got := must[ServerInfo](t)(r.serverInfo()); got != want {
				t.Errorf("%s: got %+v, want %+v", tt.file, got, want)
			}
			w.serverInfo(want)
		}
		if w.Flush(); !bytes.Equal(out.Bytes(), data) {
			t.Errorf("%s encoded: %q, want %q", tt.file, out.Bytes(), data)
		}
	}
}
