package build

import (
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/storepath"
)

type exit uint8

const (
	exitBusy exit = iota // also of what was given up
	exitSuccess
	exitFailed
	// exitNoSubstituters is a failure that only says that nobody has a path, so that it may have to be built.
	exitNoSubstituters
)

// goal is something that a request wants. It sleeps until as many other goals as it waits for have ended, then its
// step is called; a step waits again or ends the goal.
type goal struct {
	r    *request
	key  string
	step func()

	awake   bool
	gen     int // of the waiting; waiters of earlier ones do not count any more
	waiting int
	waiters []waiter

	// nrFailed counts the goals waited for that failed, nrNoSubst those of them with exitNoSubstituters.
	nrFailed, nrNoSubst int

	top      bool // the request is about this goal
	preserve bool // whoever waits for the goal reports its failure

	exit    exit
	failure *Failure
	status  derivation.BuildStatus
	outputs map[string]storepath.Path
	ran     *outcome // of the build behind it, if there was one
	owner   any      // the *wanted, *outputGoal, *drvGoal or *pathGoal that this is part of
}

type waiter struct {
	g   *goal
	gen int
}

// find gives the goal with that key, or makes it known.
func (r *request) find(key string) (*goal, bool) {
	g, ok := r.goals[key]
	return g, ok
}

func (r *request) newGoal(key string, step func()) *goal {
	g := &goal{r: r, key: key, step: step}
	r.goals[key] = g
	r.wake(g)
	return g
}

func (r *request) wake(g *goal) {
	if !g.awake {
		g.awake = true
		r.awake = append(r.awake, g)
	}
}

// await makes next the step for when all of the goals have ended, or one has failed and the client does not want to
// keep going.
func (g *goal) await(goals []*goal, next func()) {
	g.step = next
	g.gen++
	g.waiting = 0
	for _, other := range goals {
		if other.exit == exitBusy {
			other.waiters = append(other.waiters, waiter{g, g.gen})
			g.waiting++
		} else {
			g.count(other)
		}
	}
	if g.waiting == 0 || g.nrFailed > g.nrNoSubst && !g.r.sess.Settings.KeepGoing {
		g.wakeUp()
	}
}

func (g *goal) wakeUp() {
	g.gen++
	g.waiting = 0
	g.r.wake(g)
}

func (g *goal) count(ended *goal) {
	switch ended.exit {
	case exitFailed:
		g.nrFailed++
	case exitNoSubstituters:
		g.nrFailed++
		g.nrNoSubst++
	}
}

func (g *goal) succeed(status derivation.BuildStatus, outputs map[string]storepath.Path) {
	g.status, g.outputs = status, outputs
	g.done(exitSuccess)
}

func (g *goal) fail(e exit, f *Failure) {
	g.failure = f
	g.done(e)
}

// done ends the goal and wakes who can go on now (libstore/build/goal.cc, amDone).
func (g *goal) done(e exit) {
	g.exit = e
	r := g.r
	if e == exitFailed && !g.preserve && len(g.waiters) > 0 {
		r.logFailure(g.failure)
	}
	for _, w := range g.waiters {
		if w.gen != w.g.gen {
			continue
		}
		w.g.count(g)
		w.g.waiting--
		if w.g.waiting == 0 || e == exitFailed && !r.sess.Settings.KeepGoing {
			w.g.wakeUp()
		}
	}
	g.waiters = nil
	g.step = nil
	if g.top {
		r.topDone(g)
	}
}

// topDone counts down the goals that the request is about; without keep-going a failure ends them all.
func (r *request) topDone(g *goal) {
	r.open--
	if g.exit == exitFailed && !r.sess.Settings.KeepGoing {
		r.open = 0
	}
}
