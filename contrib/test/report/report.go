package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// keptOutput bounds what is kept of one test, in bytes: of more, the end is kept.
const keptOutput = 64 << 10

// toldFrom is how long, in seconds, a test takes whose passing is worth a line.
const toldFrom = 1

// An event is one line of "go test -json" (cmd/internal/test2json).
type event struct {
	Action     string
	Package    string
	ImportPath string // of build output, in place of Package
	Test       string
	Output     string
	Elapsed    float64 // seconds
}

// A test is a test that has begun, or a package, whose name is empty.
type test struct {
	pkg, name string
	output    []byte
	failed    bool
}

// A report is what is known of a run.
type report struct {
	to      io.Writer
	running map[string]*test // by package and name
	failed  []*test
	passes  int
	skips   int
}

// tell reads events until their end and writes what they mean. It says
// whether everything passed, and at least something did.
func tell(from io.Reader, to io.Writer) (passed bool, err error) {
	r := &report{to: to, running: map[string]*test{}}
	lines := bufio.NewReader(from)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			r.line(line)
		}
		if err == io.EOF {
			return r.end(), nil
		} else if err != nil {
			return false, fmt.Errorf("read test events: %w", err)
		}
	}
}

// line takes one line. What is no event comes from a tool, and is told as it is.
func (r *report) line(line []byte) {
	var e event
	if json.Unmarshal(line, &e) != nil {
		r.to.Write(line)
		return
	}
	t := r.test(e)
	switch e.Action {
	case "output", "build-output":
		t.add(e.Output)
	case "pass", "skip":
		r.succeeded(t, e)
	case "fail", "build-fail":
		t.failed = true
		r.failed = append(r.failed, t)
		r.over(t)
		fmt.Fprintf(r.to, "FAIL  %s (%.2fs)\n", t.title(), e.Elapsed)
	}
}

func (r *report) test(e event) *test {
	pkg := e.Package
	if pkg == "" {
		pkg = e.ImportPath
	}
	t := r.running[pkg+" "+e.Test]
	if t == nil {
		t = &test{pkg: pkg, name: e.Test}
		r.running[pkg+" "+e.Test] = t
	}
	return t
}

func (r *report) succeeded(t *test, e event) {
	r.over(t)
	switch {
	case e.Action == "skip" && t.name != "":
		r.skips++
		fmt.Fprintf(r.to, "skip  %s: %s\n", t.title(), t.reason())
	case e.Action == "pass" && (t.name == "" || e.Elapsed >= toldFrom && !strings.Contains(t.name, "/")):
		fmt.Fprintf(r.to, "ok    %s (%.2fs)\n", t.title(), e.Elapsed)
	}
	if t.name != "" && e.Action == "pass" {
		r.passes++
	}
}

// over lets go of a test. When a package ends, so do the tests in it that
// have not: the process died in them.
func (r *report) over(t *test) {
	delete(r.running, t.pkg+" "+t.name)
	if t.name != "" {
		return
	}
	for _, key := range slices.Sorted(maps.Keys(r.running)) {
		if left := r.running[key]; left.pkg == t.pkg {
			delete(r.running, key)
			r.failed = append(r.failed, left)
			left.add("(had not ended)\n")
		}
	}
}

// end tells what failed.
func (r *report) end() bool {
	for _, t := range r.running { // the run was cut off
		r.failed = append(r.failed, t)
	}
	for _, t := range r.failed {
		if r.innermost(t) {
			fmt.Fprintf(r.to, "\n--- FAIL: %s\n%s", t.title(), t.output)
		}
	}
	fmt.Fprintf(r.to, "\n%d passed, %d skipped, %d failed\n", r.passes, r.skips, len(r.failed))
	return len(r.failed) == 0 && r.passes > 0
}

// innermost says whether a failure is not merely that of something within it.
func (r *report) innermost(t *test) bool {
	return !slices.ContainsFunc(r.failed, func(other *test) bool {
		within := strings.HasPrefix(other.name, t.name+"/") || t.name == "" && other.name != ""
		return other.pkg == t.pkg && within
	})
}

// add keeps the end of what a test says.
func (t *test) add(text string) {
	t.output = append(t.output, text...)
	if over := len(t.output) - keptOutput; over > keptOutput {
		t.output = append([]byte("...\n"), t.output[over:]...)
	}
}

// reason is what a test said when it was skipped: its last line but the result.
func (t *test) reason() string {
	reason := "no reason given"
	for line := range strings.Lines(string(t.output)) {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "---") && !strings.HasPrefix(line, "===") {
			reason = line
		}
	}
	return reason
}

func (t *test) title() string {
	return strings.TrimSuffix(t.pkg+"."+t.name, ".")
}
