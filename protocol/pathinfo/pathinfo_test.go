package pathinfo

import (
	"encoding/base64"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nixdaemon/protocol/internal/fixturetest"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/storepath"
)

const dir = storepath.DefaultDir

// goldenKey is the key of upstream's tests of signatures.
const goldenKey = "test-key:tU7tTvLcScf8pmz/eTV0BEtLmRsPpZfKaRcd0nCN+pysBZPHSeg61/u2oc7mIOewfuAY1V1BiX32homTaDJ2Jw=="

func path(t testing.TB, base string) storepath.Path {
	t.Helper()
	p, err := storepath.ParseBase(base)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func secretKey(t testing.TB) SecretKey {
	t.Helper()
	k, err := ParseSecretKey(goldenKey)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// golden is a path info as upstream's JSON formats 1 to 3 have it.
type golden struct {
	Version           int
	StoreDir, NarHash string
	NarSize           uint64
	References        []string
	CA                any
	Deriver           *string
	RegistrationTime  *int64
	Ultimate          bool
	Signatures        []any
	URL, Compression  string
	DownloadHash      string
	DownloadSize      uint64
}

func (g golden) info(t *testing.T, name string) *Info {
	t.Helper()
	read := func(s string) storepath.Path {
		if !strings.HasPrefix(s, "/") {
			return path(t, s)
		}
		p, err := dir.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	info := &Info{NarSize: g.NarSize, Ultimate: g.Ultimate}
	var err error
	if info.NarHash, err = nixhash.ParseSRI(g.NarHash); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	for _, ref := range g.References {
		info.References = append(info.References, read(ref))
	}
	if g.Deriver != nil {
		info.Deriver = read(*g.Deriver)
	}
	if g.RegistrationTime != nil {
		info.RegistrationTime = *g.RegistrationTime
	}
	for _, sig := range g.Signatures {
		text, ok := sig.(string)
		if parts, isObject := sig.(map[string]any); isObject {
			text, ok = parts["keyName"].(string)+":"+parts["sig"].(string), true
		}
		parsed, err := ParseSignature(text)
		if err != nil || !ok {
			t.Fatalf("%s: signature %v: %v", name, sig, err)
		}
		info.Sigs = append(info.Sigs, parsed)
	}
	switch ca := g.CA.(type) {
	case string:
		if info.CA, err = storepath.ParseContentAddress(ca); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	case map[string]any:
		h, err := nixhash.ParseSRI(ca["hash"].(string))
		if err != nil || ca["method"] != "nar" {
			t.Fatalf("%s: %v, %v", name, ca, err)
		}
		info.CA = storepath.ContentAddress{Method: storepath.MethodNAR, Hash: h}
	}
	return info
}

// full is the path info that upstream's tests of JSON are about.
func full(t *testing.T, impure bool) *Info {
	t.Helper()
	ca := storepath.ContentAddress{Method: storepath.MethodNAR, Hash: nixhash.Of(nixhash.SHA256, "(...)")}
	other := path(t, "g1w7hy3qg1w7hy3qg1w7hy3qg1w7hy3q-bar")
	info, err := FromCA(dir, "foo", ca, storepath.References{Others: []storepath.Path{other}, Self: true})
	if err != nil {
		t.Fatal(err)
	}
	info.NarHash, _ = nixhash.Parse("sha256-FePFYIlMuycIXPZbWi7LGEiMmZSX9FMbaQenWBzm1Sc=")
	info.NarSize = 34878
	if impure {
		info.Deriver = path(t, "g1w7hy3qg1w7hy3qg1w7hy3qg1w7hy3q-bar.drv")
		info.RegistrationTime = 23423
		info.Ultimate = true
		zeros := make([]byte, 64)
		info.Sigs = []Signature{NewSignature("asdf", zeros), NewSignature("qwer", zeros)}
	}
	return info
}

func TestGoldenPathInfo(t *testing.T) {
	for _, version := range []string{"json-1", "json-2", "json-3"} {
		empty := &Info{NarHash: full(t, false).NarHash}
		for name, want := range map[string]*Info{
			"pure": full(t, false), "impure": full(t, true), "empty_pure": empty, "empty_impure": empty,
		} {
			file := "libstore/path-info/" + version + "/" + name + ".json"
			got := fixturetest.JSON[golden](t, file).info(t, file)
			want := *want
			want.Path = storepath.Path{}
			if diff := cmp.Diff(&want, got, comparable...); diff != "" {
				t.Errorf("%s (-want +got):\n%s", file, diff)
			}
		}
	}
	got := fixturetest.JSON[golden](t, "libstore/path-info/json-1/pure_noversion.json").info(t, "pure_noversion")
	if got.CA != full(t, false).CA {
		t.Errorf("pure_noversion: %v", got)
	}
}

var comparable = []cmp.Option{
	cmp.Comparer(func(a, b storepath.Path) bool { return a == b }),
	cmp.Comparer(func(a, b storepath.ContentAddress) bool { return a == b }),
	cmp.Comparer(func(a, b nixhash.Hash) bool { return a == b }),
}

func TestFingerprint(t *testing.T) {
	info := full(t, false)
	got, err := Fingerprint(dir, info)
	want := "1;/nix/store/n5wkd9frr45pa74if5gpz9j7mifg27fh-foo;" + info.NarHash.String() + ";34878;" +
		"/nix/store/g1w7hy3qg1w7hy3qg1w7hy3qg1w7hy3q-bar,/nix/store/n5wkd9frr45pa74if5gpz9j7mifg27fh-foo"
	if got != want || err != nil {
		t.Errorf("got %s, %v\nwant %s", got, err, want)
	}
	info.NarSize = 0
	_, err = Fingerprint(dir, info)
	wantErr := "cannot calculate fingerprint of path '/nix/store/n5wkd9frr45pa74if5gpz9j7mifg27fh-foo' because its size is not known"
	if err == nil || err.Error() != wantErr {
		t.Errorf("got %v, want %s", err, wantErr)
	}
	if info.Sign(dir, secretKey(t)) == nil {
		t.Error("Sign without a size succeeds")
	}
}

func TestContentAddressed(t *testing.T) {
	info := full(t, false)
	if !info.IsContentAddressed(dir) {
		t.Fatal("a path made from its content address is not its own")
	}
	if n := Keys(nil).CountValid(dir, info); n != MaxSigs {
		t.Errorf("content-addressed path counts for %d signatures", n)
	}
	for name, change := range map[string]func(*Info){
		"without self": func(i *Info) { i.References = i.References[:1] },
		"other hash":   func(i *Info) { i.CA.Hash = nixhash.Of(nixhash.SHA256, "other") },
		"other path":   func(i *Info) { i.Path = path(t, "n5wkd9frr45pa74if5gpz9j7mifg27ff-foo") },
		"flat":         func(i *Info) { i.CA.Method = storepath.MethodFlat },
		"text to self": func(i *Info) { i.CA.Method = storepath.MethodText },
		"no address":   func(i *Info) { i.CA = storepath.ContentAddress{} },
		"text not sha2": func(i *Info) {
			i.CA = storepath.ContentAddress{Method: storepath.MethodText, Hash: nixhash.Of(nixhash.MD5, "")}
		},
	} {
		changed := full(t, false)
		change(changed)
		if changed.IsContentAddressed(dir) {
			t.Errorf("%s: still content-addressed", name)
		}
		if n := Keys(nil).CountValid(dir, changed); n != 0 {
			t.Errorf("%s: counts for %d signatures", name, n)
		}
	}
}

func TestSignAndCount(t *testing.T) {
	info := full(t, false)
	info.CA = storepath.ContentAddress{}
	key := secretKey(t)
	before := info.Sigs
	if err := info.Sign(dir, key); err != nil {
		t.Fatal(err)
	}
	if before != nil || len(info.Sigs) != 1 || info.Sigs[0].KeyName() != "test-key" {
		t.Fatalf("signatures: %v", info.Sigs)
	}
	keys, err := ParseKeys([]string{key.Public().String(), "other:" + strings.Repeat("A", 43) + "="})
	if err != nil {
		t.Fatal(err)
	}
	if n := keys.CountValid(dir, info); n != 1 {
		t.Errorf("valid signatures: %d, want 1", n)
	}
	if n := (Keys{}).CountValid(dir, info); n != 0 {
		t.Errorf("nobody trusted: %d", n)
	}
	good := info.Sigs[0]
	info.Sigs = SortSignatures([]Signature{good, "other:" + good[len("test-key:"):], "test-key:YWJj", "unknown:YWJj"})
	if n := keys.CountValid(dir, info); n != 1 {
		t.Errorf("with bad signatures beside it: %d, want 1", n)
	}
	info.NarSize++
	if n := keys.CountValid(dir, info); n != 0 {
		t.Errorf("other size: %d, want 0", n)
	}
	info.NarSize = 0
	if n := keys.CountValid(dir, info); n != 0 {
		t.Errorf("no size: %d, want 0", n)
	}
}

func TestKeysKeepTheFirst(t *testing.T) {
	first, second := "k:"+strings.Repeat("A", 43)+"=", "k:"+strings.Repeat("B", 43)+"="
	keys, err := ParseKeys([]string{first, second})
	if err != nil || len(keys) != 1 || keys["k"].String() != first || keys["k"].Name() != "k" {
		t.Errorf("keys: %v, %v", keys, err)
	}
}

func TestKeyErrorsAreUpstreams(t *testing.T) {
	public := func(s string) error { _, err := ParseKeys([]string{s}); return err }
	secret := func(s string) error { _, err := ParseSecretKey(s); return err }
	signature := func(s string) error { _, err := ParseSignatures([]string{s}); return err }
	tests := []struct {
		parse    func(string) error
		in, want string
	}{
		{public, "x", "key is corrupt"},
		{public, ":YWJj", "key is corrupt"},
		{public, "x:", "key is corrupt"},
		{public, "x:YWJj", "public key is not valid"},
		{public, "x:!", "invalid character in Base64 string: '!'"},
		{secret, "x:YWJj", "secret key is not valid"},
		{secret, "x", "key is corrupt"},
		{signature, "x", "signature is corrupt"},
		{signature, ":YWJj", "signature is corrupt"},
		{signature, "x:=", "signature is corrupt"},
		{signature, "x y:YWJj", "signature is corrupt"},
		{signature, "x\ny:YWJj", "signature is corrupt"},
		{signature, "x\u00a0y:YWJj", "signature is corrupt"},
		{signature, "x\x00:YWJj", "signature is corrupt"},
		{signature, "x:a b", "invalid character in Base64 string: ' '"},
	}
	for _, tt := range tests {
		if err := tt.parse(tt.in); err == nil || err.Error() != tt.want {
			t.Errorf("%q: got %v, want %s", tt.in, err, tt.want)
		}
	}
}

func TestSignatureSets(t *testing.T) {
	// As texts "a-b:…" would come before "a:…".
	sigs, err := ParseSignatures([]string{"b:YWJj", "a-b:YWJj", "a:/w==", "a:YWJj", "b:YWJj", "a:+w"})
	want := []Signature{"a:YWJj", "a:+w==", "a:/w==", "a-b:YWJj", "b:YWJj"}
	if diff := cmp.Diff(want, sigs); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	if got := MergeSignatures(sigs[:2], sigs[1:]); cmp.Diff(want, got) != "" {
		t.Errorf("merged: %v", got)
	}
	if diff := cmp.Diff([]string{"a:YWJj", "a:+w=="}, SignatureStrings(sigs[:2])); diff != "" {
		t.Errorf("texts (-want +got):\n%s", diff)
	}
}

func TestRegistrationText(t *testing.T) {
	info := full(t, true)
	want := "/nix/store/n5wkd9frr45pa74if5gpz9j7mifg27fh-foo\n\n2\n" +
		"/nix/store/g1w7hy3qg1w7hy3qg1w7hy3qg1w7hy3q-bar\n/nix/store/n5wkd9frr45pa74if5gpz9j7mifg27fh-foo\n" +
		"/nix/store/g1w7hy3qg1w7hy3qg1w7hy3qg1w7hy3q-bar\n\n0\n"
	got := RegistrationText(dir, []*Info{info, {Path: info.References[0]}})
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func FuzzParseSignature(f *testing.F) {
	f.Add("asdf:" + base64.StdEncoding.EncodeToString(make([]byte, 64)))
	f.Add("a:YW\nJj=x")
	f.Add(":::")
	f.Fuzz(func(t *testing.T, s string) {
		sig, err := ParseSignature(s)
		if err != nil {
			return
		}
		if again, err := ParseSignature(string(sig)); again != sig || err != nil {
			t.Errorf("%q reads as %q, which reads as %q (%v)", s, sig, again, err)
		}
		if again := NewSignature(sig.KeyName(), sig.Bytes()); again != sig {
			t.Errorf("parts of %q make %q", sig, again)
		}
	})
}

func BenchmarkParseSignature(b *testing.B) {
	text := "cache.nixos.org-1:" + base64.StdEncoding.EncodeToString(make([]byte, 64))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseSignature(text); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCountValid(b *testing.B) {
	key, _ := ParseSecretKey(goldenKey)
	info := &Info{Path: path(b, "n5wkd9frr45pa74if5gpz9j7mifg27fh-foo"), NarHash: nixhash.Of(nixhash.SHA256, ""), NarSize: 1}
	if err := info.Sign(dir, key); err != nil {
		b.Fatal(err)
	}
	keys := Keys{}
	keys.Add(key.Public())
	for b.Loop() {
		if keys.CountValid(dir, info) != 1 {
			b.Fatal("signature is not valid")
		}
	}
}
