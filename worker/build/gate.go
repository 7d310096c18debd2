package build

import (
	"context"
	"slices"
	"time"

	"nixdaemon/protocol/derivation"
)

// Jobs that may be built by other machines ask for one before they ask for a slot. Those that need the same of a machine
// ask one after the other, as at a gate: while the first is told to wait, so would be the others, who need not ask then.
// That makes the questions as few as the answers, and the jobs that wait need no goroutine. The users at a gate take
// turns, who has the fewest builds elsewhere first.

// mostElsewhere bounds how many builds other machines have at once; each costs this one a connection and a few
// goroutines, or a hook's processes.
const mostElsewhere = 256

// gateKey says what the jobs at a gate need.
type gateKey struct {
	machines string
	system   string
	features string
}

type gate struct {
	asking *job
	queue  []*job // those that are no longer in the state jobAsking are skipped
}

// remotes is the part of a [Scheduler] about other machines, guarded by its mutex.
type remotes struct {
	gates map[gateKey]*gate
	// running counts the builds elsewhere, byUser those of each user.
	running int
	byUser  map[string]int
}

// lineUpLocked puts a job at its gate; ahead is for one that has been there before.
func (s *Scheduler) lineUpLocked(j *job, ahead bool) {
	j.setState(jobAsking)
	g := s.remotes.gates[j.gate]
	if g == nil {
		g = &gate{}
		s.remotes.gates[j.gate] = g
	}
	if ahead {
		g.queue = slices.Insert(g.queue, 0, j)
	} else {
		g.queue = append(g.queue, j)
	}
	s.admitLocked(j.gate)
}

// admitLocked lets the next job ask, if none does.
func (s *Scheduler) admitLocked(key gateKey) {
	g := s.remotes.gates[key]
	if g == nil || g.asking != nil || s.remotes.running >= mostElsewhere {
		return
	}
	j := g.next(s.remotes.byUser)
	if j == nil {
		delete(s.remotes.gates, key)
		return
	}
	g.asking = j
	j.setWaiting(jobWaiting, "machine")
	if j.resume != nil {
		close(j.resume)
		j.resume = nil
		return
	}
	s.work.Go(func() { s.perform(j) })
}

// next takes the job whose turn it is out of the queue.
func (g *gate) next(byUser map[string]int) *job {
	g.queue = slices.DeleteFunc(g.queue, func(j *job) bool { return j.state != jobAsking || len(j.subs) == 0 })
	best := -1
	for i, j := range g.queue {
		n := byUser[j.user()]
		if n == 0 {
			best = i
			break
		}
		if best < 0 || n < byUser[g.queue[best].user()] {
			best = i
		}
	}
	if best < 0 {
		return nil
	}
	j := g.queue[best]
	g.queue = slices.Delete(g.queue, best, best+1)
	return j
}

// user is whose turn a job at a gate is: that of who has wanted it first.
func (j *job) user() string {
	if len(j.subs) == 0 {
		return ""
	}
	return j.subs[0].slot.user.name
}

// leaveGate lets the next job ask.
func (s *Scheduler) leaveGate(j *job) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leaveGateLocked(j)
}

func (s *Scheduler) leaveGateLocked(j *job) {
	if g := s.remotes.gates[j.gate]; g != nil && g.asking == j {
		g.asking = nil
		s.admitLocked(j.gate)
	}
}

// standAtGate waits until it is the job's turn to ask, if it has not that already.
func (s *Scheduler) standAtGate(j *job) error {
	s.mu.Lock()
	if g := s.remotes.gates[j.gate]; g != nil && g.asking == j {
		s.mu.Unlock()
		return nil
	}
	resume := make(chan struct{})
	j.resume = resume
	s.lineUpLocked(j, true)
	s.mu.Unlock()
	return s.awaitTurn(j, resume, jobAsking, "machine")
}

// awaitTurn waits for what a job has lined up for in this state. When nobody wants the job any more it says what that waited for.
func (s *Scheduler) awaitTurn(j *job, resume <-chan struct{}, lined jobState, reason string) error {
	select {
	case <-resume:
		return nil
	case <-j.ctx.Done():
		s.mu.Lock()
		defer s.mu.Unlock()
		j.resume = nil
		if j.state == lined {
			j.setWaiting(jobWaiting, reason)
		}
		return context.Cause(j.ctx)
	}
}

