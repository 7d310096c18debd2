package protocol

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
	"nixdaemon/protocol/wire"
)

var (
	pathA = mustPath("g1w7hy3qg1w7hy3qg1w7hy3qg1w7hy3q-a")
	pathB = mustPath("n5wkd9frr45pa74if5gpz9j7mifg27fh-b")
	drvA  = mustPath("g1w7hy3qg1w7hy3qg1w7hy3qg1w7hy3q-a.drv")
)

func mustPath(base string) storepath.Path {
	p, err := storepath.ParseBase(base)
	if err != nil {
		panic(err)
	}
	return p
}

// exact compares values with unexported state by their own equality.
var exact = cmp.Options{
	cmp.Comparer(func(a, b storepath.Path) bool { return a == b }),
	cmp.Comparer(func(a, b nixhash.Hash) bool { return a == b }),
	cmpopts.EquateEmpty(),
}

// ends gives a writer and a reader of what it wrote.
func ends(v Version) (*Writer, func() *Reader) {
	var buf bytes.Buffer
	w := NewWriter(wire.NewWriter(&buf), storepath.DefaultDir, v)
	return w, func() *Reader {
		w.Flush()
		r := NewReader(wire.NewReader(&buf), storepath.DefaultDir, v)
		r.Features = derivation.AllFeatures()
		return r
	}
}

// versions are all that a peer can make us speak.
func versions() []Version {
	var all []Version
	for minor := uint8(18); minor <= 38; minor++ {
		all = append(all, Version{Number: Minor(minor)})
	}
	return append(all, DaemonVersion())
}

func testInfo() *pathinfo.Info {
	return &pathinfo.Info{
		Path: pathA, Deriver: drvA, NarHash: nixhash.Of(nixhash.SHA256, "x"), References: []storepath.Path{pathA, pathB},
		RegistrationTime: 42, NarSize: 120, Ultimate: true,
		Sigs: []pathinfo.Signature{"k:" + pathinfo.Signature(bytes.Repeat([]byte("A"), 86)) + "=="},
		CA:   storepath.ContentAddress{Method: storepath.MethodNAR, Hash: nixhash.Of(nixhash.SHA256, "y")},
	}
}

// roundTrip checks that what write encodes, read decodes, in every version.
func roundTrip[T any](t *testing.T, name string, want func(Version) T, write func(*Writer, T), read func(*Reader) (T, error)) {
	t.Helper()
	for _, v := range versions() {
		w, reader := ends(v)
		value := want(v)
		write(w, value)
		w.Uint64(0xfeed)
		r := reader()
		got, err := read(r)
		if err != nil {
			t.Errorf("%s at %v: %v", name, v, err)
			continue
		}
		if diff := cmp.Diff(value, got, exact); diff != "" {
			t.Errorf("%s at %v (-want +got):\n%s", name, v, diff)
		}
		if n, err := r.Uint64(); n != 0xfeed || err != nil {
			t.Errorf("%s at %v: stream is out of step: %x, %v", name, v, n, err)
		}
	}
}

// same is a value that does not depend on the version.
func same[T any](v T) func(Version) T { return func(Version) T { return v } }

