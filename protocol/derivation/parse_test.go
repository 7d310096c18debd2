package derivation

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nixdaemon/protocol/internal/fixturetest"
	"nixdaemon/protocol/storepath"
)

const hash = "g1w7hy3qg1w7hy3qg1w7hy3qg1w7hy3q"

// aterm is a derivation with one part replaced.
func aterm(outputs, drvs, srcs, args, env string) string {
	return `Derive([` + outputs + `],[` + drvs + `],[` + srcs + `],"sys","/bin/sh",[` + args + `],[` + env + `])`
}

func TestParseErrorsAreUpstreams(t *testing.T) {
	format := func(s string) string { return "error parsing derivation '/nix/store/" + hash + "-x.drv': " + s }
	disabled := func(feature, reason string) string {
		return fmt.Sprintf("experimental Nix feature '%s' is disabled%s; add '--extra-experimental-features %s' to enable it", feature, reason, feature)
	}
	out := func(path, algo, digest string) string {
		return aterm(`("out","`+path+`","`+algo+`","`+digest+`")`, "", "", "", "")
	}
	const path = "/nix/store/" + hash + "-x"
	digest := strings.Repeat("0", 64)
	tests := []struct{ name, in, want string }{
		{"empty", "", format("file is empty (possible filesystem corruption)")},
		{"no D", "x", format("expected string 'D'")},
		{"neither", "Dx", "derivation does not start with 'Derive' or 'DrvWithVersion'"},
		{"only D", "D", "derivation does not start with 'Derive' or 'DrvWithVersion'"},
		{"Derive", "Deriv(", format("expected string 'erive('")},
		{"version", "DrvX", format("expected string 'rvWithVersion('")},
		{"no list", "Derive(x", format("expected string '['")},
		{"no output", "Derive([x", format("expected string '('")},
		{"no string", "Derive([(x", format("expected string '\"'")},
		{"open string", `Derive([("x`, format("unterminated string in derivation")},
		{"open escape", `Derive([("x\"`, format("unterminated string in derivation")},
		{"no comma", `Derive([("x")`, format("expected string ','")},
		{"no inputs", `Derive([]`, format("expected string ',['")},
		{"bad input", aterm("", `("x",["out"])`, "", "", ""), format("bad path 'x' in derivation")},
		{"bad source", aterm("", "", `""`, "", ""), format("bad path '' in derivation")},
		{"foreign source", aterm("", "", `"/x"`, "", ""), `path "/x" is not in the Nix store`},
		{"no end", strings.TrimSuffix(aterm("", "", "", "", ""), ")"), format("expected string ')'")},
		{"endless list", `Derive([],[],["/nix/store/` + hash + `-x"`, format("expected string '\"'")},
		{"bad output path", out("x", "", ""), format("bad path 'x' in derivation")},
		{"fixed without path", out("", "sha256", digest), format("bad path '' in derivation")},
		{"fixed with bad digest", out(path, "sha256", "x"), "hash 'x' has wrong length for hash algorithm 'sha256'"},
		{"unknown algorithm", out(path, "x", digest), "unknown hash algorithm 'x', expect 'blake3', 'md5', 'sha1', 'sha256', or 'sha512'"},
		{"floating", out("", "sha256", ""), disabled("ca-derivations", "")},
		{"impure", out("", "sha256", "impure"), disabled("impure-derivations", "")},
		{"text", out("", "text:sha256", ""), disabled("dynamic-derivations", " (text-hashed derivation output)")},
		{"git", out("", "git:sha1", ""), disabled("git-hashing", "")},
		{"blake3", out("", "blake3", ""), disabled("blake3-hashes", "")},
		{"dynamic", `DrvWithVersion("xp-dyn-drv",`, disabled("dynamic-derivations", " (derivation 'x', ATerm format version 'xp-dyn-drv')")},
		{"bad attributes", aterm("", "", "", "", `("__json","[]")`), "cannot process __json attribute: [json.exception.type_error.302] type must be object, but is array"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d, err := ParseFile(dir, base(t, hash+"-x.drv"), tt.in, Features{})
			if err == nil || err.Error() != tt.want {
				t.Errorf("got  %v, %v\nwant %s", d, err, tt.want)
			}
		})
	}
	for in, want := range map[string]string{
		out(path, "sha256", "impure"): "impure derivation output should not specify output path",
		out(path, "sha256", ""):       "content-addressing derivation output should not specify output path",
		`DrvWithVersion("xp-dyn-drv",[],[("/nix/store/` + hash + `-x.drv",x)]`: "invalid inputDrvs entry in derivation",
	} {
		if _, err := Parse(dir, in, "x", AllFeatures()); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	disabledErr := (*DisabledFeatureError)(nil)
	if _, err := Parse(dir, out("", "sha256", ""), "x", Features{}); !errors.As(err, &disabledErr) || disabledErr.Feature != "ca-derivations" {
		t.Errorf("got %v", err)
	}
	if _, err := ParseFile(dir, base(t, hash+"-x"), "", Features{}); err == nil || err.Error() != "store path '"+hash+"-x' is not a valid derivation path" {
		t.Errorf("got %v", err)
	}
}

