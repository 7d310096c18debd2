package roots

import (
	"slices"
	"testing"
)

func TestLsofNames(t *testing.T) {
	const out = "p1\nfcwd\nn/\nftxt\nn/nix/store/abc-launchd/bin/launchd\nf3\nn->0xb6f2c1\nf4\nn127.0.0.1:80->127.0.0.1:99\n" +
		"p2\nn/with space and n/in it\nnrelative\n\nn/last line"
	var got []string
	for name := range lsofNames([]byte(out)) {
		got = append(got, string(name))
	}
	if want := []string{"/", "/nix/store/abc-launchd/bin/launchd", "/with space and n/in it", "/last line"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	for name := range lsofNames([]byte(out)) {
		if string(name) != "/" {
			t.Errorf("went on to %q", name)
		}
		break
	}
}