func TestRequestsRoundTrip(t *testing.T) {
	roundTrip(t, "info", same(testInfo()), (*Writer).Info, (*Reader).Info)
	roundTrip(t, "AddToStore", func(v Version) AddToStoreRequest {
		if v.AtLeast(25) {
			return AddToStoreRequest{Name: "a", MethodAlgo: "fixed:r:sha256", References: []storepath.Path{pathB}, Repair: true}
		}
		return AddToStoreRequest{Name: "a", DataIsNAR: true, OldMethod: storepath.MethodFlat, OldAlgo: nixhash.SHA1}
	}, (*Writer).AddToStore, (*Reader).AddToStore)
	roundTrip(t, "AddText", same(AddTextRequest{"a", "text", []storepath.Path{pathB}}), (*Writer).AddText, (*Reader).AddText)
	roundTrip(t, "AddToStoreNar", same(AddToStoreNarRequest{testInfo(), true, false}), (*Writer).AddToStoreNar, (*Reader).AddToStoreNar)
	roundTrip(t, "GC", func(v Version) GCRequest {
		req := GCRequest{Action: GCDeleteSpecific, Paths: []storepath.Path{pathA}, IgnoreLiveness: true, MaxFreed: 1 << 40}
		req.DeleteReferrers = v.Has(FeatureDeleteDeadSpecificReferrers)
		return req
	}, (*Writer).GC, (*Reader).GC)
	roundTrip(t, "GC of the whole store", same(GCRequest{Action: GCDeleteDead, WholeStore: true, MaxFreed: 7}), (*Writer).GC, (*Reader).GC)
	roundTrip(t, "GCResults", same(GCResults{[]string{"/nix/store/x"}, 99}), (*Writer).GCResults, (*Reader).GCResults)
	roundTrip(t, "roots", same([]Root{{"{censored}", pathA}, {"/link", pathB}}), (*Writer).Roots, (*Reader).Roots)
	roundTrip(t, "options", same(ClientOptions{
		KeepFailed: true, Fallback: true, Verbosity: 3, MaxJobs: 4, MaxSilentTime: 5, BuildVerbosity: 7, Cores: 8, Substitute: true,
		Overrides: []Override{{"a", "b"}},
	}), (*Writer).Options, (*Reader).Options)
	roundTrip(t, "missing", same(Missing{[]storepath.Path{pathA}, nil, []storepath.Path{pathB}, 1, 2}), (*Writer).Missing, (*Reader).Missing)
	roundTrip(t, "output map", same(map[string]storepath.Path{"out": pathA, "dev": {}}), (*Writer).OutputMap, (*Reader).OutputMap)
	roundTrip(t, "derived paths", same([]derivation.DerivedPath{
		{Path: pathA}, {Drv: &derivation.SingleDerivedPath{Path: drvA}, Outputs: derivation.OutputsSpec{Names: []string{"a", "b"}}},
	}), (*Writer).DerivedPaths, (*Reader).DerivedPaths)
	roundTrip(t, "substitutable info", same(SubstitutableInfo{Deriver: drvA, References: []storepath.Path{pathB}, DownloadSize: 3, NarSize: 4}),
		(*Writer).SubstitutableInfo, func(r *Reader) (SubstitutableInfo, error) { return r.SubstitutableInfo(storepath.Path{}) })
}

func TestBasicDerivationRoundTrip(t *testing.T) {
	attrs := `{"a":1}`
	req := BuildDerivationRequest{DrvPath: drvA, Mode: derivation.BuildCheck, Derivation: &derivation.BasicDerivation{
		Name: "a", InputSrcs: []storepath.Path{pathB}, Platform: "x86_64-linux", Builder: "/bin/sh", Args: []string{"-c", ":"},
		Env: map[string]string{"out": "/x"}, StructuredAttrs: &attrs,
		Outputs: map[string]derivation.Output{
			"out": {Kind: derivation.InputAddressed, Path: pathA},
			"f":   {Kind: derivation.FloatingCA, Method: storepath.MethodNAR, Algo: nixhash.SHA256},
			"i":   {Kind: derivation.Impure, Method: storepath.MethodNAR, Algo: nixhash.SHA256},
			"d":   {Kind: derivation.Deferred},
		},
	}}
	roundTrip(t, "BuildDerivation", same(req), func(w *Writer, req BuildDerivationRequest) {
		if err := w.BuildDerivation(req); err != nil {
			t.Error(err)
		}
	}, (*Reader).BuildDerivation)
}

// A fixed output's path stands for its content address: a client cannot claim another one.
func TestForgedFixedOutput(t *testing.T) {
	req := BuildDerivationRequest{DrvPath: drvA, Derivation: &derivation.BasicDerivation{Name: "a", Outputs: map[string]derivation.Output{
		"out": {Kind: derivation.FixedCA, CA: storepath.ContentAddress{Method: storepath.MethodNAR, Hash: nixhash.Of(nixhash.SHA256, "x")}},
	}}}
	for _, name := range []string{"a", "b"} {
		w, reader := ends(DaemonVersion())
		req.Derivation.Name = name // which the path is made of when it is written
		if err := w.BuildDerivation(req); err != nil {
			t.Fatal(err)
		}
		got, err := reader().BuildDerivation()
		if name == "a" && (err != nil || got.Derivation.Outputs["out"] != req.Derivation.Outputs["out"]) {
			t.Errorf("honest: %+v, %v", got, err)
		}
		if name == "b" && (err == nil || !strings.HasSuffix(err.Error(), "-b', which does not match its content address")) {
			t.Errorf("forged: %v", err)
		}
	}
}

