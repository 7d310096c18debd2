package roots

import (
	"os"
	"strconv"
	"testing"

	"nixdaemon/protocol/storepath"
)

// TestIndirectRootInProc has what a client can make indirect roots of in order to see what the programs of others use.
func TestIndirectRootInProc(t *testing.T) {
	f := newFixture(t)
	f.mkdir("store/" + path(1).Base())
	f.mkdir("store/" + path(2).Base())
	for i, dir := range []string{f.top + "/store/" + path(1).Base(), f.top + "/store/" + path(2).Base()} {
		file, err := os.Open(dir)
		f.must(err)
		defer file.Close()
		f.link("/proc/self/fd", "home/innocent"+strconv.Itoa(i))
		f.link(f.top+"/home/innocent"+strconv.Itoa(i)+"/"+strconv.Itoa(int(file.Fd())), "var/gcroots/auto/"+strconv.Itoa(i))
	}
	f.o.Dir = storepath.Dir(f.top + "/store")
	f.link(f.print(3), "home/result")
	f.link(f.top+"/home/result", "var/gcroots/auto/result")
	f.o.Censor = true
	f.compare(Permanent, Censored+" -> p1", Censored+" -> p2", "home/result -> p3")
	f.o.Censor = false
	got, err := Permanent(t.Context(), f.o)
	f.must(err)
	for _, n := range []int{1, 2} {
		if labels := got[path(n)]; len(labels) != 1 || labels[0] == Censored {
			t.Errorf("labels of p%d are %q for those who may see them", n, labels)
		}
	}
}
