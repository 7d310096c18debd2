package nixhash

import (
	"strings"
	"testing"

	"nixdaemon/protocol/internal/fixturetest"
)

var algos = []Algo{MD5, SHA1, SHA256, SHA512, BLAKE3}

func TestTextsReadBack(t *testing.T) {
	for _, algo := range algos {
		h := Of(algo, "asdf")
		for _, enc := range []Encoding{Base16, Nix32, Base64, SRI} {
			text := h.Format(enc, true)
			if got, err := Parse(text); got != h || err != nil {
				t.Errorf("Parse(%s) = %v, %v", text, got, err)
			}
			if got, err := ParseAny(text, algo); got != h || err != nil {
				t.Errorf("ParseAny(%s) = %v, %v", text, got, err)
			}
			if enc == SRI {
				continue
			}
			if got, err := ParseUnprefixed(h.Format(enc, false), algo); got != h || err != nil {
				t.Errorf("ParseUnprefixed of %s = %v, %v", text, got, err)
			}
		}
		if got, err := ParseSRI(h.SRI()); got != h || err != nil {
			t.Errorf("ParseSRI(%s) = %v, %v", h.SRI(), got, err)
		}
		if got, err := New(algo, h.Digest()); got != h || err != nil {
			t.Errorf("New of the digest of %v = %v, %v", h, got, err)
		}
		running := algo.New()
		running.Write([]byte("asdf"))
		if got := FromSum(algo, running); got != h {
			t.Errorf("FromSum = %v, want %v", got, h)
		}
	}
}

