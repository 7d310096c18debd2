package pathinfo

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nixdaemon/protocol/internal/fixturetest"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/storepath"
)

func byPath(t testing.TB, out string, sigs ...Signature) *Realisation {
	return &Realisation{
		ID:      DrvOutput{DrvPath: path(t, "g1w7hy3qg1w7hy3qg1w7hy3qg1w7hy3q-bar.drv"), Output: "foo"},
		OutPath: path(t, out),
		Sigs:    sigs,
	}
}

func byHash(t testing.TB, sigs ...Signature) *Realisation {
	h, err := nixhash.Parse("sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
	if err != nil {
		t.Fatal(err)
	}
	return &Realisation{
		ID:      DrvOutput{DrvHash: h, Output: "foo"},
		OutPath: path(t, "g1w7hy3qg1w7hy3qg1w7hy3qg1w7hy3q-foo.drv"),
		Sigs:    sigs,
	}
}

var zeroSig = NewSignature("asdf", make([]byte, 64))

func TestGoldenRealisations(t *testing.T) {
	simple := byPath(t, "g1w7hy3qg1w7hy3qg1w7hy3qg1w7hy3q-foo")
	signed := byPath(t, "g1w7hy3qg1w7hy3qg1w7hy3qg1w7hy3q-foo.drv", zeroSig)
	for name, want := range map[string]*Realisation{"simple": simple, "with-signature": signed, "with-signature-unstructured": signed} {
		text := fixturetest.Read(t, "libstore/realisation/"+name+".json")
		got, err := ParseRealisation(text)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if diff := cmp.Diff(want, got, comparable...); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		if name != "with-signature-unstructured" && got.PathJSON() != fixturetest.Canonical(t, text) {
			t.Errorf("%s is written %s", name, got.PathJSON())
		}
	}
	for name, want := range map[string]*Realisation{"unkeyed-simple": simple, "unkeyed-with-signature": signed} {
		text := fixturetest.Read(t, "libstore/realisation/"+name+".json")
		got, err := ParseRealisationValue(want.ID, text)
		if diff := cmp.Diff(want, got, comparable...); diff != "" || err != nil {
			t.Errorf("%s: %v (-want +got):\n%s", name, err, diff)
		}
		if got.ValueJSON() != fixturetest.Canonical(t, text) {
			t.Errorf("%s is written %s", name, got.ValueJSON())
		}
	}
}

func TestGoldenRealisationSignatures(t *testing.T) {
	key := secretKey(t)
	trusted := Keys{}
	trusted.Add(key.Public())
	for name, r := range map[string]*Realisation{
		"simple":         byPath(t, "g1w7hy3qg1w7hy3qg1w7hy3qg1w7hy3q-foo"),
		"with-signature": byPath(t, "g1w7hy3qg1w7hy3qg1w7hy3qg1w7hy3q-foo.drv", zeroSig),
	} {
		if want := fixturetest.Read(t, "libstore/realisation/"+name+"-fingerprint.txt"); r.PathFingerprint() != want {
			t.Errorf("%s: fingerprint %s, want %s", name, r.PathFingerprint(), want)
		}
		golden := fixturetest.JSON[struct{ KeyName, Sig string }](t, "libstore/realisation/"+name+"-sig.json")
		want := Signature(golden.KeyName + ":" + golden.Sig)
		if got := key.Sign(r.PathFingerprint()); got != want {
			t.Errorf("%s: signature %s, want %s", name, got, want)
		}
		if n := trusted.CountRealisation(r); n != 0 {
			t.Errorf("%s: %d signatures before signing", name, n)
		}
		r.SignByPath(key)
		if n := trusted.CountRealisation(r); n != 1 {
			t.Errorf("%s: %d signatures, want 1", name, n)
		}
		r.OutPath = path(t, "g1w7hy3qg1w7hy3qg1w7hy3qg1w7hy3q-bar")
		if n := trusted.CountRealisation(r); n != 0 {
			t.Errorf("%s: %d signatures of another path", name, n)
		}
	}
}

func TestRealisationsByHash(t *testing.T) {
	const id = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad!foo"
	const common = `{"dependentRealisations":{},"id":"` + id + `","outPath":"g1w7hy3qg1w7hy3qg1w7hy3qg1w7hy3q-foo.drv"`
	r := byHash(t, zeroSig)
	if got, want := r.HashFingerprint(), common+"}"; got != want {
		t.Errorf("fingerprint %s, want %s", got, want)
	}
	want := common + `,"signatures":["` + string(zeroSig) + `"]}`
	if got := r.HashJSON(); got != want {
		t.Errorf("JSON %s, want %s", got, want)
	}
	got, err := ParseRealisation(want)
	if diff := cmp.Diff(r, got, comparable...); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	dummy := `{"id":"sha256:` + strings.Repeat("0", 64) + `!foo","outPath":"g1w7hy3qg1w7hy3qg1w7hy3qg1w7hy3q-foo.drv"}`
	if got := r.DummyJSON(); got != dummy {
		t.Errorf("dummy %s, want %s", got, dummy)
	}
	if got, err := ParseRealisation(dummy); err != nil || got.OutPath != r.OutPath || got.ID.HashID() != DummyID("foo") {
		t.Errorf("dummy reads as %v, %v", got, err)
	}
	key := secretKey(t)
	trusted := Keys{}
	trusted.Add(key.Public())
	r.SignByHash(key)
	if n := trusted.CountRealisation(r); n != 1 {
		t.Errorf("%d signatures, want 1", n)
	}
	r.Dependent = map[string]storepath.Path{id: r.OutPath}
	if n := trusted.CountRealisation(r); n != 0 {
		t.Errorf("%d signatures with other dependencies, want 0", n)
	}
	if got, err := ParseRealisation(r.HashJSON()); err != nil || got.Dependent[id] != r.OutPath {
		t.Errorf("dependencies read as %v, %v", got, err)
	}
}

func TestDrvOutputTexts(t *testing.T) {
	hashed, pathed := byHash(t).ID, byPath(t, "g1w7hy3qg1w7hy3qg1w7hy3qg1w7hy3q-foo").ID
	if got, err := ParseDrvOutput(hashed.HashID()); got != hashed || err != nil || hashed.String() != hashed.HashID() {
		t.Errorf("%s reads as %v, %v", hashed, got, err)
	}
	if got, err := ParseDrvPathOutput(dir, pathed.PathID(dir)); got != pathed || err != nil {
		t.Errorf("%s reads as %v, %v", pathed, got, err)
	}
	if got := pathed.String(); got != "g1w7hy3qg1w7hy3qg1w7hy3qg1w7hy3q-bar.drv^foo" {
		t.Errorf("text %s", got)
	}
	if _, err := ParseDrvOutput("abc"); err == nil || err.Error() != "Invalid derivation output id abc" {
		t.Errorf("got %v", err)
	}
	if _, err := ParseDrvOutput("abc!out"); err == nil || err.Error() != "hash 'abc' does not include a type" {
		t.Errorf("got %v", err)
	}
	if _, err := ParseDrvPathOutput(dir, "abc"); err == nil || err.Error() != "Invalid derivation output id 'abc': missing '^'" {
		t.Errorf("got %v", err)
	}
	if _, err := ParseDrvPathOutput(dir, "/x^out"); err == nil {
		t.Error("a path outside the store is accepted")
	}
}

func TestParseRealisationRefuses(t *testing.T) {
	for in, want := range map[string]string{
		`[]`:                         "Expected JSON value to be of type 'object' but it is of type 'array': []",
		`{}`:                         "Expected JSON object to contain key 'id' but it doesn't: {}",
		`{"id":1}`:                   "Expected JSON value to be of type 'string' but it is of type 'number': 1",
		`{"id":"x"}`:                 `Expected JSON object to contain key 'outPath' but it doesn't: {"id":"x"}`,
		`{"key":{}}`:                 `Expected JSON object to contain key 'value' but it doesn't: {"key":{}}`,
		`{"key":1,"value":{}}`:       "Expected JSON value to be of type 'object' but it is of type 'number': 1",
		`{"id":"x!y","outPath":"z"}`: "'z' is too short to be a valid store path",
		`{"id":"x!y","outPath":"g1w7hy3qg1w7hy3qg1w7hy3qg1w7hy3q-foo","signatures":{}}`:                "Expected JSON value to be of type 'array' but it is of type 'object': {}",
		`{"id":"x!y","outPath":"g1w7hy3qg1w7hy3qg1w7hy3qg1w7hy3q-foo","signatures":[1]}`:               "Expected JSON value to be of type 'string' but it is of type 'number': 1",
		`{"id":"x!y","outPath":"g1w7hy3qg1w7hy3qg1w7hy3qg1w7hy3q-foo","signatures":[{"keyName":"a"}]}`: `Expected JSON object to contain key 'sig' but it doesn't: {"keyName":"a"}`,
	} {
		if got, err := ParseRealisation(in); err == nil || err.Error() != want {
			t.Errorf("%s reads as %v, %v\nwant %s", in, got, err, want)
		}
	}
}

func FuzzParseRealisation(f *testing.F) {
	f.Add(byHash(f, zeroSig).HashJSON())
	f.Add(byHash(f).DummyJSON())
	f.Add(byPath(f, "g1w7hy3qg1w7hy3qg1w7hy3qg1w7hy3q-foo", zeroSig).PathJSON())
	f.Fuzz(func(t *testing.T, text string) {
		r, err := ParseRealisation(text)
		if err != nil {
			return
		}
		write := (*Realisation).PathJSON
		if r.ID.DrvPath.IsZero() {
			write = (*Realisation).HashJSON
		}
		again, err := ParseRealisation(write(r))
		if err != nil {
			t.Fatalf("%q is written %q: %v", text, write(r), err)
		}
		if diff := cmp.Diff(r, again, comparable...); diff != "" {
			t.Errorf("%q written and read again (-want +got):\n%s", text, diff)
		}
	})
}
