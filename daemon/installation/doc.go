// Package installation says what a machine has of what the daemon needs.
//
// [Gather] looks at the machine and only looks: it gives [Facts]. [Judge] makes [Finding]s of them, each good, worth
// knowing or in the way of a working daemon, and knows nothing but the facts, so that tests make machines up. [Write]
// tells a person.
package installation

import (
	"fmt"
	"io"
)

// Verdict is what a finding means.
type Verdict uint8

// The verdicts. Of those only Bad stands in the way.
const (
	Good Verdict = iota
	Note
	Bad
)

// Finding is one line of the report. Advice, if any, says what to do.
type Finding struct {
	Verdict      Verdict
	Area         string
	Text, Advice string
}

// Judge says what the facts mean, area by area.
func Judge(f Facts) []Finding {
	var r report
	r.configuration(f)
	if f.ConfErr == "" && f.Remote == "" {
		r.store(f)
		r.database(f.Database)
		r.users(f)
		r.sandbox(f)
		r.cgroups(f.Cgroups)
	}
	if f.Socket.Path != "" {
		r.socket(f.Socket)
	}
	r.service(f)
	return r
}

// Write prints findings, a line each, and whether all is well.
func Write(w io.Writer, findings []Finding) (well bool, err error) {
	bad := 0
	for _, f := range findings {
		label := "ok  "
		switch f.Verdict {
		case Note:
			label = "note"
		case Bad:
			label = "BAD "
			bad++
		}
		if _, err := fmt.Fprintf(w, "%s  %s: %s\n", label, f.Area, f.Text); err != nil {
			return false, err
		}
		if f.Advice != "" {
			if _, err := fmt.Fprintf(w, "      %s\n", f.Advice); err != nil {
				return false, err
			}
		}
	}
	last := "Nothing stands in the way of the daemon."
	switch {
	case bad == 1:
		last = "One finding stands in the way of the daemon."
	case bad > 1:
		last = fmt.Sprintf("%d findings stand in the way of the daemon.", bad)
	}
	_, err = fmt.Fprintln(w, last)
	return bad == 0, err
}

// report collects findings.
type report []Finding

func (r *report) good(area, format string, args ...any) {
	*r = append(*r, Finding{Good, area, fmt.Sprintf(format, args...), ""})
}

func (r *report) note(area, advice, format string, args ...any) {
	*r = append(*r, Finding{Note, area, fmt.Sprintf(format, args...), advice})
}

func (r *report) bad(area, advice, format string, args ...any) {
	*r = append(*r, Finding{Bad, area, fmt.Sprintf(format, args...), advice})
}
