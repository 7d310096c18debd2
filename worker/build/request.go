package build

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker/session"
)

// request is one client's wish with all its goals. It lives on its caller's goroutine; only the inbox is shared.
type request struct {
	s    *Scheduler
	ctx  context.Context // of the call that the request is; it goes no further
	sess *session.Session
	// outer is the build whose builder asks; nil for a client of the daemon's own.
	outer *job
	dir   storepath.Dir
	log   activity.Sink // for the request itself
	jobs  *jobLog       // for its jobs

	goals map[string]*goal
	awake []*goal
	open  int // goals that the request is about and that have not ended; 0 once it is over
	subs  map[*subscription]struct{}
	roots []storepath.Path // to be made temporary roots before the next goals wake

	inMemory        *derivation.Derivation          // came with the request instead of from the store; may be nil
	unstored        map[*derivation.Derivation]bool // resolved derivations, which are written when they are built
	good            map[storepath.Path]bool         // see contentsGood
	closing         []activity.ID                   // activities that last as long as the request
	outcomeSettings string
	sought          bool     // for machines
	machines        Machines // nil if there are none
	flags           exitFlags
	progress        progress
	fetching        fetching
	err             error // ends the request
	wave            int   // counts the turns of goals
	failure         int   // the turn before which a job was last known to have failed
	holds           int   // of jobs, to be released

	inbox inbox

	since  time.Time
	counts shownCounts // for whoever looks, as is the next
	waits  shownWaits
}

// shownCounts are how far a request was when it last waited.
type shownCounts struct {
	mu  sync.Mutex
	now Counts
}

func (c *shownCounts) get() Counts {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *shownCounts) set(now Counts) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = now
}

// notice is what a request learns from other goroutines.
type notice struct {
	goal             *drvGoal
	started, stopped bool          // the job got, or gave back, a slot
	sub              *subscription // with out: the job has ended
	out              *outcome
	held             bool   // with out: the log of the request's jobs is held
	then             func() // of a fetch: what to do with its result
}

// inbox collects notices.
type inbox struct {
	mu     sync.Mutex
	queue  []notice
	signal chan struct{} // holds one token when the queue is not empty; never closed
}

func (b *inbox) post(n notice) {
	b.mu.Lock()
	b.queue = append(b.queue, n)
	b.mu.Unlock()
	select {
	case b.signal <- struct{}{}:
	default:
	}
}

func (b *inbox) take() []notice {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := b.queue
	b.queue = nil
	return all
}

func (s *Scheduler) newRequest(ctx context.Context, sess *session.Session) (*request, error) {
	if err := s.enter(); err != nil {
		return nil, err
	}
	return s.makeRequest(ctx, sess), nil
}

// makeRequest makes a request that has been counted in.
func (s *Scheduler) makeRequest(ctx context.Context, sess *session.Session) *request {
	r := &request{
		s: s, ctx: ctx, sess: sess, dir: s.store.Dir(), log: sess.Log, jobs: &jobLog{sink: sess.Log},
		goals:           make(map[string]*goal),
		subs:            make(map[*subscription]struct{}),
		unstored:        make(map[*derivation.Derivation]bool),
		outcomeSettings: outcomeSettings(sess.Settings),
		inbox:           inbox{signal: make(chan struct{}, 1)},
		since:           time.Now(),
	}
	s.mu.Lock()
	s.requests[r] = struct{}{}
	s.mu.Unlock()
	r.progress.begin(s.ids, r.log)
	return r
}

// end lets go of everything. It must be called once.
func (r *request) end() {
	r.jobs.end()
	for sub := range r.subs {
		r.s.unsubscribe(sub)
	}
	r.subs = nil
	r.fetching.end()
	if r.machines != nil {
		r.machines.Release()
	}
	for _, id := range r.closing {
		r.log.Stop(id)
	}
	r.progress.end(r.log)
	r.s.mu.Lock()
	delete(r.s.requests, r)
	r.s.mu.Unlock()
	r.s.work.Done()
}

