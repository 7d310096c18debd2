// Package view shows the status of a daemon on a terminal.
//
// [Render] is a pure function of a snapshot, the one before it, and the terminal's size: it gives lines that fit. What
// does not fit is cut from what matters least, and counted. [Screen] puts such pictures onto a terminal one after the
// other without flicker. Text that comes from builders or clients is stripped of everything that a terminal would act
// upon.
package view

import (
	"fmt"
	"strings"
	"time"

	"nixdaemon/daemon/status"
)

// Options say how to show it.
type Options struct {
	// Width and Height are the terminal's; 0 is without limit.
	Width, Height int
	// Colour is set if the terminal has any.
	Colour bool
	// Before is an earlier snapshot, from which speeds are told; nil for none.
	Before *status.Snapshot
	// Zone is for times of day; nil is UTC.
	Zone *time.Location
}

// Render gives the lines of a picture, without line ends.
func Render(s status.Snapshot, o Options) []string {
	p := &painter{o: o, s: s, speeds: speedsBetween(o.Before, s)}
	p.head()
	p.builds()
	p.waiting()
	p.substitutions()
	p.collections()
	p.clients()
	p.recent()
	return p.fit()
}

// painter gathers sections.
type painter struct {
	o        Options
	s        status.Snapshot
	speeds   speeds
	sections []section
}

func (p *painter) since(t time.Time) string { return clock(p.s.Time.Sub(t)) }

// head has a line for each server, the one that serves first.
func (p *painter) head() {
	sec := section{rank: rankHead}
	zone := p.o.Zone
	if zone == nil {
		zone = time.UTC
	}
	for i, s := range p.s.Servers {
		parts := []string{fmt.Sprintf("nix-daemon %s", clean(s.Release)), "up " + age(p.s.Time.Sub(s.Since))}
		if s.State != "serving" {
			parts[1] = "finishing what it has begun"
		}
		if s.Slots > 0 { // or others build
			parts = append(parts, fmt.Sprintf("%d of %d slots", s.Running, s.Slots))
		}
		parts = append(parts, plural(len(s.Connections)+s.OtherConnections, "client"))
		if s.Memory > 0 {
			parts = append(parts, size(s.Memory))
		}
		left := strings.Join(parts, ", ")
		if i == 0 {
			left = spread(left, p.s.Time.In(zone).Format("15:04:05"), p.o.Width)
		}
		sec.add(p.paint(bold, p.cut(left)))
		if s.Problem != "" {
			sec.add(p.paint(red, p.cut("  "+clean(s.Problem))))
		}
	}
	if len(p.s.Servers) == 0 {
		sec.add(p.paint(bold, p.cut("no daemon")))
	}
	p.sections = append(p.sections, sec)
}

// each calls do with the builds of all servers.
func (p *painter) each(do func(b status.Build)) {
	for _, s := range p.s.Servers {
		for _, b := range s.Builds {
			do(b)
		}
	}
}

// number is a build's number, with its server's where there are several.
func (p *painter) number(id string) string {
	if len(p.s.Servers) > 1 {
		return id
	}
	if _, n, ok := strings.Cut(id, "-"); ok {
		return n
	}
	return id
}

// builds lists those that run, each with the last line of its log.
func (p *painter) builds() {
	t := table{columns: []column{{title: "BUILDS", flex: true}, {title: "no.", right: true}, {title: "phase"}, {title: "time", right: true},
		{title: "CPU", right: true}, {title: "memory", right: true}, {title: "for"}}}
	p.each(func(b status.Build) {
		if b.State != status.Running {
			return
		}
		began := b.Since
		if b.Began != nil {
			began = *b.Began
		}
		phase := b.Phase
		if b.Began == nil {
			phase = "preparing"
		}
		below := ""
		if b.Machine != "" {
			below = "on " + b.Machine
		}
		if b.LastLine != "" {
			below = strings.TrimPrefix(below+": "+clean(b.LastLine), ": ")
		}
		t.add(below, name(b), p.number(b.ID), clean(phase), p.since(began), p.cpu(b), optional(b.Memory), people(b.Users, b.Others))
	})
	p.table(&t, rankBuilds)
}

func name(b status.Build) string {
	n := clean(status.Name(b.Derivation))
	if b.Mode != "" {
		n += " (" + b.Mode + ")"
	}
	return n
}

// cpu is the share of a processor, or without an earlier snapshot the time used.
func (p *painter) cpu(b status.Build) string {
	if share, ok := p.speeds.cpu[b.ID]; ok {
		return fmt.Sprintf("%.0f%%", 100*share)
	}
	if b.CPUSeconds == 0 {
		return ""
	}
	return fmt.Sprintf("%.1fs", b.CPUSeconds)
}

// waiting lists the builds that wait, and for what.
func (p *painter) waiting() {
	t := table{columns: []column{{title: "WAITING", flex: true}, {title: "no.", right: true}, {title: "for what", flex: true},
		{title: "time", right: true}, {title: "for"}}}
	known := uint64(0)
	p.each(func(b status.Build) {
		if b.State == status.Running {
			known++
			return
		}
		known++
		reason := clean(b.Reason)
		if b.State == status.Queued || reason == "" {
			reason = "a slot"
		} else if reason == "machine" || reason == "build user" {
			reason = "a " + reason
		}
		t.add("", name(b), p.number(b.ID), reason, p.since(b.Since), people(b.Users, b.Others))
	})
	listed, more := p.waits(&t)
	if listed == 0 {
		more = p.forInputs(known)
	}
	if more > 0 {
		t.add("", fmt.Sprintf("%d more", more), "", "others", "", "")
		t.rows[len(t.rows)-1].count = int(min(more, 1<<30))
	}
	p.table(&t, rankWaiting)
}

