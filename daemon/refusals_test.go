package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"nixdaemon/worker"
)

// TestRefusalsAreCounted: who is refused again and again fills no log, but nothing is lost of that.
func TestRefusalsAreCounted(t *testing.T) {
	file := filepath.Join(t.TempDir(), "audit")
	var log strings.Builder
	trail, err := openTrail(file, zerolog.New(&log))
	if err != nil {
		t.Fatal(err)
	}
	const tries = 10 * mostRefusals
	deed := worker.Privilege{Action: worker.ActionCancel, Refused: true, Err: errors.New("no")}
	for range tries {
		trail.note(Peer{Identity: Identity{User: "mallory"}}, deed)
	}
	trail.note(Peer{Identity: Identity{User: "alice"}}, deed)
	for range 2 * mostRefusals { // what was done is always listed
		trail.note(Peer{Identity: Identity{User: "mallory"}}, worker.Privilege{Action: worker.ActionCancel})
	}
	trail.close()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for where, lines := range map[string]string{"log": log.String(), "file": string(text)} {
		outcomes, leftOut := make(map[string]int), 0
		for line := range strings.Lines(lines) {
			var l struct {
				User, Action, Outcome string
				Count                 int
			}
			if err := json.Unmarshal([]byte(line), &l); err != nil {
				t.Fatal(err)
			}
			outcomes[l.User+" "+l.Outcome+" "+l.Action]++
			leftOut += l.Count
		}
		want := map[string]int{
			"mallory refused cancel-build": mostRefusals, "mallory refused left-out": 1, "alice refused cancel-build": 1,
			"mallory done cancel-build": 2 * mostRefusals,
		}
		if fmt.Sprint(outcomes) != fmt.Sprint(want) || leftOut != tries-mostRefusals {
			t.Errorf("%s: got %v, %d left out", where, outcomes, leftOut)
		}
	}
}

// TestRefusalsBeginAnew: after a while a user's refusals are listed again, and it is said how many were not.
func TestRefusalsBeginAnew(t *testing.T) {
	told := make(chan uint64, 1)
	r := newRefusals(func(user string, n uint64) {
		if user == "mallory" {
			told <- n
		}
	})
	defer r.close()
	for i := range 2 * mostRefusals {
		if got := r.admit("mallory"); got != (i < mostRefusals) {
			t.Errorf("%d: %v", i, got)
		}
	}
	r.over("mallory", r.users["mallory"]) // what the timer does
	if n := <-told; n != mostRefusals {
		t.Errorf("%d left out", n)
	}
	if !r.admit("mallory") {
		t.Error("they do not begin anew")
	}
}

// TestRefusalsOfMany users take no more memory than those of some.
func TestRefusalsOfMany(t *testing.T) {
	leftOut := make(map[string]uint64)
	r := newRefusals(func(user string, n uint64) { leftOut[user] = n })
	admitted := 0
	for i := range mostRefused + 5*mostRefusals {
		if r.admit(fmt.Sprint(i)) {
			admitted++
		}
	}
	if n := len(r.users); n != mostRefused+1 || admitted != mostRefused+mostRefusals {
		t.Errorf("%d users, %d listed", n, admitted)
	}
	r.close()
	if len(leftOut) != 1 || leftOut[otherUsers] != 4*mostRefusals {
		t.Errorf("left out: %v", leftOut)
	}
}