// loop works until no top goal is left. The error is one that ends the request as a whole; failures of builds are in
// the goals.
func (r *request) loop(tops []*goal) error {
	for _, g := range tops {
		if !g.top { // the same thing may be asked for twice
			g.top = true
			r.open++
		}
	}
	if err := r.lookAhead(tops); err != nil {
		return err
	}
	for {
		if err := r.workAll(); err != nil {
			return err
		}
		if r.open > 0 {
			r.getAhead(r.fetching.nextReady)
			r.getAhead(r.fetching.nextFound)
		}
		r.progress.show(r.log)
		r.counts.set(r.progress.counts())
		if r.open == 0 {
			r.letBegin()
			return nil
		}
		if r.holds > 0 {
			r.jobs.release(r.holds)
			r.holds = 0
		}
		if len(r.subs) == 0 && r.fetching.running == 0 {
			return errStuck
		}
		select {
		case <-r.ctx.Done():
			return context.Cause(r.ctx)
		case <-r.s.base.Done():
			return ErrClosed
		case <-r.inbox.signal:
		}
		for _, n := range r.inbox.take() {
			r.learn(n)
		}
	}
}

// letBegin lets those jobs begin that got the slot of one whose failure has just ended the request, if upstream would
// have. There a goal that waits for a slot gets it in the second turn after, behind the goals of outputs: it does not
// when the failed derivation was itself asked for, but does when another one that needs it was.
func (r *request) letBegin() {
	const turns = 2
	if !r.sess.Settings.KeepGoing && r.wave <= r.failure+turns {
		return // with keep-going no failure ends a request: whatever began is told of
	}
	r.jobs.release(r.holds)
	r.holds = 0
	for sub := range r.subs {
		if !r.s.isRunning(sub.job) {
			continue
		}
		select {
		case <-sub.job.begun:
		case <-r.ctx.Done():
		case <-r.s.base.Done():
		}
	}
	// Those that have failed meanwhile, of which this request does not hear any more, hold the log, too.
	r.jobs.tell()
}

func compareGoals(a, b *goal) int { return strings.Compare(a.key, b.key) }

// workAll wakes the goals that can go on, in the order of their keys, until none can.
func (r *request) workAll() error {
	for len(r.awake) > 0 && r.open > 0 {
		wave := r.awake
		r.awake = nil
		r.wave++
		if len(wave) > 1 {
			slices.SortFunc(wave, compareGoals)
		}
		if err := r.flushRoots(); err != nil {
			return err
		}
		for i, g := range wave {
			if r.open == 0 {
				break
			}
			if i%64 == 63 && r.ctx.Err() != nil {
				return context.Cause(r.ctx)
			}
			g.awake = false
			g.step()
			if r.err != nil {
				return r.err
			}
		}
	}
	return r.err
}

func (r *request) flushRoots() error {
	if len(r.roots) == 0 {
		return nil
	}
	err := r.sess.Roots.Add(r.ctx, r.roots...)
	r.roots = r.roots[:0]
	return err
}

func (r *request) learn(n notice) {
	switch {
	case n.then != nil:
		n.then()
	case n.out != nil:
		delete(r.subs, n.sub)
		if n.held {
			r.holds++
			r.failure = r.wave
		}
		n.goal.jobDone(n.sub.job, n.out)
	case n.started:
		n.goal.setRunning(true)
	case n.stopped:
		n.goal.setRunning(false)
	}
}

// fail ends the request with an error.
func (r *request) fail(err error) {
	if r.err == nil {
		r.err = err
	}
}

// logFailure shows a failure to the client as an error.
func (r *request) logFailure(f *Failure) {
	r.log.Message(activity.Error, errorLog(f.Coloured()))
}

var errStuck = errors.New("build: goals wait for each other")
