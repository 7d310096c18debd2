package compat

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// step is one command of a scenario and what came of it.
type step struct {
	Command string
	Exit    int
	Stdout  []string // lines, as are the others
	Stderr  []string
}

// transcript is all that a scenario showed of a daemon.
type transcript struct {
	steps []step
	state []string // the store's rows, files, roots and logs at the end
}

// comparison says which of a command's outputs must be the same.
type comparison string

const (
	compareAll    comparison = "all"
	compareStdout comparison = "stdout" // not what was logged meanwhile
	compareSorted comparison = "sorted" // lines in any order
	compareExit   comparison = "exit"   // the status alone
)

func (t *transcript) add(how comparison, command string, exit int, stdout, stderr string) {
	s := step{Command: command, Exit: exit}
	if how != compareExit {
		s.Stdout = normaliseLines(stdout)
	}
	if how == compareAll || how == compareSorted {
		s.Stderr = normaliseLines(stderr)
	}
	if how == compareSorted {
		slices.Sort(s.Stdout)
		slices.Sort(s.Stderr)
	}
	t.steps = append(t.steps, s)
}

// varying is what differs between two runs against the same daemon.
var varying = []struct {
	re *regexp.Regexp
	to string
}{
	{regexp.MustCompile(`"registrationTime":\d+`), `"registrationTime":0`},
	{regexp.MustCompile(`\bnix-\d+-\d+`), `nix-PID-N`},
	{regexp.MustCompile(`/tmp-\d+-\d+/x`), `/tmp-PID-N/x`},
	{regexp.MustCompile(`\bnix-build-\d+-\d+`), `nix-build-PID-N`},
	// How long until the next attempt is partly chance.
	{regexp.MustCompile(`(retrying (?:from offset \d+ )?in )\d+ ms`), `${1}N ms`},
	{regexp.MustCompile(`\b(timed out after) \d+ milliseconds`), `$1 N milliseconds`},
	// Which roots are stale depends on what runs beside, and on leftovers.
	{regexp.MustCompile(`(?m)^removing stale .*\n`), ``},
}

func normaliseLines(text string) []string {
	if text == "" {
		return nil
	}
	for _, v := range varying {
		text = v.re.ReplaceAllString(text, v.to)
	}
	if text == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(text, "\n"), "\n")
}

// compare fails the test where the daemon's transcript is not the reference's.
func (t *transcript) compare(tb testing.TB, reference *transcript) {
	tb.Helper()
	for i, want := range reference.steps {
		if i >= len(t.steps) {
			tb.Errorf("ends before: %s", want.Command)
			break
		}
		if diff := cmp.Diff(want, t.steps[i]); diff != "" {
			tb.Errorf("step %d (- reference, + daemon under test):\n$ %s\n%s", i+1, want.Command, diff)
		}
	}
	for _, s := range t.steps[min(len(reference.steps), len(t.steps)):] {
		tb.Errorf("goes on after the reference's end: %s", s.Command)
	}
	if diff := cmp.Diff(reference.state, t.state); diff != "" {
		tb.Errorf("left behind (- reference, + daemon under test):\n%s", diff)
	}
}

func TestTranscriptTellsDifferences(t *testing.T) {
	base := func() *transcript {
		var tr transcript
		tr.add(compareAll, "nix-store -q x", 0, "a\nb\n", "warning\n")
		tr.state = []string{"row"}
		return &tr
	}
	tests := []struct {
		name   string
		change func(*transcript)
		same   bool
	}{
		{"nothing", func(*transcript) {}, true},
		{"stdout", func(tr *transcript) { tr.steps[0].Stdout[1] = "c" }, false},
		{"stderr", func(tr *transcript) { tr.steps[0].Stderr = nil }, false},
		{"exit status", func(tr *transcript) { tr.steps[0].Exit = 1 }, false},
		{"a step more", func(tr *transcript) { tr.add(compareAll, "x", 0, "", "") }, false},
		{"a step less", func(tr *transcript) { tr.steps = nil }, false},
		{"state", func(tr *transcript) { tr.state = nil }, false},
	}
	for _, tt := range tests {
		got := base()
		tt.change(got)
		var failed failureCounter
		got.compare(&failed, base())
		if (failed.n == 0) != tt.same {
			t.Errorf("%s: %d differences", tt.name, failed.n)
		}
	}
}

func TestTranscriptLeavesOutWhatVaries(t *testing.T) {
	a := normaliseLines(`{"registrationTime":1} /x/nix-12-3/build`)
	b := normaliseLines(`{"registrationTime":2} /x/nix-45-6/build`)
	if diff := cmp.Diff(a, b); diff != "" {
		t.Error(diff)
	}
}

// failureCounter stands in for a test that is expected to fail.
type failureCounter struct {
	testing.TB
	n int
}

func (f *failureCounter) Helper()                        {}
func (f *failureCounter) Errorf(format string, a ...any) { f.n++; _ = fmt.Sprintf(format, a...) }