func TestErrorsRoundTrip(t *testing.T) {
	roundTrip(t, "error", func(v Version) *Error {
		if !v.AtLeast(26) {
			return &Error{Message: "no", Status: 100}
		}
		return &Error{Message: "no", Traces: []string{"while trying"}, Status: 1}
	}, (*Writer).Error, func(r *Reader) (*Error, error) {
		if tag, err := r.Frame(); tag != FrameError || err != nil {
			return nil, fmt.Errorf("tag %x, %v", uint64(tag), err)
		}
		return r.Error()
	})
}

// TestOldAddToStore covers what upstream calls a compatibility hack: a
// request that is not "fixed" means a NAR with sha256, whatever else it says.
func TestOldAddToStore(t *testing.T) {
	tests := []struct {
		fixed, recursive uint64
		algo             string
		method           storepath.Method
		want             nixhash.Algo
		err              string
	}{
		{0, 0, "md5", storepath.MethodNAR, nixhash.SHA256, ""},
		{1, 0, "md5", storepath.MethodFlat, nixhash.MD5, ""},
		{1, 1, "sha1", storepath.MethodNAR, nixhash.SHA1, ""},
		{1, 2, "sha1", 0, 0, "unsupported FileIngestionMethod with value of 2; you may need to upgrade nix-daemon"},
		{1, 256, "sha1", 0, 0, "serialised integer 256 is too large for type 'h'"},
		{1, 0, "crc", 0, 0, "unknown hash algorithm 'crc'"},
	}
	for _, tt := range tests {
		w, reader := ends(at(24))
		w.String("name")
		w.Uint64(tt.fixed)
		w.Uint64(tt.recursive)
		w.String(tt.algo)
		req, err := reader().AddToStore()
		if tt.err != "" {
			if err == nil || err.Error() != tt.err && !bytes.HasPrefix([]byte(err.Error()), []byte(tt.err)) {
				t.Errorf("%+v: got error %v", tt, err)
			}
			continue
		}
		if err != nil || req.OldMethod != tt.method || req.OldAlgo != tt.want || !req.DataIsNAR {
			t.Errorf("%+v: got %+v, %v", tt, req, err)
		}
	}
}