// The digests are those of the algorithms' own test vectors.
func TestKnownDigests(t *testing.T) {
	tests := []struct {
		algo     Algo
		in, want string
	}{
		{MD5, "abc", "md5:900150983cd24fb0d6963f7d28e17f72"},
		{SHA1, "abc", "sha1:a9993e364706816aba3e25717850c26c9cd0d89d"},
		{SHA256, "abc", "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
		{SHA256, "", "sha256:0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73"},
		{SHA512, "", "sha512:0zdl9zrg8r3i9c1g90lgg9ip5ijzv3yhz91i0zzn3r8ap9ws784gkp9dk9j3aglhgf1amqb0pj21mh7h1nxcl18akqvvf7ggqsy30yg"},
	}
	for _, tt := range tests {
		enc := Base16
		if tt.in == "" {
			enc = Nix32
		}
		if got := Of(tt.algo, tt.in).Format(enc, true); got != tt.want {
			t.Errorf("%s of %q = %s, want %s", tt.algo, tt.in, got, tt.want)
		}
	}
}

func TestGolden(t *testing.T) {
	tests := map[string]Hash{"sha256": Of(SHA256, "asdf"), "sha512": Of(SHA256, "asdf"), "blake3": Of(BLAKE3, "asdf")}
	for name, want := range tests {
		text := fixturetest.JSON[string](t, "libutil/hash/"+name+".json")
		if got, err := ParseSRI(text); got != want || err != nil {
			t.Errorf("%s: %s reads as %v (%v), want %v", name, text, got, err, want)
		}
		if want.SRI() != text {
			t.Errorf("%s: got %s, want %s", name, want.SRI(), text)
		}
	}
}

func TestErrorsAreUpstreams(t *testing.T) {
	parse := func(s string) error { _, err := Parse(s); return err }
	anyOf := func(algo Algo) func(string) error {
		return func(s string) error { _, err := ParseAny(s, algo); return err }
	}
	sri := func(s string) error { _, err := ParseSRI(s); return err }
	nix32Zeros := strings.Repeat("0", 52)
	tests := []struct {
		name  string
		parse func(string) error
		in    string
		want  string
	}{
		{"no type", parse, "abc", "hash 'abc' does not include a type"},
		{"no type known", anyOf(0), "abc", "hash 'abc' does not include a type, nor is the type otherwise known from context"},
		{"other type", anyOf(SHA256), "md5:x", "hash 'md5:x' should have type 'sha256'"},
		{"unknown type", parse, "sha3:x", "unknown hash algorithm 'sha3', expect 'blake3', 'md5', 'sha1', 'sha256', or 'sha512'"},
		{"length", parse, "sha256:abc", "hash 'abc' has wrong length for hash algorithm 'sha256'"},
		{"not SRI", sri, "sha256:abc", "hash 'sha256:abc' is not SRI"},
		{"SRI length", parse, "sha256-YWJj", "invalid SRI hash 'YWJj', length 3 != expected length 32"},
		{"digit of nix32", parse, "sha256:e" + nix32Zeros[1:], "invalid nix32 hash 'e" + nix32Zeros[1:] + "', length 0 != expected length 32"},
		{"bits left over", parse, "sha256:z" + nix32Zeros[1:], "invalid nix32 hash 'z" + nix32Zeros[1:] + "', length 33 != expected length 32"},
		{"digit of base16", parse, "md5:" + strings.Repeat("g", 32), "invalid base16 hash '" + strings.Repeat("g", 32) + "', length 0 != expected length 16"},
		{"digit of base64", parse, "md5:" + strings.Repeat("!", 24), "invalid Base64 hash '" + strings.Repeat("!", 24) + "', length 0 != expected length 16"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := tt.parse(tt.in); err == nil || err.Error() != tt.want {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
		})
	}
	if _, err := New(SHA256, []byte("short")); err == nil {
		t.Error("New accepts a short digest")
	}
}

func TestDecodeBase64IsLenient(t *testing.T) {
	tests := []struct{ in, want string }{
		{"YWJj", "abc"}, {"YWI=", "ab"}, {"YWI", "ab"}, {"YW\nJj\n", "abc"}, {"YQ==ignored", "a"}, {"", ""}, {"YR==", "a"},
	}
	for _, tt := range tests {
		if got, err := DecodeBase64(tt.in); string(got) != tt.want || err != nil {
			t.Errorf("DecodeBase64(%q) = %q, %v, want %q", tt.in, got, err, tt.want)
		}
	}
	if _, err := DecodeBase64("YW J"); err == nil || err.Error() != "invalid character in Base64 string: ' '" {
		t.Errorf("got %v", err)
	}
}

func TestDecodeNix32(t *testing.T) {
	for size := range 70 {
		data := []byte(strings.Repeat("\xa5\x00\xff", 30)[:size])
		text := EncodeNix32(data[:min(size, 64)])
		got, err := DecodeNix32(text)
		if string(got) != string(data[:min(size, 64)]) || err != nil {
			t.Errorf("%d bytes: %s reads as %x (%v)", size, text, got, err)
		}
	}
	if _, err := DecodeNix32("0e"); err == nil || err.Error() != "invalid character in Nix32 (Nix's Base32 variation) string: 'e'" {
		t.Errorf("got %v", err)
	}
	if _, err := DecodeNix32("zz"); err == nil {
		t.Error("left-over bits are accepted")
	}
}

func TestHotPathsDoNotAllocate(t *testing.T) {
	h := Of(SHA256, "asdf")
	text, hex := h.String(), h.Format(Base16, true)
	room := make([]byte, 0, maxText)
	for name, f := range map[string]func(){
		"parse nix32":   func() { _, _ = Parse(text) },
		"parse base16":  func() { _, _ = Parse(hex) },
		"append nix32":  func() { h.Append(room, Nix32, true) },
		"append base16": func() { h.Append(room, Base16, true) },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s allocates %v times", name, n)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, algo := range algos {
		for _, enc := range []Encoding{Base16, Nix32, Base64, SRI} {
			f.Add(Of(algo, "asdf").Format(enc, true))
		}
	}
	f.Add("sha256:" + strings.Repeat("z", 52))
	f.Add("sha256-AAAA\n")
	f.Fuzz(func(t *testing.T, s string) {
		h, err := Parse(s)
		if err != nil {
			return
		}
		for _, enc := range []Encoding{Base16, Nix32, Base64, SRI} {
			if again, err := Parse(h.Format(enc, true)); again != h || err != nil {
				t.Errorf("%q reads as %v, whose text reads as %v (%v)", s, h, again, err)
			}
		}
	})
}

func FuzzNix32(f *testing.F) {
	f.Add("0mdqa9w1p6cmli6976v4wi0sw9r4p5prkj7lzfd1877wk11c9c73")
	f.Add("zz")
	f.Fuzz(func(t *testing.T, s string) {
		data, err := DecodeNix32(s)
		if err != nil || Nix32Len(len(data)) != len(s) {
			return
		}
		if got := string(AppendNix32(nil, data)); got != s {
			t.Errorf("%q reads as %x, which is written %q", s, data, got)
		}
	})
}

func BenchmarkParse(b *testing.B) {
	h := Of(SHA256, "asdf")
	for name, enc := range map[string]Encoding{"nix32": Nix32, "base16": Base16, "sri": SRI} {
		text := h.Format(enc, true)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Parse(text); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkFormat(b *testing.B) {
	h := Of(SHA256, "asdf")
	for name, enc := range map[string]Encoding{"nix32": Nix32, "base16": Base16} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_ = h.Format(enc, true)
			}
		})
	}
}