func TestParseLeniencies(t *testing.T) {
	const path = "/nix/store/" + hash
	tests := []struct{ name, in, same string }{
		{"commas", aterm("", "", "", `,"a""b"`, ""), aterm("", "", "", `"a","b"`, "")},
		{"sets", aterm("", `("`+path+`-d.drv",["b","a","b"])`, `"`+path+`-b","`+path+`-a","`+path+`-b"`, "", ""),
			aterm("", `("`+path+`-d.drv",["a","b"])`, `"`+path+`-a","`+path+`-b"`, "", "")},
		{"first output counts", aterm(`("o","`+path+`-a","",""),("o","`+path+`-b","","")`, "", "", "", ""), aterm(`("o","`+path+`-a","","")`, "", "", "", "")},
		{"last variable counts", aterm("", "", "", "", `("a","1"),("a","2")`), aterm("", "", "", "", `("a","2")`)},
		{"what follows", aterm("", "", "", "", "") + "x", aterm("", "", "", "", "")},
		{"escapes", aterm("", "", "", `"\a\\\"\n\t\r"`, ""), aterm("", "", "", `"a\\\"\n\t\r"`, "")},
		{"attributes", aterm("", "", "", "", `("__json","{ \"b\": 1.0, \"a\": 1e2 }")`), aterm("", "", "", "", `("__json","{\"a\":100.0,\"b\":1.0}")`)},
		{"unclean path", aterm("", "", `"/nix//store/`+hash+`-a"`, "", ""), aterm("", "", `"`+path+`-a"`, "", "")},
	}
	for _, tt := range tests {
		d, err := Parse(dir, tt.in, "x", AllFeatures())
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		if diff := cmp.Diff(tt.same, mustATerm(t, d)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

func TestDynamicNestingIsBounded(t *testing.T) {
	nested := strings.Repeat(`([],[("o",`, maxDynamicDepth+1) + `["x"]` + strings.Repeat(`)])`, maxDynamicDepth+1)
	text := `DrvWithVersion("xp-dyn-drv",[],[("/nix/store/` + hash + `-x.drv",` + nested + `)],[],"","",[],[])`
	if _, err := Parse(dir, text, "x", AllFeatures()); err == nil || !strings.Contains(err.Error(), "too deeply") {
		t.Errorf("got %v", err)
	}
}

func TestReservedVariable(t *testing.T) {
	d := floating("x")
	d.Env["__json"] = "{}"
	const want = "Cannot have an environment variable named '__json'. This key is reserved for encoding structured attrs"
	if _, err := d.ATerm(dir); err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
	if _, err := d.Path(dir); err == nil {
		t.Error("it has a path")
	}
	env := [][2]string{{"a", "1"}, {"__json", `{"k": 1}`}, {"a", "2"}}
	if err := d.SetFullEnv(env); err != nil || d.Env["a"] != "2" || *d.StructuredAttrs != `{"k":1}` {
		t.Errorf("got %v, %v", d, err)
	}
	got, err := d.FullEnv()
	if diff := cmp.Diff([][2]string{{"__json", `{"k":1}`}, {"a", "2"}}, got); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	if d.SetFullEnv([][2]string{{"__json", "x"}}) == nil {
		t.Error("attributes that are no JSON are accepted")
	}
}

func TestTypes(t *testing.T) {
	fixed := Output{Kind: FixedCA}
	tests := []struct {
		outputs map[string]Output
		want    Type
		err     string
	}{
		{map[string]Output{"a": {Kind: InputAddressed}, "b": {Kind: InputAddressed}}, Type{IsSandboxed: true, HasKnownOutputPaths: true}, ""},
		{map[string]Output{"a": {Kind: Deferred}}, Type{IsSandboxed: true, IsDeferred: true}, ""},
		{map[string]Output{"out": fixed}, Type{IsCA: true, IsFixed: true, HasKnownOutputPaths: true}, ""},
		{map[string]Output{"a": {Kind: FloatingCA, Algo: 3}, "b": {Kind: FloatingCA, Algo: 3}}, Type{IsCA: true, IsSandboxed: true}, ""},
		{map[string]Output{"a": {Kind: Impure, Algo: 1}, "b": {Kind: Impure, Algo: 2}}, Type{IsCA: true, IsImpure: true}, ""},
		{nil, Type{}, "must have at least one output"},
		{map[string]Output{"a": {Kind: InputAddressed}, "b": {Kind: Deferred}}, Type{}, "can't mix derivation output types"},
		{map[string]Output{"a": {Kind: FloatingCA, Algo: 3}, "b": {Kind: FloatingCA, Algo: 4}}, Type{}, "all floating outputs must use the same hash algorithm"},
		{map[string]Output{"dev": fixed}, Type{}, `single fixed output must be named "out"`},
		{map[string]Output{"out": fixed, "z": fixed}, Type{}, "only one fixed output is allowed for now"},
		{map[string]Output{"a": fixed, "out": fixed}, Type{}, `single fixed output must be named "out"`},
	}
	for _, tt := range tests {
		got, err := (&BasicDerivation{Outputs: tt.outputs}).Type()
		if got != tt.want || (err != nil || tt.err != "") && fmt.Sprint(err) != tt.err {
			t.Errorf("%v: got %v, %v, want %v, %s", tt.outputs, got, err, tt.want, tt.err)
		}
	}
	if !(&BasicDerivation{Builder: "builtin:fetchurl"}).IsBuiltin() || (&BasicDerivation{Builder: "/bin/sh"}).IsBuiltin() {
		t.Error("IsBuiltin is wrong")
	}
}

func TestOutputPaths(t *testing.T) {
	d := goldenDerivation(t, "hash-modulo/source-first")
	paths, err := d.OutputPaths(dir)
	if err != nil || paths["out"].Base() != "i00sflxqsj37lfmf95m8mn0grv615hpj-source" {
		t.Errorf("got %v, %v", paths, err)
	}
	if paths, err := floating("x").OutputPaths(dir); err != nil || !paths["out"].IsZero() {
		t.Errorf("floating: got %v, %v", paths, err)
	}
	d.Outputs["out"] = Output{Kind: FixedCA, CA: storepath.ContentAddress{Method: storepath.MethodText, Hash: d.Outputs["out"].CA.Hash}}
	d.Name = "bad name"
	if _, err := d.OutputPaths(dir); err == nil {
		t.Error("a bad name makes a path")
	}
	if _, err := d.ATerm(dir); err == nil {
		t.Error("a bad name makes a text")
	}
	// The derivations of upstream's tests of hashing refer to each other.
	p, err := goldenDerivation(t, "hash-modulo/source-first").Path(dir)
	if err != nil || p.Base() != "q4mzjdlh5px6977h7v5fdsk1p33yg583-source.drv" {
		t.Errorf("path %v, %v", p, err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(aterm(`("out","","r:sha256","")`, `("/nix/store/`+hash+`-d.drv",["a"])`, `"/nix/store/`+hash+`-s"`, `"\n\\"`, `("a","b"),("__json","{\"x\":[1.5]}")`))
	f.Add(`DrvWithVersion("xp-dyn-drv",[("o","","text:sha256","impure")],[("/nix/store/` + hash + `-x.drv",(["a"],[("o",["x"])]))],[],"","",[],[])`)
	f.Add(aterm(`("out","/nix/store/`+hash+`-x","sha1","da39a3ee5e6b4b0d3255bfef95601890afd80709")`, "", "", "", ""))
	f.Fuzz(func(t *testing.T, text string) {
		d, err := Parse(dir, text, "x", AllFeatures())
		if err != nil {
			return
		}
		out, err := d.ATerm(dir)
		if err != nil || hasUnquotable(d) {
			return
		}
		again, err := Parse(dir, out, "x", AllFeatures())
		if err != nil {
			t.Fatalf("%q is written %q: %v", text, out, err)
		}
		if diff := cmp.Diff(mustATerm(t, again), out); diff != "" {
			t.Errorf("%q written and read again (-want +got):\n%s", text, diff)
		}
		if _, _, err := d.BasicDerivation.Options(dir); err != nil {
			return
		}
		if d.StructuredAttrs != nil {
			if _, _, err := d.AttrsFiles(dir, nil); err != nil {
				t.Error(err)
			}
		}
	})
}

// hasUnquotable tells whether a string that upstream writes without escapes
// needs some, so that the text does not read back.
func hasUnquotable(d *Derivation) bool {
	bad := func(s string) bool { return strings.ContainsAny(s, "\"\\\n\r\t") }
	var within func(in *InputOutputs) bool
	within = func(in *InputOutputs) bool {
		for name, child := range in.Dynamic {
			if bad(name) || within(child) {
				return true
			}
		}
		return bad(strings.Join(in.Outputs, ""))
	}
	for _, in := range d.InputDrvs {
		if within(in) {
			return true
		}
	}
	return bad(d.Platform) || bad(strings.Join(d.OutputNames(), ""))
}

// synthetic is a derivation of about ten kilobytes without golden files.
func synthetic() string {
	var drvs, srcs, env []string
	for i := range 40 {
		drvs = append(drvs, fmt.Sprintf(`("/nix/store/%s-dep%02d.drv",["dev","out"])`, hash, i))
		env = append(env, fmt.Sprintf(`("var%02d","/nix/store/%s-dep%02d/lib\n%s")`, i, hash, i, strings.Repeat("x", 60)))
	}
	for i := range 10 {
		srcs = append(srcs, fmt.Sprintf(`"/nix/store/%s-src%02d"`, hash, i))
	}
	return aterm(`("out","/nix/store/`+hash+`-x","","")`, strings.Join(drvs, ","), strings.Join(srcs, ","), `"-e","x"`, strings.Join(env, ","))
}

func BenchmarkParse(b *testing.B) {
	texts := map[string]string{"synthetic": synthetic()}
	b.Run("synthetic", func(b *testing.B) { benchmarkParse(b, texts["synthetic"]) })
	b.Run("firefox", func(b *testing.B) { benchmarkParse(b, fixturetest.Read(b, "libstore/derivation/firefox.drv")) })
}

func benchmarkParse(b *testing.B, text string) {
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse(dir, text, "x", Features{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkATerm(b *testing.B) {
	d, err := Parse(dir, synthetic(), "x", Features{})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := d.ATerm(dir); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPath(b *testing.B) {
	d, err := Parse(dir, synthetic(), "x", Features{})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := d.Path(dir); err != nil {
			b.Fatal(err)
		}
	}
}
