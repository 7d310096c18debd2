package build

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker/settings"
)

// ErrClosed is returned by requests after [Scheduler.Close].
var ErrClosed = errors.New("scheduler is closed")

// Scheduler builds for all connections. Its methods may be called from any goroutine.
type Scheduler struct {
	store    Store
	subst    Substituter // may be nil
	remote   Remote      // may be nil
	memo     *derivation.Memo
	features settings.FeatureSet // the daemon's own

	systemFeatures []string // the store's; nil means each client's
	ids            *activity.IDs
	log            zerolog.Logger
	run            func(*Scheduler, *job) outcome
	ended          func() error // called when the last job has ended, if not nil
	away           bool         // nothing is built

	// base is the parent of the jobs' contexts; it outlives the request that happened to start a job.
	base   context.Context
	cancel context.CancelFunc
	work   sync.WaitGroup // jobs that run, and requests

	observer Observer // may be nil
	spool    *spool   // where long logs are kept that are read along; nil for no such thing

	mu     sync.Mutex
	closed bool
	jobs   map[jobKey]*job
	lastID *atomic.Uint64
	// requests are those that clients wait for.
	requests map[*request]struct{}
	slots    slots

	remotes remotes
}

func newScheduler(store Store, subst Substituter, ids *activity.IDs, log zerolog.Logger, total int, run func(*Scheduler, *job) outcome) *Scheduler {
	base, cancel := context.WithCancel(context.Background())
	return &Scheduler{
		store: store, subst: subst, ids: ids, log: log, run: run, memo: derivation.NewMemo(memoSize),
		base: base, cancel: cancel,
		jobs:     make(map[jobKey]*job),
		requests: make(map[*request]struct{}),
		slots:    slots{total: total}, lastID: new(atomic.Uint64),

		remotes: remotes{gates: make(map[gateKey]*gate), byUser: make(map[string]int)},
	}
}

// Close refuses new requests, waits until those there are have ended, or until ctx has: then everything that still
// runs is killed, and waited for.
func (s *Scheduler) Close(ctx context.Context) error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	stop := context.AfterFunc(ctx, s.cancel)
	defer stop()
	s.work.Wait()
	s.cancel()
	if s.ended != nil {
		return s.ended()
	}
	return nil
}

// enter counts a request in.
func (s *Scheduler) enter() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	s.work.Add(1)
	return nil
}

// subscribe makes the request wait for the job with the key of template, which becomes that job if there is none. It is
// nil when that job waits for the request itself.
func (s *Scheduler) subscribe(r *request, g *drvGoal, template *job) *subscription {
	s.mu.Lock()
	if r.outer != nil && r.outer.isFor(template.drvPath, make(map[*job]struct{})) {
		s.mu.Unlock()
		return nil
	}
	j := s.jobs[template.key]
	begins := j == nil
	if begins {
		j = template
		j.ctx, j.cancel = context.WithCancel(s.base)
		j.begun = make(chan struct{})
		j.hasBegun = sync.OnceFunc(func() { close(j.begun) })
		s.introduceLocked(j, ClientID{r.sess.User, r.sess.Client})
		j.setState(jobQueued)
		s.jobs[j.key] = j
		if j.machines != nil {
			j.machines.Retain()
		}
		// Before the job can begin: it may have ended by the time that this goroutine goes on.
		j.feed.join(r.jobs, r.log)
	}
	slot := s.slots.client(r.sess.User, r.sess.Client, clampInt(r.sess.Settings.MaxJobs))
	sub := &subscription{job: j, req: r, goal: g, slot: slot}
	j.subs = append(j.subs, sub)
	if r.outer != nil {
		r.outer.wants = append(r.outer.wants, sub)
	}
	if begins && j.machines != nil {
		s.lineUpLocked(j, false)
	} else if j.state == jobQueued {
		slot.push(j)
		s.dispatchLocked()
		s.lendLocked(r.outer)
	} else if j.state == jobRunning {
		r.inbox.post(notice{goal: g, started: true})
	}
	s.mu.Unlock()
	if !begins {
		j.feed.join(r.jobs, r.log)
	}
	return sub
}

// introduceLocked makes a new job known.
func (s *Scheduler) introduceLocked(j *job, client ClientID) {
	j.id, j.observer, j.transcript = BuildID(s.lastID.Add(1)), s.observer, s.spooled()
	j.queued = QueuedBuild{ID: j.id, Drv: j.drvPath, Mode: j.mode, For: client, Time: time.Now()}
	if j.observer != nil {
		j.feed.latest.phases = func(phase string) { j.observer.BuildPhase(j.id, phase) }
		j.observer.BuildQueued(j.queued)
	}
}

