package builtin

import (
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParsePackages(t *testing.T) {
	got, err := parsePackages(" true 5 2 /a /b\tfalse\n-3 0\r 1 7 1 /c")
	want := []pkg{{"/a", true, 5}, {"/b", true, 5}, {"/c", true, 7}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(pkg{})); err != nil || diff != "" {
		t.Errorf("error %v (-want +got):\n%s", err, diff)
	}
	for text, want := range map[string]string{
		"true":                             "parse attribute 'derivations': 1 words at its end are not a package",
		"true 5":                           "parse attribute 'derivations': 2 words at its end are not a package",
		"true a 1 /x":                      "parse attribute 'derivations': priority 'a' is not an integer",
		"true 99999999999 1 /x":            "parse attribute 'derivations': priority '99999999999' is not an integer",
		"true 5 -1 /x":                     "parse attribute 'derivations': number of outputs '-1' is not an integer",
		"true 5 2 /x":                      "parse attribute 'derivations': 2 outputs announced, 1 words left",
		"true 5 18446744073709551615 /x y": "parse attribute 'derivations': 18446744073709551615 outputs announced, 2 words left",
	} {
		if _, err := parsePackages(text); err == nil || err.Error() != want {
			t.Errorf("%q: error %v, want %s", text, err, want)
		}
	}
}

func TestSortPackages(t *testing.T) {
	pkgs := []pkg{{"/b", true, 5}, {"/a-b", true, 5}, {"/a/b", true, 5}, {"/z", true, 4}}
	sortPackages(pkgs)
	want := []pkg{{"/z", true, 4}, {"/a/b", true, 5}, {"/a-b", true, 5}, {"/b", true, 5}}
	if diff := cmp.Diff(want, pkgs, cmp.AllowUnexported(pkg{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// What is accepted and printed again is accepted, and the same.
func FuzzParsePackages(f *testing.F) {
	for _, seed := range []string{"", "true 5 1 /a", "false -1 2 /a /b true 0 0", "true 5 9 /a", "x y z", "1 2 3 4 5"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		pkgs, err := parsePackages(s)
		if err != nil {
			return
		}
		var b strings.Builder
		for _, p := range pkgs {
			b.WriteString(strconv.FormatBool(p.active) + " " + strconv.Itoa(p.priority) + " 1 " + p.path + "\n")
		}
		again, err := parsePackages(b.String())
		if diff := cmp.Diff(pkgs, again, cmp.AllowUnexported(pkg{})); err != nil || diff != "" {
			t.Errorf("%q: error %v (-first +again):\n%s", s, err, diff)
		}
	})
}
