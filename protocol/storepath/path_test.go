package storepath

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nixdaemon/protocol/internal/fixturetest"
)

const hash = "g1w7hy3qg1w7hy3qg1w7hy3qg1w7hy3q"

func mustBase(t testing.TB, base string) Path {
	t.Helper()
	p, err := ParseBase(base)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestGolden(t *testing.T) {
	base := fixturetest.JSON[string](t, "libstore/store-path/simple.json")
	p := mustBase(t, base)
	if p.Base() != base || p.HashPart() != hash || p.Name() != "foo.drv" || !p.IsDerivation() {
		t.Errorf("parts of %v: %s, %s", p, p.HashPart(), p.Name())
	}
}

func TestParse(t *testing.T) {
	want := mustBase(t, hash+"-foo")
	for _, s := range []string{
		"/nix/store/" + hash + "-foo", "/nix//store/" + hash + "-foo", "/nix/store/./" + hash + "-foo",
		"/nix/store/x/../" + hash + "-foo", "/nix/store/" + hash + "-foo/",
	} {
		if p, err := DefaultDir.Parse(s); p != want || err != nil {
			t.Errorf("Parse(%s) = %v, %v", s, p, err)
		}
	}
	if p, err := DefaultDir.ParseOptional(""); !p.IsZero() || err != nil {
		t.Errorf("ParseOptional of nothing = %v, %v", p, err)
	}
	if DefaultDir.Print(Path{}) != "" {
		t.Error("no path prints as something")
	}
}

func TestParseErrorsAreUpstreams(t *testing.T) {
	long := strings.Repeat("a", 212)
	tests := []struct{ in, want string }{
		{"", "empty path is not a valid store path"},
		{"foo", `not an absolute path: "foo"`},
		{"/nix/store", `path "/nix/store" is not in the Nix store`},
		{"/nix/store/.", `path "/nix/store" is not in the Nix store`},
		{"/nix/store/..", `path "/nix" is not in the Nix store`},
		{"/nix/store/a/b", `path "/nix/store/a/b" is not in the Nix store`},
		{"/other/" + hash + "-foo", `path "/other/` + hash + `-foo" is not in the Nix store`},
		{"/nix/store/foo", "'foo' is too short to be a valid store path"},
		{"/nix/store/e" + hash[1:] + "-x", "store path 'e" + hash[1:] + "-x' contains illegal base-32 character 'e'"},
		{"/nix/store/" + hash + "_x", "'" + hash + "_x' can't name a store path because the hash part is not followed by a '-'"},
		{"/nix/store/" + hash + "-", "path '" + hash + "-' is not a valid store path: name must not be empty"},
		{"/nix/store/" + hash + "-.", "path '" + hash + "-.' is not a valid store path: name '.' is not valid"},
		{"/nix/store/" + hash + "-..", "path '" + hash + "-..' is not a valid store path: name '..' is not valid"},
		{"/nix/store/" + hash + "-.-x", "path '" + hash + "-.-x' is not a valid store path: name '.-x' is not valid: first dash-separated component must not be '.'"},
		{"/nix/store/" + hash + "-..-x", "path '" + hash + "-..-x' is not a valid store path: name '..-x' is not valid: first dash-separated component must not be '..'"},
		{"/nix/store/" + hash + "-a b", "path '" + hash + "-a b' is not a valid store path: name 'a b' contains illegal character ' '"},
		{"/nix/store/" + hash + "-a\xe4", "path '" + hash + "-a\xe4' is not a valid store path: name 'a\xe4' contains illegal character '\xe4'"},
		{"/nix/store/" + hash + "-" + long, "path '" + hash + "-" + long + "' is not a valid store path: name '" + long + "' must be no longer than 211 characters"},
	}
	for _, tt := range tests {
		if p, err := DefaultDir.Parse(tt.in); err == nil || err.Error() != tt.want {
			t.Errorf("Parse(%s) = %v, %v\nwant %s", tt.in, p, err, tt.want)
		}
	}
	for _, name := range []string{".x", "...", "..x-y", "a+b-c._?=Z9"} {
		if err := CheckName(name); err != nil {
			t.Errorf("CheckName(%s) = %v", name, err)
		}
	}
	bad := (*BadPathError)(nil)
	if _, err := New([20]byte{}, ""); !errors.As(err, &bad) || err.Error() != "path '00000000000000000000000000000000-' is not a valid store path: name must not be empty" {
		t.Errorf("New with an empty name: %v", err)
	}
	if err := mustBase(t, hash+"-foo").RequireDerivation(); err == nil || err.Error() != "store path '"+hash+"-foo' is not a valid derivation path" {
		t.Errorf("RequireDerivation = %v", err)
	}
}

func TestParseInside(t *testing.T) {
	want := mustBase(t, hash+"-foo")
	for in, sub := range map[string]string{"": "", "/": "/", "/bin/../x": "/bin/../x"} {
		p, rest, err := DefaultDir.ParseInside("/nix/store/" + hash + "-foo" + in)
		if p != want || rest != sub || err != nil {
			t.Errorf("%q: %v, %q, %v", in, p, rest, err)
		}
	}
	if _, _, err := DefaultDir.ParseInside("/nix/store"); err == nil || err.Error() != "path '/nix/store' is not in the Nix store" {
		t.Errorf("got %v", err)
	}
	if _, _, err := DefaultDir.ParseInside("/nix/store//" + hash + "-foo"); err == nil {
		t.Error("a doubled slash hides the object")
	}
}

func TestSets(t *testing.T) {
	a, b := mustBase(t, hash+"-a"), mustBase(t, hash+"-b")
	set := SortUnique([]Path{b, a, b})
	if diff := cmp.Diff([]string{"/nix/store/" + hash + "-a", "/nix/store/" + hash + "-b"}, DefaultDir.PrintAll(set)); diff != "" {
		t.Errorf("set (-want +got):\n%s", diff)
	}
	if !Contains(set, a) || Contains(set, mustBase(t, hash+"-c")) {
		t.Error("Contains is wrong")
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{"/nix/store/" + hash + "-foo", "/nix/store/../store/" + hash + "-.x", "/nix/store/" + hash + "-..-", "", "//"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := DefaultDir.Parse(s)
		if err != nil {
			return
		}
		if again, err := DefaultDir.Parse(DefaultDir.Print(p)); again != p || err != nil {
			t.Errorf("%q reads as %v, whose text reads as %v (%v)", s, p, again, err)
		}
		if inside, _, err := DefaultDir.ParseInside(DefaultDir.Print(p) + "/x"); inside != p || err != nil {
			t.Errorf("ParseInside of %v = %v, %v", p, inside, err)
		}
	})
}

func TestParseDoesNotAllocate(t *testing.T) {
	s := "/nix/store/" + hash + "-hello-2.12.1"
	if n := testing.AllocsPerRun(100, func() { _, _ = DefaultDir.Parse(s) }); n != 0 {
		t.Errorf("Parse allocates %v times", n)
	}
}

func BenchmarkParse(b *testing.B) {
	s := "/nix/store/" + hash + "-hello-2.12.1"
	b.ReportAllocs()
	for b.Loop() {
		if _, err := DefaultDir.Parse(s); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPrint(b *testing.B) {
	p := mustBase(b, hash+"-hello-2.12.1")
	b.ReportAllocs()
	for b.Loop() {
		_ = DefaultDir.Print(p)
	}
}
