package build

import (
	"context"
	"errors"
	"slices"

	"nixdaemon/protocol/derivation"
)

var (
	// ErrNoBuild is returned when there is no such build, or none any more.
	ErrNoBuild = errors.New("no such build")
	// ErrNotYours is returned when a user asks something of a build that only others want.
	ErrNotYours = errors.New("that build belongs to others")
)

// Cancel ends a build for all who wait for it, or with mine set only for the user by: others who want it go on waiting, and
// without any the builder dies. Whoever waited is told that by has cancelled it. The error is ErrNoBuild or ErrNotYours.
func (s *Scheduler) Cancel(id BuildID, by string, mine bool) error {
	s.mu.Lock()
	j := s.findLocked(id)
	if j == nil {
		s.mu.Unlock()
		return ErrNoBuild
	}
	subs := slices.DeleteFunc(slices.Clone(j.subs), func(sub *subscription) bool { return mine && sub.req.sess.User != by })
	if len(subs) == 0 {
		s.mu.Unlock()
		return ErrNotYours
	}
	f := &Failure{Status: derivation.StatusMiscFailure,
		Msg: textf("build of '%s' was cancelled by user '%s'", s.store.Dir().Print(j.drvPath), by)}
	if len(subs) == len(j.subs) && !j.isIdle() {
		// Its goroutine tells everybody once the builder is dead.
		j.cancelled = f
		s.abandonLocked(j)
		s.mu.Unlock()
		return nil
	}
	for _, sub := range subs {
		s.dropLocked(sub)
		sub.req.jobs.hold()
	}
	clients := clientsOf(subs)
	if len(j.subs) == 0 {
		j.cancelled = f
		s.abandonedLocked(j, clients)
	}
	s.mu.Unlock()
	for _, sub := range subs {
		j.feed.leave(sub.req.jobs)
		sub.req.inbox.post(notice{goal: sub.goal, sub: sub, out: &outcome{failure: f}, held: true})
	}
	return nil
}

// findLocked finds a build that is wanted.
func (s *Scheduler) findLocked(id BuildID) *job {
	for _, j := range s.jobs {
		if j.id == id {
			return j
		}
	}
	return nil
}

// isIdle tells whether a job waits without a goroutine of its own.
func (j *job) isIdle() bool { return (j.state == jobQueued || j.state == jobAsking) && j.resume == nil }

// dropLocked ends a subscription.
func (s *Scheduler) dropLocked(sub *subscription) {
	j := sub.job
	j.subs = slices.DeleteFunc(j.subs, func(other *subscription) bool { return other == sub })
	sub.forget()
	s.slots.release(sub.slot)
}

// abandonedLocked is abandonLocked with those who hear of it.
func (s *Scheduler) abandonedLocked(j *job, clients []ClientID) {
	if s.jobs[j.key] == j {
		delete(s.jobs, j.key)
	}
	if j.isIdle() {
		j.setState(jobDone)
		j.releaseMachines()
		out := outcome{err: context.Canceled}
		if j.cancelled != nil {
			out = outcome{failure: j.cancelled}
		}
		j.endedLocked(&out, clients)
		j.transcript.end()
	}
	j.cancel()
}
