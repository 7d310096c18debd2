package build

import (
	"slices"

	"nixdaemon/protocol/storepath"
)

// A builder that has a derivation built holds a slot while it waits for that. With max-jobs = 1 nothing would ever go on
// if the build within needed a slot of its own, and as little when every slot is held by such a builder. Giving the slot
// back meanwhile would cure that, but then the outer build, whose time is limited, would have to wait for strangers
// before it goes on. So a builder lends its slot: one of the builds that it waits for runs in it at a time, beginning at
// once, however deep builders ask within each other; others of them may have what slots are free, as anybody. The slot
// never leaves the builder's reach, thus a chain of lenders always ends in a build that runs, and that waits for no slot.
// What a builder does beside waiting goes on, as upstream, where builds within builds are not counted at all.

// lendLocked lends the slot of a builder, if it has one and that is not lent, to the first of the builds that it waits
// for and that have not begun.
func (s *Scheduler) lendLocked(outer *job) {
	if outer == nil || outer.lentTo != nil || outer.state != jobRunning {
		return
	}
	for _, sub := range outer.wants {
		if j := sub.job; j.waitsForSlot() {
			outer.lentTo, j.lender = j, outer
			s.startLocked(j)
			return
		}
	}
}

// freeSlotLocked takes a job's slot away from it. What it had lent goes to who runs there: others may want that build. A
// slot that it was lent goes back.
func (s *Scheduler) freeSlotLocked(j *job) {
	lender, user := j.lender, j.lentTo
	j.lender, j.lentTo = nil, nil
	switch {
	case user != nil:
		user.lender, user.charged = lender, j.charged
		j.charged = nil
		if lender != nil {
			lender.lentTo = user
		}
	case lender != nil:
		lender.lentTo = nil
		s.lendLocked(lender)
	case j.charged != nil:
		s.slots.done(j)
	}
}

// forget ends what a builder waits for. It is called with the scheduler's mutex held.
func (sub *subscription) forget() {
	outer := sub.req.outer
	if outer == nil {
		return
	}
	if i := slices.Index(outer.wants, sub); i >= 0 {
		outer.wants = slices.Delete(outer.wants, i, i+1)
	}
}

// isFor tells whether a job builds a derivation, or is wanted by a builder of it, however far out: to wait for that one
// would be to wait for oneself. It is called with the scheduler's mutex held.
func (j *job) isFor(drv storepath.Path, seen map[*job]struct{}) bool {
	if j.drvPath == drv {
		return true
	}
	if _, again := seen[j]; again {
		return false
	}
	seen[j] = struct{}{}
	for _, sub := range j.subs {
		if outer := sub.req.outer; outer != nil && outer.isFor(drv, seen) {
			return true
		}
	}
	return false
}
