package storepath

import (
	"errors"
	"testing"

	"nixdaemon/protocol/internal/fixturetest"
	"nixdaemon/protocol/nixhash"
)

func TestContentAddressGolden(t *testing.T) {
	// The golden files hold the parts apart.
	type parts struct{ Method, Hash string }
	tests := map[string]struct {
		want ContentAddress
		word string
		text string
	}{
		"text": {ContentAddress{MethodText, nixhash.Of(nixhash.SHA256, "asdf")}, "text", "text:sha256:"},
		"nar":  {ContentAddress{MethodNAR, nixhash.Of(nixhash.SHA256, "qwer")}, "nar", "fixed:r:sha256:"},
	}
	for name, tt := range tests {
		golden := fixturetest.JSON[parts](t, "libstore/content-address/"+name+".json")
		if golden.Method != tt.word || golden.Hash != tt.want.Hash.SRI() {
			t.Errorf("%s: golden is %v, want %s %s", name, golden, tt.word, tt.want.Hash.SRI())
		}
		text := tt.text + tt.want.Hash.Nix32()
		if got, err := ParseContentAddress(text); got != tt.want || err != nil || got.String() != text {
			t.Errorf("%s reads as %v (%v)", text, got, err)
		}
	}
}

func TestContentAddressTexts(t *testing.T) {
	h := nixhash.Of(nixhash.SHA1, "x")
	for _, method := range []Method{MethodFlat, MethodNAR, MethodText, MethodGit} {
		ca := ContentAddress{method, h}
		if got, err := ParseContentAddress(ca.String()); got != ca || err != nil {
			t.Errorf("%v reads as %v (%v)", ca, got, err)
		}
		if got := string(ca.Append([]byte("x"))); got != "x"+ca.String() {
			t.Errorf("Append gives %q", got)
		}
		text := PrintCAMethod(method, nixhash.SHA1)
		if m, algo, err := ParseCAMethod(text); m != method || algo != nixhash.SHA1 || err != nil {
			t.Errorf("%s reads as %v, %v (%v)", text, m, algo, err)
		}
		text = method.Prefix() + "sha1"
		if m, algo, err := ParseMethodAlgo(text); m != method || algo != nixhash.SHA1 || err != nil {
			t.Errorf("%s reads as %v, %v (%v)", text, m, algo, err)
		}
	}
	if ca, err := ParseContentAddress(""); !ca.IsZero() || err != nil || ca.String() != "" {
		t.Errorf("nothing reads as %v (%v)", ca, err)
	}
}

func TestContentAddressErrorsAreUpstreams(t *testing.T) {
	tests := []struct{ in, want string }{
		{"abc", "not a content address because it is not in the form '<prefix>:<rest>': abc"},
		{"foo:sha256:x", "content address prefix 'foo' is unrecognized. Recogonized prefixes are 'text' or 'fixed'"},
		{"fixed:r:sha256", "content address hash must be in form '<algo>:<hash>', but found: fixed:r:sha256"},
		{"text:sha256:x", "hash 'x' has wrong length for hash algorithm 'sha256'"},
		{"fixed:sha9:x", "unknown hash algorithm 'sha9', expect 'blake3', 'md5', 'sha1', 'sha256', or 'sha512'"},
	}
	for _, tt := range tests {
		if got, err := ParseContentAddress(tt.in); err == nil || err.Error() != tt.want {
			t.Errorf("%s reads as %v, %v\nwant %s", tt.in, got, err, tt.want)
		}
	}
	if _, _, err := ParseCAMethod("sha256"); err == nil || err.Error() != "content address prefix 'sha256' is unrecognized. Recogonized prefixes are 'text' or 'fixed'" {
		t.Errorf("ParseCAMethod: %v", err)
	}
}

// The paths were computed by release 2.34.8 (nix-store --print-fixed-path, and
// paths that occur in upstream's golden files).
func TestFromContentAddress(t *testing.T) {
	other := Path{hash + "-bar"}
	tests := []struct {
		name string
		ca   ContentAddress
		refs References
		path string
	}{
		{"foo", ContentAddress{MethodNAR, nixhash.Of(nixhash.SHA256, "(...)")}, References{Others: []Path{other}, Self: true}, "n5wkd9frr45pa74if5gpz9j7mifg27fh-foo"},
		{"x", ContentAddress{MethodFlat, nixhash.Of(nixhash.SHA256, "x")}, References{}, "prmfd0ax3s09yxyl9j2z0c5x6zsbz1px-x"},
		{"x", ContentAddress{MethodNAR, nixhash.Of(nixhash.SHA1, "x")}, References{}, "wq6vcbc98sdhvllnqwqm1i5lxfpyjb4r-x"},
	}
	for _, tt := range tests {
		if p, err := DefaultDir.FromContentAddress(tt.name, tt.ca, tt.refs); p.Base() != tt.path || err != nil {
			t.Errorf("%v: got %v, %v, want %s", tt.ca, p, err, tt.path)
		}
	}
}

func TestFromContentAddressRefuses(t *testing.T) {
	sha256, md5 := nixhash.Of(nixhash.SHA256, ""), nixhash.Of(nixhash.MD5, "")
	tests := []struct {
		ca   ContentAddress
		refs References
		want string
	}{
		{ContentAddress{MethodFlat, sha256}, References{Self: true}, "fixed output derivation 'x' is not allowed to refer to other store paths.\nYou may need to use the 'unsafeDiscardReferences' derivation attribute, see the manual for more details."},
		{ContentAddress{MethodGit, md5}, References{}, "Git file ingestion must use SHA-1 or SHA-256 hash, but instead using: md5"},
		{ContentAddress{MethodText, sha256}, References{Self: true}, "self-reference not allowed with text hashing"},
		{ContentAddress{MethodText, md5}, References{}, "text-hashed store path 'x' must use sha256, not md5"},
	}
	for _, tt := range tests {
		if p, err := DefaultDir.FromContentAddress("x", tt.ca, tt.refs); err == nil || err.Error() != tt.want {
			t.Errorf("%v: got %v, %v\nwant %s", tt.ca, p, err, tt.want)
		}
	}
	refused := (*NotAllowedReferencesError)(nil)
	if _, err := DefaultDir.FromContentAddress("x", ContentAddress{MethodFlat, sha256}, References{Self: true}); !errors.As(err, &refused) {
		t.Errorf("got %v", err)
	}
}

func FuzzParseContentAddress(f *testing.F) {
	for _, seed := range []string{"text:sha256:0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73", "fixed:r:sha1:da39a3ee5e6b4b0d3255bfef95601890afd80709", "fixed:git:", "fixed:r:"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		ca, err := ParseContentAddress(s)
		if err != nil {
			return
		}
		if again, err := ParseContentAddress(ca.String()); again != ca || err != nil {
			t.Errorf("%q reads as %v, whose text reads as %v (%v)", s, ca, again, err)
		}
	})
}
