package main

import (
	"fmt"
	"strings"
	"testing"
)

func events(lines ...string) string {
	var out strings.Builder
	for _, line := range lines {
		action, rest, _ := strings.Cut(line, " ")
		name, output, said := strings.Cut(rest, " ")
		if said {
			output += "\n"
		}
		fmt.Fprintf(&out, "{%q:%q,%q:%q,%q:%q,%q:%q,%q:2}\n", "Action", action, "Package", "p", "Test", name, "Output", output, "Elapsed")
	}
	return out.String()
}

func TestTell(t *testing.T) {
	for name, c := range map[string]struct {
		events string
		passed bool
		has    []string
		lacks  []string
	}{
		"everything passes": {
			events: events("run A", "output A chatter", "run A/b", "pass A/b", "pass A", "skip B", "pass"),
			passed: true, has: []string{"ok    p.A", "2 passed, 1 skipped, 0 failed"}, lacks: []string{"chatter", "A/b"},
		},
		"a skip tells why": {
			events: events("run A", "output A === RUN A", "output A x_test.go:1: no machine", "output A --- SKIP: A", "skip A", "run B", "pass B", "pass"),
			passed: true, has: []string{"skip  p.A: x_test.go:1: no machine"},
		},
		"the innermost failure is told, once": {
			events: events("run A", "run A/b", "run A/b/c", "output A/b/c the cause", "output A around it", "pass A/d", "fail A/b/c", "fail A/b", "fail A", "fail"),
			has:    []string{"--- FAIL: p.A/b/c\nthe cause", "4 failed"}, lacks: []string{"around it", "--- FAIL: p.A\n"},
		},
		"a test that never ended": {
			events: events("run A", "output A panic: here", "output  exit status 2", "fail"),
			has:    []string{"--- FAIL: p.A\npanic: here\n(had not ended)"}, lacks: []string{"--- FAIL: p\n"},
		},
		"a package that fails by itself": {
			events: events("run A", "pass A", "output  in TestMain", "fail"),
			has:    []string{"--- FAIL: p\nin TestMain"},
		},
		"a build that fails": {
			events: `{"ImportPath":"p [p.test]","Action":"build-output","Output":"x.go:1: wrong"}` + "\n" + `{"ImportPath":"p [p.test]","Action":"build-fail"}` + "\n",
			has:    []string{"--- FAIL: p [p.test]\nx.go:1: wrong"},
		},
		"nothing ran":             {events: "", has: []string{"0 passed"}},
		"cut off":                 {events: events("run A", "output A so far"), has: []string{"--- FAIL: p.A\nso far"}},
		"what is no event":        {events: "go: downloading\n" + events("run A", "pass A", "pass"), passed: true, has: []string{"go: downloading"}},
		"a failure beside a pass": {events: events("run A", "fail A", "run AB", "pass AB", "fail"), has: []string{"--- FAIL: p.A\n", "ok    p.AB"}},
	} {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			passed, err := tell(strings.NewReader(c.events), &out)
			if err != nil || passed != c.passed {
				t.Errorf("passed %v, %v; want %v", passed, err, c.passed)
			}
			for _, want := range c.has {
				if !strings.Contains(out.String(), want) {
					t.Errorf("report lacks %q:\n%s", want, out.String())
				}
			}
			for _, no := range c.lacks {
				if strings.Contains(out.String(), no) {
					t.Errorf("report has %q:\n%s", no, out.String())
				}
			}
		})
	}
}

// What a test says is bounded, and its end is what stays.
func TestOutputIsBounded(t *testing.T) {
	var kept test
	for i := range 100_000 {
		kept.add(fmt.Sprintf("line %d\n", i))
	}
	if len(kept.output) > 2*keptOutput+100 || !strings.HasSuffix(string(kept.output), "line 99999\n") {
		t.Errorf("kept %d bytes, ending %q", len(kept.output), kept.output[len(kept.output)-20:])
	}
}
