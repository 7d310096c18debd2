package narinfo

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nixdaemon/protocol/internal/fixturetest"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/storepath"
)

const dir = storepath.DefaultDir

// example has what upstream's golden files tell of, as text.
const example = `StorePath: /nix/store/n5wkd9frr45pa74if5gpz9j7mifg27fh-foo
URL: nar/1w1fff338fvdw53sqgamddn1b2xgds473pv6y13gizdbqjv4i5p3.nar.xz
Compression: xz
FileHash: sha256:09xl6kgm0vdsj49kp3h6arjlikb8pc5xd0ixgk4nq9bi17zl6zq2
FileSize: 4029176
NarHash: sha256:09xl6kgm0vdsj49kp3h6arjlikb8pc5xd0ixgk4nq9bi17zl6zq2
NarSize: 34878
References: g1w7hy3qg1w7hy3qg1w7hy3qg1w7hy3q-bar n5wkd9frr45pa74if5gpz9j7mifg27fh-foo
Deriver: g1w7hy3qg1w7hy3qg1w7hy3qg1w7hy3q-bar.drv
Sig: asdf:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==
Sig: qwer:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==
CA: fixed:r:sha256:1lr187v6dck1rjh2j6svpikcfz53wyl3qrlcbb405zlh13x0khhh
`

// narHash is spelled as in upstream's golden files.
const narHash = "sha256-FePFYIlMuycIXPZbWi7LGEiMmZSX9FMbaQenWBzm1Sc="

func exampleText(t testing.TB) string {
	t.Helper()
	h, err := nixhash.ParseSRI(narHash)
	if err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(example, "sha256:09xl6kgm0vdsj49kp3h6arjlikb8pc5xd0ixgk4nq9bi17zl6zq2", h.String())
}

func parse(t testing.TB, text string) *NarInfo {
	t.Helper()
	n, err := Parse(dir, text, "test")
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestGolden(t *testing.T) {
	type golden struct {
		URL, Compression, DownloadHash, NarHash, Deriver string
		DownloadSize, NarSize                            uint64
		References                                       []string
	}
	n := parse(t, exampleText(t))
	for _, version := range []string{"json-2", "json-3"} {
		want := fixturetest.JSON[golden](t, "libstore/nar-info/"+version+"/impure.json")
		got := golden{
			n.URL, n.Compression, n.FileHash.SRI(), n.NarHash.SRI(), n.Deriver.Base(), n.FileSize, n.NarSize,
			[]string{n.References[0].Base(), n.References[1].Base()},
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", version, diff)
		}
	}
	type golden1 struct{ CA string }
	if want := fixturetest.JSON[golden1](t, "libstore/nar-info/json-1/impure.json"); n.CA.String() != want.CA {
		t.Errorf("content address %s, want %s", n.CA, want.CA)
	}
}

func TestReadsBack(t *testing.T) {
	text := exampleText(t)
	n := parse(t, text)
	if diff := cmp.Diff(text, n.Format(dir)); diff != "" {
		t.Errorf("text (-want +got):\n%s", diff)
	}
	if !n.IsContentAddressed(dir) {
		t.Error("the content address does not give the path")
	}
}

func TestLeniencies(t *testing.T) {
	h := nixhash.Of(nixhash.SHA256, "").String()
	minimal := "StorePath: /nix/store/n5wkd9frr45pa74if5gpz9j7mifg27fh-foo\nURL: x\nNarHash: " + h + "\nNarSize: 1\n"
	n := parse(t, minimal+"Unknown: field\nDeriver: unknown-deriver\nReferences: \nCA: \nCompression: \n")
	if n.Compression != "bzip2" || !n.Deriver.IsZero() || n.References != nil || !n.CA.IsZero() || !n.FileHash.IsZero() {
		t.Errorf("got %+v", n)
	}
	if got := parse(t, n.Format(dir)); cmp.Diff(n.Format(dir), got.Format(dir)) != "" {
		t.Errorf("without a file hash: %+v", got)
	}
	n = parse(t, minimal+"References:  n5wkd9frr45pa74if5gpz9j7mifg27fh-foo   g1w7hy3qg1w7hy3qg1w7hy3qg1w7hy3q-bar n5wkd9frr45pa74if5gpz9j7mifg27fh-foo\nFileSize: +7\n")
	if len(n.References) != 2 || n.References[0].Name() != "bar" || n.FileSize != 7 {
		t.Errorf("got %+v", n)
	}
	// Whatever follows a colon is skipped, even the end of the line.
	n = parse(t, minimal+"X:\nURL: y\n")
	if n.URL != "x" {
		t.Errorf("URL %s, want x", n.URL)
	}
}

func TestErrorsAreUpstreams(t *testing.T) {
	text := exampleText(t)
	without := func(field string) string {
		lines := strings.SplitAfter(text, "\n")
		kept := ""
		for _, line := range lines {
			if !strings.HasPrefix(line, field+":") {
				kept += line
			}
		}
		return kept
	}
	corrupt := func(s string) string { return "NAR info file 'test' is corrupt: " + s }
	tests := []struct{ name, in, want string }{
		{"no colon", "abc", corrupt("expecting ':' at line 1")},
		{"no end", "a: b\nb: c", corrupt(`expecting '\n' at line 2`)},
		{"colon at the end", "a:", corrupt(`expecting '\n' at line 1`)},
		{"bad hash", "FileHash: sha256:x\n", corrupt("bad hash at line 1")},
		{"unknown hash", "NarHash: foo:x\n", "unknown hash algorithm 'foo', expect 'blake3', 'md5', 'sha1', 'sha256', or 'sha512'"},
		{"bad size", "NarSize: -1\n", corrupt("invalid NarSize at line 1")},
		{"bad file size", "FileSize: 1x\n", corrupt("invalid FileSize at line 1")},
		{"two lists", text + "References: g1w7hy3qg1w7hy3qg1w7hy3qg1w7hy3q-bar\n", corrupt("extra References at line 13")},
		{"two addresses", text + "CA: x\n", corrupt("extra CA at line 13")},
		{"bad reference", "References: x\n", "'x' is too short to be a valid store path"},
		{"bad signature", "Sig: x\n", "signature is corrupt"},
		{"no path", without("StorePath"), corrupt("StorePath missing")},
		{"no hash", without("NarHash"), corrupt("NarHash missing")},
		{"no URL", without("URL"), corrupt("URL missing")},
		{"no size", without("NarSize"), corrupt("NarSize missing or zero")},
		{"nothing", "", corrupt("StorePath missing")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if n, err := Parse(dir, tt.in, "test"); err == nil || err.Error() != tt.want {
				t.Errorf("got %v, %v\nwant %s", n, err, tt.want)
			}
		})
	}
}

