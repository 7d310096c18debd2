package build

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"nixdaemon/protocol/storepath"
)

// Wait is a part of clients' requests on which no work is done yet. Builds that are queued or held up are not among these:
// they are in [Status].
type Wait struct {
	ClientID
	// Path is a derivation that is to be built, or if Fetch is set a path that is to be fetched.
	Path  storepath.Path
	Fetch bool
	// Reason is "inputs", "references", "substitution slot" or "answer of a cache".
	Reason string
	// Open is how many inputs or references are missing.
	Open int
	// For is the work at the bottom of it, what runs first; at most [mostCauses].
	For []Cause
}

// Cause is work that others wait for.
type Cause struct {
	Path  storepath.Path
	Fetch bool
	// State is "running", "queued" for builds that wait for a slot or anything else that [Status] tells, or the reason that
	// a fetch waits for.
	State string
}

// The reasons of waits.
const (
	waitInputs     = "inputs"
	waitReferences = "references"
	waitFetchSlot  = "substitution slot"
	waitAnswer     = "answer of a cache"
)

const (
	mostCauses = 4
	// waitsPatience is how long a request may take to tell: it may be at work. Then what it told last counts.
	waitsPatience = 100 * time.Millisecond
	// waitsAge is for how long what it told counts anyway: whoever looks often shall not hold it up.
	waitsAge = 200 * time.Millisecond
)

// Waits lists what waits, at most so many of each request, those first that wait for the fewest things; all counts those
// that are not listed, too. Nothing is noted before somebody asks: the requests look at themselves then.
func (s *Scheduler) Waits(most int) (list []Wait, all int) {
	s.mu.Lock()
	requests := make([]*request, 0, len(s.requests))
	for r := range s.requests {
		requests = append(requests, r)
	}
	s.mu.Unlock()
	slices.SortFunc(requests, func(a, b *request) int { return a.since.Compare(b.since) })
	var answers []<-chan struct{}
	for _, r := range requests {
		if answer := r.waits.ask(r, most); answer != nil {
			answers = append(answers, answer)
		}
	}
	patience := time.NewTimer(waitsPatience)
	defer patience.Stop()
	for _, answer := range answers {
		select {
		case <-answer:
			continue
		case <-patience.C:
		}
		break
	}
	for _, r := range requests {
		told, n := r.waits.told()
		list, all = append(list, told...), all+n
	}
	return list, all
}

// shownWaits are what a request has told of its waits.
type shownWaits struct {
	mu   sync.Mutex
	list []Wait
	all  int
	at   time.Time
	// asked is closed when the question that the request has not answered yet is; nil if there is none.
	asked chan struct{}
}

// ask has a request tell, and gives what is closed when it has; nil if it has told just now.
func (w *shownWaits) ask(r *request, most int) <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.asked == nil && time.Since(w.at) < waitsAge {
		return nil
	}
	if w.asked == nil {
		w.asked = make(chan struct{})
		r.inbox.post(notice{then: func() { w.answer(r.waiting(most)) }})
	}
	return w.asked
}

func (w *shownWaits) answer(list []Wait, all int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.list, w.all, w.at = list, all, time.Now()
	close(w.asked)
	w.asked = nil
}

func (w *shownWaits) told() ([]Wait, int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.list, w.all
}

// waiting lists the goals that wait for others.
func (r *request) waiting(most int) (list []Wait, all int) {
	var found []*goal
	for _, g := range r.goals {
		if g.exit == exitBusy && g.reason() != "" {
			found = append(found, g)
		}
	}
	slices.SortFunc(found, func(a, b *goal) int { return cmp.Or(cmp.Compare(a.waiting, b.waiting), compareGoals(a, b)) })
	causes := make(map[*goal][]Cause)
	for _, g := range found[:min(len(found), most)] {
		w := Wait{ClientID: ClientID{r.sess.User, r.sess.Client}, Reason: g.reason(), Open: g.waiting}
		switch o := g.owner.(type) {
		case *drvGoal:
			w.Path = o.drvPath
		case *pathGoal:
			w.Path, w.Fetch = o.path, true
		}
		if g.waiting > 0 {
			w.For = r.causes(g, causes)
		}
		list = append(list, w)
	}
	return list, len(found)
}

// reason is what a goal waits for, if it is one that people know and has no job; else nothing.
func (g *goal) reason() string {
	switch o := g.owner.(type) {
	case *drvGoal:
		if o.sub == nil && g.waiting > 0 {
			return waitInputs
		}
	case *pathGoal:
		switch {
		case g.waiting > 0:
			return waitReferences
		case o.stage == fetchAsking:
			return waitAnswer
		case o.stage == fetchQueued:
			return waitFetchSlot
		}
	}
	return ""
}

// causes are the work at the bottom of what a goal waits for. known has those of the goals that were looked at before.
func (r *request) causes(g *goal, known map[*goal][]Cause) []Cause {
	if found, ok := known[g]; ok {
		return found
	}
	known[g] = nil
	var found []Cause
	for _, on := range r.below(g) {
		for _, c := range r.causes(on, known) {
			if !slices.Contains(found, c) {
				found = append(found, c)
			}
		}
	}
	if c, ok := g.cause(); ok {
		found = append(found, c)
	}
	slices.SortStableFunc(found, func(a, b Cause) int { return b.rank() - a.rank() })
	found = found[:min(len(found), mostCauses)]
	known[g] = found
	return found
}

// cause is the work that a goal itself has in hand.
func (g *goal) cause() (Cause, bool) {
	switch o := g.owner.(type) {
	case *drvGoal:
		if o.sub != nil {
			state := "queued"
			if o.running {
				state = "running"
			}
			return Cause{Path: o.drvPath, State: state}, true
		}
	case *pathGoal:
		if o.stage == fetchRunning {
			return Cause{o.path, true, "running"}, true
		}
		if why := g.reason(); why != "" && g.waiting == 0 {
			return Cause{o.path, true, why}, true
		}
	}
	return Cause{}, false
}

func (c Cause) rank() int {
	if c.State == "running" {
		return 1
	}
	return 0
}

// below are the goals that one waits for which are not done.
func (r *request) below(g *goal) []*goal {
	var on []*goal
	add := func(other *goal) {
		if other != nil && other.exit == exitBusy {
			on = append(on, other)
		}
	}
	switch o := g.owner.(type) {
	case *wanted:
		for _, part := range o.parts {
			add(part)
		}
		if o.parts == nil && o.drvRef.Drv == nil {
			add(r.goals[pathKey(r.dir, o.drvRef.Path, false)])
		}
	case *outputGoal:
		switch {
		case o.resolved != nil:
			add(o.resolved.goal)
		case o.below != nil:
			add(o.below.goal)
		case !o.path.IsZero():
			add(r.goals[pathKey(r.dir, o.path, false)])
		}
	case *drvGoal:
		if o.sub != nil {
			break
		}
		for _, input := range o.inputs {
			add(input.goal)
		}
		for _, src := range o.drv.InputSrcs {
			add(r.goals[pathKey(r.dir, src, false)])
		}
	case *pathGoal:
		if o.offer == nil {
			break
		}
		for _, ref := range o.offer.Info.References {
			if ref != o.path {
				add(r.goals[pathKey(r.dir, ref, false)])
			}
		}
	}
	return on
}
