package settings

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestManual holds the manual to the table: it tells of each setting of our own, and of no other as ours.
func TestManual(t *testing.T) {
	page, err := os.ReadFile("../../contrib/man/nix-daemon-settings.5")
	if err != nil {
		t.Fatal(err)
	}
	_, own, _ := strings.Cut(string(page), ".Ss Its own")
	own, differently, ok := strings.Cut(own, ".Ss Differently")
	if !ok {
		t.Fatal("the sections are not there")
	}
	var want []string
	known := make(map[string]bool)
	s := Defaults(Environment{System: "x86_64-linux"})
	for info := range s.Infos() {
		known[info.Name] = true
		if info.Group == GroupOwn {
			want = append(want, info.Name)
		}
	}
	slices.Sort(want)
	item := regexp.MustCompile(`(?m)^\.It Ic (.*)$`)
	var got []string
	for _, m := range item.FindAllStringSubmatch(own, -1) {
		got = append(got, m[1])
	}
	if !slices.Equal(got, want) {
		t.Errorf("the manual has, in this order, %q; there are %q", got, want)
	}
	for _, m := range item.FindAllStringSubmatch(differently, -1) {
		for name := range strings.SplitSeq(m[1], " , ") {
			if !known[name] {
				t.Errorf("the manual tells of %q, which is no setting", name)
			}
		}
	}
}
