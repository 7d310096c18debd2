package derivation

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
)

func withAttrs(t testing.TB, text string) *BasicDerivation {
	t.Helper()
	d := floating("x")
	attrs, err := parseAttrs(text)
	if err != nil {
		t.Fatal(err)
	}
	d.StructuredAttrs = attrs
	return &d.BasicDerivation
}

func TestAttrsFiles(t *testing.T) {
	d := withAttrs(t, `{"str":"it's","int":-5,"whole":3.0,"frac":1.5,"null":null,"yes":true,"no":false,
		"list":["a b",1,null],"nested":[["a"]],"map":{"k'":"v","n":7},"deep":{"a":{}},"bad-name":"x","_ok1":"y","1x":"z",
		"big":5000000000,"empty":{},"none":[],"outputs":["replaced"]}`)
	jsonText, shell, err := d.AttrsFiles(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	placeholder := HashPlaceholder("out")
	wantShell := `declare _ok1='y'
declare big=705032704
declare -A empty=()
declare int=-5
declare -a list=('a b' 1 '' )
declare -A map=(['k'\''']='v' ['n']=7 )
declare no=
declare -a none=()
declare null=''
declare -A outputs=(['out']='` + placeholder + `' )
declare str='it'\''s'
declare whole=3
declare yes=1
`
	if diff := cmp.Diff(wantShell, shell); diff != "" {
		t.Errorf(".attrs.sh (-want +got):\n%s", diff)
	}
	wantJSON := `{"1x":"z","_ok1":"y","bad-name":"x","big":5000000000,"deep":{"a":{}},"empty":{},"frac":1.5,"int":-5,` +
		`"list":["a b",1,null],"map":{"k'":"v","n":7},"nested":[["a"]],"no":false,"none":[],"null":null,` +
		`"outputs":{"out":"` + placeholder + `"},"str":"it's","whole":3.0,"yes":true}`
	if diff := cmp.Diff(wantJSON, jsonText); diff != "" {
		t.Errorf(".attrs.json (-want +got):\n%s", diff)
	}
	if _, _, err := (&BasicDerivation{Name: "x"}).AttrsFiles(dir, nil); err == nil {
		t.Error("a derivation without attributes has files of them")
	}
}

func TestAttrsFilesWithGraph(t *testing.T) {
	d := withAttrs(t, `{"exportReferencesGraph":{"graph":["x"]},"graph":"replaced"}`)
	a, b := base(t, hash+"-a"), base(t, hash+"-b")
	h := nixhash.Of(nixhash.SHA256, "")
	graph := []ExportedPath{
		{&pathinfo.Info{Path: a, NarHash: h, NarSize: 5, References: []storepath.Path{a, b}}, 12},
		{&pathinfo.Info{Path: b, NarHash: h, NarSize: 7, CA: storepath.ContentAddress{Method: storepath.MethodNAR, Hash: h}}, 7},
	}
	jsonText, shell, err := d.AttrsFiles(dir, map[string][]ExportedPath{"graph": graph})
	if err != nil {
		t.Fatal(err)
	}
	const nix32 = "sha256:0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73"
	want := `"graph":[{"closureSize":12,"narHash":"` + nix32 + `","narSize":5,"path":"/nix/store/` + hash + `-a","references":["/nix/store/` +
		hash + `-a","/nix/store/` + hash + `-b"],"valid":true},{"ca":"fixed:r:` + nix32 + `","closureSize":7,"narHash":"` + nix32 +
		`","narSize":7,"path":"/nix/store/` + hash + `-b","references":[],"valid":true}]`
	if !strings.Contains(jsonText, want) {
		t.Errorf("got %s\nwant in it %s", jsonText, want)
	}
	if strings.Contains(shell, "graph") {
		t.Errorf("a shell cannot hold a graph: %s", shell)
	}
}

func TestOptionWarnings(t *testing.T) {
	d := withAttrs(t, `{"allowedReferences":[],"maxSize":1,"exportReferencesGraph":"x","disallowedReferences":[]}`)
	d.Env["passAsFile"] = "a"
	o, warnings, err := d.Options(dir)
	const disables = "'structuredAttrs' disables the effect of the top-level attribute "
	want := []string{
		disables + "'allowedReferences'; use 'outputChecks' instead",
		disables + "'disallowedReferences'; use 'outputChecks' instead",
		disables + "'maxSize'; use 'outputChecks' instead",
		disables + "'passAsFile'; because all JSON is always passed via file",
		"'exportReferencesGraph' in structured attrs is not a JSON object, ignoring",
	}
	if diff := cmp.Diff(want, warnings); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	if len(o.PassAsFile) != 0 || len(o.ExportReferencesGraph) != 0 {
		t.Errorf("ignored attributes have an effect: %+v", o)
	}
}

func TestOptionErrorsAreUpstreams(t *testing.T) {
	env := func(name, value string) *BasicDerivation {
		d := floating("x")
		d.Env[name] = value
		return &d.BasicDerivation
	}
	const number = "Expected JSON value to be of type '%s' but it is of type 'number': 1"
	wrong := func(kind string) string { return strings.Replace(number, "%s", kind, 1) }
	tests := []struct {
		d           *BasicDerivation
		want, trace string
	}{
		{env("exportReferencesGraph", "a"), "odd number of tokens in 'exportReferencesGraph': 'a'", ""},
		{env("exportReferencesGraph", ".a /nix/store"), "invalid file name '.a' in 'exportReferencesGraph'", ""},
		{env("exportReferencesGraph", "a/b /nix/store"), "invalid file name 'a/b' in 'exportReferencesGraph'", ""},
		{env("exportReferencesGraph", "a /x"), "path '/x' is not in the Nix store", ""},
		{withAttrs(t, `{"preferLocalBuild":1}`), wrong("boolean"), `while parsing attribute "preferLocalBuild"`},
		{withAttrs(t, `{"__sandboxProfile":1}`), wrong("string"), `while parsing attribute "__sandboxProfile"`},
		{withAttrs(t, `{"impureEnvVars":1}`), wrong("array"), `while parsing attribute "impureEnvVars"`},
		{withAttrs(t, `{"impureEnvVars":[1]}`), wrong("string"), `while parsing attribute "impureEnvVars"`},
		{withAttrs(t, `{"outputChecks":1}`), wrong("object"), ""},
		{withAttrs(t, `{"outputChecks":{"out":1}}`), wrong("object"), ""},
		{withAttrs(t, `{"outputChecks":{"out":{"allowedReferences":1}}}`), wrong("array"), `while parsing attribute 'outputChecks."out".allowedReferences'`},
		{withAttrs(t, `{"outputChecks":{"out":{"maxSize":"1"}}}`), "[json.exception.type_error.302] type must be number, but is string", ""},
		{withAttrs(t, `{"unsafeDiscardReferences":1}`), wrong("object"), "while parsing attribute 'unsafeDiscardReferences'"},
		{withAttrs(t, `{"unsafeDiscardReferences":{"out":1}}`), wrong("boolean"), "while parsing attribute 'unsafeDiscardReferences'"},
		{withAttrs(t, `{"exportReferencesGraph":{"g":1}}`), "'exportReferencesGraph' value is not an array or a string", ""},
		{withAttrs(t, `{"exportReferencesGraph":{"g":[["/x"]]}}`), "path '/x' is not in the Nix store", ""},
	}
	for _, tt := range tests {
		_, _, err := tt.d.Options(dir)
		if err == nil || err.Error() != tt.want {
			t.Errorf("got %v, want %s", err, tt.want)
		}
		trace := ""
		if traced, ok := err.(*TraceError); ok {
			trace = traced.Trace
		}
		if trace != tt.trace {
			t.Errorf("%v: trace %q, want %q", err, trace, tt.trace)
		}
	}
}

func TestOptions(t *testing.T) {
	d := floating("x")
	d.Env["passAsFile"] = "b a\n b"
	d.Env["allowedReferences"] = ""
	d.Env["allowSubstitutes"] = "0"
	d.Env["exportReferencesGraph"] = "g-1.x /nix/store/" + hash + "-a/sub"
	o, _, err := d.BasicDerivation.Options(dir)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"a", "b"}, o.PassAsFile); diff != "" || o.AllowSubstitutes {
		t.Errorf("%+v\n%s", o, diff)
	}
	checks := o.Checks("anything")
	if checks.AllowedReferences == nil || len(checks.AllowedReferences) != 0 || checks.AllowedRequisites != nil || !checks.IgnoreSelfRefs {
		t.Errorf("checks %+v: nothing allowed must differ from everything allowed", checks)
	}
	if got := o.ExportReferencesGraph["g-1.x"]; len(got) != 1 || got[0].Path.Base() != hash+"-a" {
		t.Errorf("graph %v", got)
	}
	o, _, err = withAttrs(t, `{"outputChecks":{"out":{"maxSize":1.9}},"unsafeDiscardReferences":{"out":true}}`).Options(dir)
	if err != nil || *o.Checks("out").MaxSize != 1 || o.Checks("dev").MaxSize != nil || !o.UnsafeDiscardReferences["out"] {
		t.Errorf("%+v, %v", o, err)
	}
}

func TestPassAsFileName(t *testing.T) {
	if got, want := PassAsFileName("text"), ".attr-"+nixhash.Of(nixhash.SHA256, "text").Nix32(); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