// waits lists parts of requests on which no work is done yet, and tells how many more there are.
func (p *painter) waits(t *table) (listed int, more uint64) {
	const most = 20 // they are many, and all much the same
	for _, s := range p.s.Servers {
		for _, w := range s.Waiting[:min(len(s.Waiting), most)] {
			t.add("", clean(status.Name(w.What)), "", waitsFor(w), "", people(w.Users, w.Others))
			listed++
		}
		more += uint64(s.MoreWaiting + max(len(s.Waiting)-most, 0))
	}
	return listed, more
}

// waitsFor says what something waits for: "3 inputs: glibc running, gcc queued".
func waitsFor(w status.Wait) string {
	var text string
	switch w.Reason {
	case "inputs", "references":
		text = plural(w.Open, strings.TrimSuffix(w.Reason, "s"))
	case "answer of a cache":
		text = "an " + w.Reason
	default:
		text = "a " + clean(w.Reason)
	}
	for i, c := range w.For {
		if i == 0 {
			text += ": "
		} else {
			text += ", "
		}
		state := clean(c.State)
		switch {
		case c.Kind == status.KindSubstitution && c.State == status.Running:
			state = "on its way"
		case c.Kind == status.KindSubstitution:
			state = "waits for " + state
		}
		text += clean(status.Name(c.What)) + " " + state
	}
	return text
}

// forInputs is how many builds are wanted that have not even begun to wait for a slot. Two clients may want the same.
func (p *painter) forInputs(known uint64) uint64 {
	var wanted uint64
	for _, s := range p.s.Servers {
		for _, r := range s.Requests {
			wanted += r.Builds.Open
		}
	}
	return wanted - min(wanted, known)
}

// substitutions lists the paths that are fetched, with how far they are.
func (p *painter) substitutions() {
	t := table{columns: []column{{title: "SUBSTITUTIONS", flex: true}, {title: "progress"}, {title: "bytes", right: true},
		{title: "per s", right: true}, {title: "from", flex: true}, {title: "for"}}}
	for _, s := range p.s.Servers {
		for _, f := range s.Substitutions {
			done, bytes := "", size(f.Done)
			if f.Size > 0 {
				done = bar(f.Done, f.Size)
				bytes += " of " + size(f.Size)
			}
			speed := ""
			if v, ok := p.speeds.fetch[f.Path]; ok {
				speed = size(uint64(v))
			}
			t.add("", clean(status.Name(f.Path)), done, bytes, speed, clean(f.Cache), clean(f.User))
		}
	}
	p.table(&t, rankFetches)
}

// collections has a line for each that runs.
func (p *painter) collections() {
	sec := section{rank: rankGarbage}
	for _, s := range p.s.Servers {
		c := s.Collection
		if c == nil {
			continue
		}
		line := clean(c.Step)
		if c.Dead > 0 {
			line += fmt.Sprintf(" %s %d of %d", bar(c.Deleted, c.Dead), c.Deleted, c.Dead)
		}
		line += ", " + size(c.Freed) + " freed"
		if c.MaxFreed > 0 {
			line += " of at most " + size(c.MaxFreed)
		}
		if c.For != "" {
			line += ", for " + clean(c.For)
		}
		sec.add(p.cut("  " + line + ", " + p.since(c.Since)))
	}
	p.titled("GARBAGE", sec)
}

// clients lists connections that wait for something; the others are counted.
func (p *painter) clients() {
	t := table{columns: []column{{title: "CLIENTS", flex: true}, {title: "process", right: true}, {title: "waits for"}, {title: "time", right: true}, {title: "connected", right: true}}}
	idle, others := map[string]int{}, 0
	var order []string
	for _, s := range p.s.Servers {
		others += s.OtherConnections
		for _, c := range s.Connections {
			user := clean(c.User)
			if c.Operation == "" || c.Began == nil {
				if idle[user] == 0 {
					order = append(order, user)
				}
				idle[user]++
				continue
			}
			pid := ""
			if c.PID > 0 {
				pid = fmt.Sprint(c.PID)
			}
			t.add("", user, pid, clean(c.Operation), p.since(*c.Began), p.since(c.Since))
		}
	}
	for _, user := range order {
		t.add("", fmt.Sprintf("%s, %d waiting for nothing", user, idle[user]), "", "", "", "")
	}
	if others > 0 {
		t.add("", fmt.Sprintf("%d of others", others), "", "", "", "")
	}
	p.table(&t, rankClients)
}

// recent lists what has ended.
func (p *painter) recent() {
	const most = 8
	t := table{columns: []column{{title: "RECENTLY", flex: true}, {title: "what"}, {title: "outcome"}, {title: "took", right: true}, {title: "ago", right: true}, {title: "bytes", right: true}}}
	for _, s := range p.s.Servers {
		for _, e := range s.Recent[:min(len(s.Recent), most)] {
			what := clean(status.Name(e.What))
			if e.Kind == status.KindCollection {
				what = "garbage"
			}
			outcome := clean(e.Outcome)
			switch e.Outcome {
			case status.Succeeded:
				outcome = p.paint(green, outcome)
			case status.Failed:
				outcome = p.paint(red, outcome)
			}
			t.add("", what, clean(e.Kind), outcome, clock(e.Ended.Sub(e.Began)), age(p.s.Time.Sub(e.Ended)), optional(e.Bytes))
		}
	}
	p.table(&t, rankRecent)
}
