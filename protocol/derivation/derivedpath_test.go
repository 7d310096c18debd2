package derivation

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const drv = "/nix/store/" + hash + "-foo.drv"

func mustPath(t testing.TB, s string) DerivedPath {
	t.Helper()
	p, err := ParseDerivedPath(dir, s, SeparatorWire, AllFeatures())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestDerivedPathTexts(t *testing.T) {
	for _, s := range []string{drv, drv + "!out", drv + "!a,b", drv + "!*", drv + "!a!*", drv + "!a!b!c,d"} {
		p := mustPath(t, s)
		if got := p.Format(dir, SeparatorWire); got != s {
			t.Errorf("%s is written %s", s, got)
		}
		cli := strings.ReplaceAll(s, SeparatorWire, SeparatorCLI)
		if q, err := ParseDerivedPath(dir, cli, SeparatorCLI, AllFeatures()); err != nil || p.Compare(q) != 0 || q.Format(dir, SeparatorCLI) != cli {
			t.Errorf("%s reads as %v, %v", cli, q, err)
		}
		if p.Base().Base() != hash+"-foo.drv" {
			t.Errorf("%s has the base %v", s, p.Base())
		}
	}
	if got := mustPath(t, drv+"!b,a,b").Format(dir, SeparatorWire); got != drv+"!a,b" {
		t.Errorf("outputs are no set: %s", got)
	}
}

func TestDerivedPathErrors(t *testing.T) {
	dynamic := "experimental Nix feature 'dynamic-derivations' is disabled (building output 'a' of '" + hash +
		"-foo.drv'); add '--extra-experimental-features dynamic-derivations' to enable it"
	tests := []struct{ in, want string }{
		{"", "empty path is not a valid store path"},
		{drv + "!", "name must not be empty"},
		{drv + "!a,,b", "name must not be empty"},
		{drv + "!a b", "name 'a b' contains illegal character ' '"},
		{"/x!out", `path "/x" is not in the Nix store`},
		{drv + "!a!b", dynamic},
		{drv + "!a!*", dynamic},
		{drv + "!a!b!c", dynamic},
		{drv + strings.Repeat("!a", maxPathDepth+2), "derived path goes through more than 1000 outputs"},
	}
	for _, tt := range tests {
		if p, err := ParseDerivedPath(dir, tt.in, SeparatorWire, Features{}); err == nil || err.Error() != tt.want {
			t.Errorf("%.90s: got %v, %v\nwant %s", tt.in, p, err, tt.want)
		}
	}
	if p, err := ParseSingleDerivedPath(dir, drv+"!a!b", SeparatorWire, Features{}); err == nil || err.Error() != dynamic {
		t.Errorf("got %v, %v", p, err)
	}
}

func TestPathWithOutputs(t *testing.T) {
	for in, want := range map[string]string{
		"/nix/store/" + hash + "-foo": "/nix/store/" + hash + "-foo",
		drv:                           drv + "!*",
		drv + "!":                     drv + "!*",
		drv + "!b,a,,b":               drv + "!a,b",
	} {
		p, err := ParsePathWithOutputs(dir, in)
		if err != nil || p.Format(dir, SeparatorWire) != want {
			t.Errorf("%s reads as %s, %v, want %s", in, p.Format(dir, SeparatorWire), err, want)
		}
		text, ok := p.PathWithOutputs(dir)
		if again, err := ParsePathWithOutputs(dir, text); !ok || err != nil || again.Compare(p) != 0 {
			t.Errorf("%s is written %s, %t", in, text, ok)
		}
	}
	for _, s := range []string{drv, drv + "!a!b"} {
		if text, ok := mustPath(t, s).PathWithOutputs(dir); ok {
			t.Errorf("%s is written %s", s, text)
		}
	}
	if _, err := ParsePathWithOutputs(dir, "x!out"); err == nil {
		t.Error("a bad path is accepted")
	}
}

func TestDerivedPathOrder(t *testing.T) {
	want := []string{"/nix/store/" + hash + "-a", drv, drv + "!*", drv + "!a", drv + "!a,b", drv + "!b", drv + "!a!*", drv + "!a!x"}
	var paths []DerivedPath
	for _, s := range want {
		paths = append(paths, mustPath(t, s))
	}
	slices.Reverse(paths)
	slices.SortFunc(paths, DerivedPath.Compare)
	var got []string
	for _, p := range paths {
		got = append(got, p.Format(dir, SeparatorWire))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
}

func TestOutputsSpecs(t *testing.T) {
	all, a, ab := OutputsSpec{All: true}, OutputsSpec{Names: []string{"a"}}, OutputsSpec{Names: []string{"a", "b"}}
	if !all.Contains("x") || !ab.Contains("b") || a.Contains("b") {
		t.Error("Contains is wrong")
	}
	if got := a.Union(ab); got.String() != "a,b" || !a.Union(all).All || !all.Union(a).All {
		t.Errorf("union %v", got)
	}
	if !a.IsSubset(ab) || ab.IsSubset(a) || !ab.IsSubset(all) || all.IsSubset(ab) || !all.IsSubset(all) {
		t.Error("IsSubset is wrong")
	}
}

func TestNumbersOfTheWire(t *testing.T) {
	for n := range uint64(15) {
		s, err := ParseBuildStatus(n)
		if err != nil || uint64(s) != n || strings.HasPrefix(s.String(), "BuildStatus(") {
			t.Errorf("status %d: %v, %v", n, s, err)
		}
	}
	if _, err := ParseBuildStatus(15); err == nil || err.Error() != "Invalid BuildResult status 15 from remote" {
		t.Errorf("got %v", err)
	}
	if got := BuildStatus(15).String(); got != "BuildStatus(15)" {
		t.Errorf("got %s", got)
	}
	if m, err := ParseBuildMode(2); m != BuildCheck || err != nil {
		t.Errorf("got %v, %v", m, err)
	}
	if _, err := ParseBuildMode(3); err == nil || err.Error() != "Invalid build mode" {
		t.Errorf("got %v", err)
	}
}

func FuzzParseDerivedPath(f *testing.F) {
	for _, s := range []string{drv, drv + "!*", drv + "!a!b,c", "!", drv + "!a,a"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if p, err := ParseDerivedPath(dir, s, SeparatorWire, AllFeatures()); err == nil {
			text := p.Format(dir, SeparatorWire)
			if again, err := ParseDerivedPath(dir, text, SeparatorWire, AllFeatures()); err != nil || again.Compare(p) != 0 {
				t.Errorf("%q is written %q, which reads as %v, %v", s, text, again, err)
			}
		}
		if p, err := ParsePathWithOutputs(dir, s); err == nil {
			text, ok := p.PathWithOutputs(dir)
			if again, err := ParsePathWithOutputs(dir, text); !ok || err != nil || again.Compare(p) != 0 {
				t.Errorf("%q is written %q, which reads as %v, %v", s, text, again, err)
			}
		}
	})
}
