package activity

import (
	"os"
	"sync"
	"testing"
)

func TestIDsAreUnique(t *testing.T) {
	const workers, each = 8, 1000
	var ids IDs
	got := make([][]ID, workers)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for range each {
				got[w] = append(got[w], ids.Next())
			}
		})
	}
	wg.Wait()
	seen := make(map[ID]bool)
	for _, list := range got {
		for _, id := range list {
			if seen[id] || id == 0 || uint64(id)>>32 != uint64(os.Getpid()) {
				t.Fatalf("number %#x is not unique behind the process id", id)
			}
			seen[id] = true
		}
	}
}

// The numbers are those of the wire (upstream's logging.hh).
func TestNumbers(t *testing.T) {
	for got, want := range map[uint64]uint64{
		uint64(Vomit): 7, uint64(CopyPath): 100, uint64(Substitute): 108, uint64(FetchTree): 112,
	} {
		if got != want {
			t.Errorf("got %d, want %d", got, want)
		}
	}
	if FetchStatus != 108 || SetPhase != 104 || PostBuildLogLine != 107 {
		t.Errorf("results: %d, %d, %d", FetchStatus, SetPhase, PostBuildLogLine)
	}
}

func TestFields(t *testing.T) {
	if f := Number(7); f.IsText || f.Number != 7 {
		t.Errorf("got %+v", f)
	}
	if f := Text("x"); !f.IsText || f.Text != "x" {
		t.Errorf("got %+v", f)
	}
}