// TestMalformed lists what is refused, and how.
func TestMalformed(t *testing.T) {
	tests := []struct {
		name  string
		write func(*Writer)
		read  func(*Reader) error
		want  string
	}{
		{"build mode", func(w *Writer) { w.Uint64(3) }, func(r *Reader) error { _, err := r.BuildMode(); return err }, "Invalid build mode"},
		{"wide build mode", func(w *Writer) { w.Uint64(1 << 8) }, func(r *Reader) error { _, err := r.BuildMode(); return err },
			"serialised integer 256 is too large for type 'h'"},
		{"op", func(w *Writer) { w.Uint64(1 << 32) }, func(r *Reader) error { _, err := r.Op(); return err },
			"serialised integer 4294967296 is too large for type 'j'"},
		{"GC action", func(w *Writer) { w.Uint64(4) }, func(r *Reader) error { _, err := r.GC(); return err }, "Invalid GC action"},
		{"GC paths", func(w *Writer) { w.Uint64(0); w.Uint64(2) }, func(r *Reader) error { _, err := r.GC(); return err },
			"Invalid whole store indicator from remote"},
		{"status", func(w *Writer) { w.Uint64(15) }, func(r *Reader) error { _, err := r.BuildResult(); return err },
			"Invalid BuildResult status 15 from remote"},
		{"trust", func(w *Writer) { w.Uint64(3) }, func(r *Reader) error { _, err := r.trust(); return err }, "Invalid trusted status from remote"},
		{"path", func(w *Writer) { w.String("/etc/passwd") }, func(r *Reader) error { _, err := r.StorePath(); return err },
			`path "/etc/passwd" is not in the Nix store`},
		{"no path", func(w *Writer) { w.String("") }, func(r *Reader) error { _, err := r.StorePath(); return err },
			"empty path is not a valid store path"},
		{"list", func(w *Writer) { w.Uint64(1 << 60) }, func(r *Reader) error { _, err := r.StorePaths(); return err },
			fmt.Sprintf("list of %d elements exceeds the limit of %d", uint64(1)<<60, wire.MaxCount)},
		{"string", func(w *Writer) { w.Uint64(1 << 60) }, func(r *Reader) error { _, err := r.Text(); return err }, "string is too long"},
		{"field", func(w *Writer) { w.Uint64(7) }, func(r *Reader) error { _, err := r.field(); return err },
			"got unsupported field type 7 from Nix daemon"},
		{"error", func(w *Writer) { w.String("Bug") }, func(r *Reader) error { _, err := r.Error(); return err }, "unexpected error type 'Bug'"},
		{"micros", func(w *Writer) { w.Uint64(2) }, func(r *Reader) error { _, err := r.optionalMicros(); return err }, "Invalid optional tag from remote"},
		{"realisation", func(w *Writer) { w.Uint64(2) }, func(r *Reader) error { _, err := r.FoundRealisation(pathinfo.DrvOutput{}); return err },
			"Invalid optional build trace from remote"},
		{"derivation name", func(w *Writer) { w.StorePath(pathA) }, func(r *Reader) error { _, err := r.BuildDerivation(); return err },
			"store path '" + pathA.Base() + "' is not a valid derivation path"},
	}
	for _, tt := range tests {
		w, reader := ends(DaemonVersion())
		tt.write(w)
		if err := tt.read(reader()); err == nil || err.Error() != tt.want {
			t.Errorf("%s: got error %v, want %s", tt.name, err, tt.want)
		}
	}
}

// recorder is a sink that keeps what it is given.
type recorder struct{ lines []string }

func (s *recorder) Message(level activity.Level, text string) {
	s.lines = append(s.lines, fmt.Sprint("message ", level, text))
}

func (s *recorder) Start(id activity.ID, level activity.Level, kind activity.Type, text string, fields []activity.Field, parent activity.ID) {
	s.lines = append(s.lines, fmt.Sprint("start ", id, level, kind, text, fields, parent))
}

func (s *recorder) Stop(id activity.ID) { s.lines = append(s.lines, fmt.Sprint("stop ", id)) }

func (s *recorder) Result(id activity.ID, kind activity.ResultType, fields []activity.Field) {
	s.lines = append(s.lines, fmt.Sprint("result ", id, kind, fields))
}

func TestFrames(t *testing.T) {
	w, reader := ends(at(38))
	fields := []activity.Field{activity.Number(7), activity.Text("x")}
	w.LogLine("hello\n")
	w.StartActivity(1, activity.Info, activity.Build, "building", fields, 2)
	w.Result(1, activity.BuildLogLine, fields)
	w.StopActivity(1)
	w.Frame(FrameLast)
	r := reader()
	var got, want recorder
	for {
		tag, err := r.Frame()
		if err != nil {
			t.Fatal(err)
		}
		known, err := r.Tell(tag, &got)
		if err != nil {
			t.Fatal(err)
		}
		if !known {
			if tag != FrameLast {
				t.Errorf("got tag %x, want the last", uint64(tag))
			}
			break
		}
	}
	want.Message(activity.Error, "hello")
	want.Start(1, activity.Info, activity.Build, "building", fields, 2)
	want.Result(1, activity.BuildLogLine, fields)
	want.Stop(1)
	if diff := cmp.Diff(want.lines, got.lines); diff != "" {
		t.Errorf("frames (-want +got):\n%s", diff)
	}
}

func TestUnknownOp(t *testing.T) {
	for op := range Op(60) {
		if op.String() == "" && UnknownOp(op).Error() != fmt.Sprintf("invalid operation %d", op) {
			t.Errorf("op %d: %v", op, UnknownOp(op))
		}
	}
	if errors.Is(UnknownOp(2), ErrMagic) {
		t.Error("an unknown operation is no bad magic")
	}
}