// unsubscribe ends a request's interest. A job that nobody else wants ends.
func (s *Scheduler) unsubscribe(sub *subscription) {
	j := sub.job
	s.mu.Lock()
	i := slices.Index(j.subs, sub)
	if i >= 0 {
		j.subs = slices.Delete(j.subs, i, i+1)
		sub.forget()
		s.slots.release(sub.slot)
		if len(j.subs) == 0 {
			s.abandonLocked(j)
		}
	}
	s.mu.Unlock()
	if i >= 0 {
		j.feed.leave(sub.req.jobs)
	}
}

func (s *Scheduler) abandonLocked(j *job) { s.abandonedLocked(j, nil) }

// dispatchLocked hands out the slots that are free.
func (s *Scheduler) dispatchLocked() {
	for j := s.slots.next(); j != nil; j = s.slots.next() {
		s.startLocked(j)
	}
}

// startLocked has a job that was given a slot begin, or go on.
func (s *Scheduler) startLocked(j *job) {
	s.runsLocked(j)
	if j.resume != nil {
		close(j.resume)
		j.resume = nil
		return
	}
	s.work.Go(func() { s.perform(j) })
}

func (s *Scheduler) perform(j *job) {
	out := s.guarded(j)
	s.mu.Lock()
	if out.again {
		if j.cancelled == nil && s.queueAgainLocked(j) {
			s.mu.Unlock()
			return
		}
		out = outcome{err: context.Cause(j.ctx)}
	}
	if j.cancelled != nil {
		out = outcome{failure: j.cancelled}
	}
	j.setState(jobDone)
	s.leaveGateLocked(j)
	j.releaseMachines()
	if s.jobs[j.key] == j {
		delete(s.jobs, j.key)
	}
	subs := j.subs
	j.subs = nil
	for _, sub := range subs {
		sub.forget()
		s.slots.release(sub.slot)
	}
	s.freeSlotLocked(j)
	j.endedLocked(&out, clientsOf(subs))
	failed := out.failure != nil || out.err != nil
	if failed {
		for _, sub := range subs {
			sub.req.jobs.hold()
		}
	}
	s.dispatchLocked()
	s.mu.Unlock()
	j.hasBegun()
	j.cancel()
	j.transcript.end()
	// Everything has stopped before anybody hears of the end.
	j.feed.close()
	for _, sub := range subs {
		sub.req.inbox.post(notice{goal: sub.goal, sub: sub, out: &out, held: failed})
	}
}

func (s *Scheduler) isRunning(j *job) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return j.state == jobRunning
}

// guarded turns a panic into an error of those who wait for the job.
func (s *Scheduler) guarded(j *job) (out outcome) {
	defer func() {
		if p := recover(); p != nil {
			s.log.Error().Str("derivation", j.drvPath.Base()).Interface("panic", p).Bytes("stack", debug.Stack()).Msg("panic in a build")
			out = outcome{err: fmt.Errorf("build '%s': internal error", s.store.Dir().Print(j.drvPath))}
		}
	}()
	return s.run(s, j)
}

// giveSlotBack lets others build while the job waits for something that may take long.
func (s *Scheduler) giveSlotBack(j *job, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.freeSlotLocked(j)
	j.setWaiting(jobWaiting, reason)
	for _, sub := range j.subs {
		sub.req.inbox.post(notice{goal: sub.goal, stopped: true})
	}
	s.dispatchLocked()
}

// takeSlot waits for a slot again after giveSlotBack, ahead of what its clients have queued since.
func (s *Scheduler) takeSlot(j *job) error {
	return s.awaitTurn(j, s.queueForSlot(j), jobQueued, "slot")
}

// addRoot protects a path that nobody could know of before the build, for all who wait for it. Who comes later looks
// at the outputs again.
func (s *Scheduler) addRoot(ctx context.Context, j *job, p storepath.Path) error {
	s.mu.Lock()
	subs := slices.Clone(j.subs)
	s.mu.Unlock()
	for _, sub := range subs {
		if err := sub.req.sess.Roots.Add(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

// releaseMachines lets go of the machines that may build the job. It may be called with the scheduler's mutex held.
func (j *job) releaseMachines() {
	if j.machines != nil {
		j.machines.Release()
	}
}

func clampInt(n uint) int {
	const most = 1 << 20
	return int(min(n, most))
}
