package serve

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/protocoltest"
	"nixdaemon/protocol/storepath"
	"nixdaemon/protocol/wire"
)

// codec reads one value, writes it again, and shows it as the file's JSON does;
// nil has no JSON.
type codec struct {
	version Version
	each    func(t *testing.T, r *Reader, w *Writer) any
	all     func(t *testing.T, r *Reader, w *Writer) any
}

func at(minor uint8) Version { return 2<<8 | Version(minor) }

func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func viewResult(res derivation.BuildResult) any {
	view := map[string]any{"success": res.Status.Success(), "status": res.Status.String(), "timesBuilt": res.TimesBuilt,
		"startTime": res.StartTime, "stopTime": res.StopTime}
	if !res.Status.Success() {
		view["errorMsg"], view["isNonDeterministic"] = res.ErrorMsg, res.IsNonDeterministic
		return view
	}
	outputs := map[string]string{}
	for name, built := range res.BuiltOutputs {
		outputs[name] = built.OutPath.Base()
	}
	view["builtOutputs"] = outputs
	return view
}

func result(t *testing.T, r *Reader, w *Writer) any {
	res := must(r.BuildResult())(t)
	w.BuildResult(res)
	return viewResult(res)
}

func info(t *testing.T, r *Reader, w *Writer) any {
	v := must(r.Info(storepath.Path{}))(t)
	w.Info(v)
	view := map[string]any{"narSize": v.NarSize, "references": bases(v.References)}
	if !v.Deriver.IsZero() {
		view["deriver"] = v.Deriver.Base()
	}
	if !v.NarHash.IsZero() {
		view["narHash"] = v.NarHash.SRI()
	}
	return view
}

func bases(paths []storepath.Path) []string {
	out := []string{}
	for _, p := range paths {
		out = append(out, p.Base())
	}
	return out
}

var goldens = map[string]codec{
	"build-result-2.2":            {version: at(2), each: result},
	"build-result-2.3":            {version: at(3), each: result},
	"build-result-2.6":            {version: at(6), each: result},
	"build-result-2.7-compat":     {version: at(7), each: result},
	"build-result-2.8":            {version: at(8), each: result},
	"unkeyed-valid-path-info-2.3": {version: at(3), each: info},
	"unkeyed-valid-path-info-2.4": {version: at(4), each: info},
	"build-options-2.1":           {version: at(1), all: options},
	"build-options-2.2":           {version: at(2), all: options},
	"build-options-2.3":           {version: at(3), all: options},
	"build-options-2.7":           {version: at(7), all: options},
}

// options are 5, 6 and so on in the files (serve-protocol.cc of libstore-tests).
func options(t *testing.T, r *Reader, w *Writer) any {
	o := must(r.BuildOptions())(t)
	w.BuildOptions(o)
	want := BuildOptions{MaxSilentTime: 5, BuildTimeout: 6, Version: r.Version}
	if r.Version.AtLeast(2) {
		want.MaxLogSize = 7
	}
	if r.Version.AtLeast(3) {
		want.Repeats, want.EnforceDeterminism = 8, !r.Version.AtLeast(7)
	}
	if r.Version.AtLeast(7) {
		want.KeepFailed = true
	}
	if diff := cmp.Diff(want, o); diff != "" {
		t.Errorf("options (-want +got):\n%s", diff)
	}
	return nil
}

func TestGolden(t *testing.T) {
	dir := protocoltest.Fixtures(t, "libstore", "serve-protocol")
	for name, c := range goldens {
		t.Run(name, func(t *testing.T) {
			data, err := os.ReadFile(filepath.Join(dir, name+".bin"))
			if err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			r := NewReader(wire.NewReader(bytes.NewReader(data)), storepath.DefaultDir, c.version)
			r.Features = derivation.AllFeatures()
			w := NewWriter(wire.NewWriter(&out), storepath.DefaultDir, c.version)
			if c.all != nil {
				c.all(t, r, w)
			} else {
				eachGolden(t, filepath.Join(dir, name+".json"), c, r, w)
			}
			if err := w.Flush(); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(out.Bytes(), data) {
				t.Errorf("written again as\n%q, want\n%q", out.Bytes(), data)
			}
		})
	}
}

// eachGolden compares those fields that the value has in its version.
func eachGolden(t *testing.T, file string, c codec, r *Reader, w *Writer) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var want []map[string]any
	if err := json.Unmarshal(text, &want); err != nil {
		t.Fatal(err)
	}
	for i, fields := range want {
		view := must(json.Marshal(c.each(t, r, w)))(t)
		var got map[string]any
		if err := json.Unmarshal(view, &got); err != nil {
			t.Fatal(err)
		}
		for name, value := range got {
			if outputs, ok := fields["builtOutputs"].(map[string]any); ok && name == "builtOutputs" {
				paths := map[string]any{}
				for output, built := range outputs {
					paths[output] = built.(map[string]any)["outPath"]
				}
				fields[name] = paths
			}
			if text, ok := value.(string); ok && name == "narHash" && !strings.HasPrefix(text, "sha256-") {
				t.Errorf("hash %s", text)
			}
			if diff := cmp.Diff(fields[name], value); diff != "" {
				t.Errorf("%d: %s (-want +got):\n%s", i, name, diff)
			}
		}
	}
}

// TestHandshakeGolden has the bytes of a server of 2.5.
func TestHandshakeGolden(t *testing.T) {
	dir := protocoltest.Fixtures(t, "libstore", "serve-protocol")
	data, err := os.ReadFile(filepath.Join(dir, "handshake-to-client.bin"))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	r, _, err := ClientHandshake(wire.NewReader(bytes.NewReader(data)), wire.NewWriter(&out), storepath.DefaultDir, Latest, "h")
	if err != nil || r.Version != at(5) {
		t.Errorf("version %v, %v", r.Version, err)
	}
	want := []byte{0xeb, 0x9d, 0x0c, 0x39, 0, 0, 0, 0, 8, 2, 0, 0, 0, 0, 0, 0}
	if !bytes.Equal(out.Bytes(), want) {
		t.Errorf("client says %x, want %x", out.Bytes(), want)
	}
}
