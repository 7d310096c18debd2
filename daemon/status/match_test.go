package status

import (
	"errors"
	"strings"
	"testing"
)

func TestMatch(t *testing.T) {
	builds := []Build{
		{ID: "10-1", Derivation: "/nix/store/abcd1-hello-1.0.drv"}, {ID: "10-2", Derivation: "/nix/store/abce2-hello-1.0.drv"},
		{ID: "10-3", Derivation: "/nix/store/xyzw3-bash.drv"}, {ID: "10-4", Derivation: "/nix/store/xyzw3-bash.drv", Mode: "check"},
		{ID: "11-1", Derivation: "/nix/store/abcd1-hello-1.0.drv"},
	}
	for word, want := range map[string]string{
		"10-2": "10-2", "2": "10-2", "1": "10-1 11-1", "/nix/store/abcd1-hello-1.0.drv": "10-1 11-1", "abce2-hello-1.0.drv": "10-2",
		"bash": "10-3 10-4", "bash.drv": "10-3 10-4", "abce": "10-2", "abcd1": "10-1 11-1", "hello-1.0": "ambiguous", "abc": "", "nothing": "", "": "",
	} {
		found, err := Match(builds, word)
		var ids []string
		for _, b := range found {
			ids = append(ids, b.ID)
		}
		got := strings.Join(ids, " ")
		var ambiguous *AmbiguousError
		if errors.As(err, &ambiguous) {
			got = "ambiguous"
			if len(ambiguous.Derivations) != 2 || !strings.Contains(err.Error(), " or ") {
				t.Errorf("%q: %v", word, err)
			}
		}
		if got != want {
			t.Errorf("%q is %q, want %q", word, got, want)
		}
	}
}

func TestName(t *testing.T) {
	for path, want := range map[string]string{"/nix/store/h-a-b-1.drv": "a-b-1", "h-out": "out", "plain": "plain", "": ""} {
		if got := Name(path); got != want {
			t.Errorf("name of %q is %q, want %q", path, got, want)
		}
	}
}
