package build

import "context"

// aheadPerJob is for how many paths in a row for each of max-substitution-jobs their contents are got ahead of their
// turn. A client that wants one at a time gets that.
const aheadPerJob = 8

// maxAhead bounds max-substitution-jobs where it is multiplied.
const maxAhead = 1 << 10

// goAhead lets the present offer be got ahead of its turn, if that is any use. Ready is who needs nothing else first.
func (p *pathGoal) goAhead(ready bool) {
	f := &p.r.fetching
	switch {
	case !p.offer.Ahead || p.repair || p.letGo != nil:
	case ready:
		f.ready = append(f.ready, p)
		p.r.getAhead(f.nextReady)
	default:
		f.found = append(f.found, p)
	}
}

// getAhead begins to get what next gives and will be fetched when there is a turn for it.
func (r *request) getAhead(next func() *pathGoal) {
	f := &r.fetching
	if len(f.ready) == 0 && len(f.found) == 0 {
		return // as in most rounds of most requests
	}
	most := aheadPerJob * (int(min(r.sess.Settings.MaxSubstitutionJobs, maxAhead)) - 1)
	for f.ahead < most {
		p := next()
		if p == nil {
			return
		}
		f.ahead++
		ctx, letGo := context.WithCancel(f.context(r))
		p.letGo = letGo
		offer := p.offer
		f.work.Go(func() { r.s.subst.Ahead(ctx, r.sess, offer) })
	}
}

// nextReady gives a path that only waits for its turn and that nobody gets yet, nil if there is none.
func (f *fetching) nextReady() *pathGoal {
	for len(f.ready) > 0 {
		p := f.ready[0]
		f.ready = f.ready[1:]
		if p.canGoAhead() {
			return p
		}
	}
	return nil
}

// nextFound gives a path that waits for others, nil if it is not known yet which are to be fetched. Who was found last
// is needed by those who were found before.
func (f *fetching) nextFound() *pathGoal {
	for len(f.found) > 0 && f.finds == 0 {
		p := f.found[len(f.found)-1]
		f.found = f.found[:len(f.found)-1]
		if p.canGoAhead() {
			return p
		}
	}
	return nil
}

func (p *pathGoal) canGoAhead() bool { return !p.turned && p.letGo == nil && p.exit == exitBusy }

// turn notes that the present offer waits for its turn no more.
func (p *pathGoal) turn() {
	if !p.turned && p.letGo != nil {
		p.r.fetching.ahead--
	}
	p.turned = true
}