func TestCacheInfo(t *testing.T) {
	c, err := ParseCacheInfo("StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 40\nno colon\nOther: x\n")
	if err != nil || c.StoreDir != "/nix/store" || c.WantMassQuery == nil || !*c.WantMassQuery || c.Priority == nil || *c.Priority != 40 {
		t.Fatalf("got %+v, %v", c, err)
	}
	if want := "StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 40\n"; c.String() != want {
		t.Errorf("text %q, want %q", c, want)
	}
	if err := c.CheckStoreDir("http://x", "/nix/store"); err != nil {
		t.Error(err)
	}
	want := "binary cache 'http://x' is for Nix stores with prefix '/nix/store', not '/gnu/store'"
	if err := c.CheckStoreDir("http://x", "/gnu/store"); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	c, err = ParseCacheInfo("WantMassQuery: true\nPriority:  -3abc\r\n")
	if err != nil || *c.WantMassQuery || *c.Priority != -3 || c.CheckStoreDir("x", "/gnu/store") != nil {
		t.Errorf("got %+v, %v", c, err)
	}
	for _, bad := range []string{"", "x", "-", "99999999999"} {
		if _, err := ParseCacheInfo("Priority: " + bad + "\n"); err == nil {
			t.Errorf("priority %q is accepted", bad)
		}
	}
	if c, err := ParseCacheInfo(""); err != nil || c.String() != "" {
		t.Errorf("nothing reads as %+v, %v", c, err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(exampleText(f))
	f.Add("StorePath: /nix/store/n5wkd9frr45pa74if5gpz9j7mifg27fh-foo\nURL:\n\nNarHash: md5:00000000000000000000000000000000\nNarSize: 1\n")
	f.Add("a:\n:\n::\n")
	f.Fuzz(func(t *testing.T, text string) {
		n, err := Parse(dir, text, "test")
		if err != nil {
			return
		}
		again, err := Parse(dir, n.Format(dir), "test")
		if err != nil {
			t.Fatalf("%q is written %q: %v", text, n.Format(dir), err)
		}
		if diff := cmp.Diff(n.Format(dir), again.Format(dir)); diff != "" {
			t.Errorf("%q written and read again (-want +got):\n%s", text, diff)
		}
	})
}

func FuzzParseCacheInfo(f *testing.F) {
	f.Add("StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 40\n")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ParseCacheInfo(text)
		if err != nil {
			return
		}
		if again, err := ParseCacheInfo(c.String()); err != nil || again.String() != c.String() {
			t.Errorf("%q is written %q, then %q (%v)", text, c, again, err)
		}
	})
}

func BenchmarkParse(b *testing.B) {
	text := exampleText(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse(dir, text, "test"); err != nil {
			b.Fatal(err)
		}
	}
}