// tryTakeSlot gives a job a slot if it has one or one is free that nobody waits for.
func (s *Scheduler) tryTakeSlot(j *job) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if j.charged != nil || j.lender != nil {
		return true
	}
	for _, sub := range j.subs {
		if s.slots.takeNow(sub.slot, j) {
			return true
		}
	}
	return false
}

// startsHere notes that a job goes on here, in the slot that it has.
func (s *Scheduler) startsHere(j *job) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leaveGateLocked(j)
	s.runsLocked(j)
}

func (s *Scheduler) runsLocked(j *job) {
	j.setState(jobRunning)
	for _, sub := range j.subs {
		sub.req.inbox.post(notice{goal: sub.goal, started: true})
	}
}

// startsElsewhere notes that another machine builds a job. The returned function notes that it does not any more.
func (s *Scheduler) startsElsewhere(j *job) (ends func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	user := j.user()
	s.freeSlotLocked(j)
	s.remotes.running++
	s.remotes.byUser[user]++
	s.leaveGateLocked(j)
	s.runsLocked(j)
	s.dispatchLocked()
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		full := s.remotes.running >= mostElsewhere
		s.remotes.running--
		if s.remotes.byUser[user]--; s.remotes.byUser[user] == 0 {
			delete(s.remotes.byUser, user)
		}
		if full {
			for key := range s.remotes.gates {
				s.admitLocked(key)
			}
		}
	}
}

// awaitMachine waits before a job that was told to wait asks again: for a machine, for so long at most and, if local is
// set, for a slot here.
func (s *Scheduler) awaitMachine(j *job, changed <-chan struct{}, poll time.Duration, local bool) error {
	var resume chan struct{}
	if local {
		resume = s.queueForSlot(j)
	}
	timer := time.NewTimer(poll)
	defer timer.Stop()
	var err error
	select {
	case <-changed:
	case <-resume:
		return nil
	case <-timer.C:
	case <-j.ctx.Done():
		err = context.Cause(j.ctx)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if local && j.resume == resume {
		j.resume = nil
		j.setWaiting(jobWaiting, "machine")
	}
	return err
}

// queueForSlot has the channel closed when the job gets a slot.
func (s *Scheduler) queueForSlot(j *job) chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	resume := make(chan struct{})
	j.resume = resume
	j.setState(jobQueued)
	for _, sub := range j.subs {
		if !slices.Contains(sub.slot.queue, j) {
			sub.slot.queue = slices.Insert(sub.slot.queue, 0, j)
		}
	}
	s.dispatchLocked()
	for _, sub := range j.subs {
		s.lendLocked(sub.req.outer)
	}
	return resume
}

// queueAgainLocked puts a job that ran without a slot into the queue for one; false if nobody wants it any more.
func (s *Scheduler) queueAgainLocked(j *job) bool {
	if len(j.subs) == 0 {
		return false
	}
	s.leaveGateLocked(j)
	j.setState(jobQueued)
	for _, sub := range j.subs {
		sub.slot.push(j)
	}
	s.dispatchLocked()
	for _, sub := range j.subs {
		s.lendLocked(sub.req.outer)
	}
	return true
}

// machinesFor are the other machines that may build a derivation; nil if it is to be built here
// (libstore/build/derivation-building-goal.cc, tryToBuild): repairs and checks are about this machine's store, and a hook reads the
// derivation from there.
func (d *drvGoal) machinesFor(options *derivation.Options, local bool) (Machines, error) {
	r := d.r
	if r.s.remote == nil || d.mode != derivation.BuildNormal || local && options.PreferLocalBuild {
		return nil, nil
	}
	if valid, err := r.s.store.IsValid(r.ctx, d.drvPath); err != nil || !valid {
		return nil, err
	}
	if !r.sought {
		r.sought = true
		r.machines = r.s.remote.Machines(r.sess.Settings)
	}
	return r.machines, nil
}
