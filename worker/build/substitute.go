package build

import (
	"context"

	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker/session"
)

// Substituter gets store paths from elsewhere. Its methods may use the network; they are called on goroutines of
// their own, several at once.
type Substituter interface {
	// Find asks who has a path: the first substituter in the order of preference behind the one that made the offer
	// after (nil: the first of all). Nil means that nobody else has it. A content address lets stores with another
	// store directory offer it. Offers without a signature that the session trusts are passed over with a warning.
	// An error is returned only when no substituter further on has the path.
	Find(ctx context.Context, sess *session.Session, p storepath.Path, ca storepath.ContentAddress, after *Offer) (*Offer, error)
	// FindQuickly is Find when the answer is at hand; known is false when it would have to be waited for. It may be called
	// from where nothing must take long.
	FindQuickly(ctx context.Context, sess *session.Session, p storepath.Path, ca storepath.ContentAddress, after *Offer) (offer *Offer, known bool, err error)
	// Look is Find for those who only want to know what could be had: signatures are not checked, and when the session
	// can do without (setting fallback) errors are only told to it.
	Look(ctx context.Context, sess *session.Session, p storepath.Path, ca storepath.ContentAddress) (*Offer, error)
	// Realisation asks what an output of a derivation became; nil when nobody knows, or nobody that the session trusts.
	// failed says that somebody could not be asked, which the session has been told.
	Realisation(ctx context.Context, sess *session.Session, id pathinfo.DrvOutput) (found *pathinfo.Realisation, failed bool, err error)
	// RealisationAtHand tells whether Realisation has nobody to wait for.
	RealisationAtHand(ctx context.Context, sess *session.Session, id pathinfo.DrvOutput) bool
	// Ahead gets what Fetch will read of an offer that says that it can be got ahead of its turn. It returns when Fetch
	// has it, or has begun without, or when the context ends. What goes wrong is for Fetch to tell.
	Ahead(ctx context.Context, sess *session.Session, o *Offer)
	// Fetch makes the path valid in the store, or replaces it when repair is set. Its references are valid.
	// ErrGone from it means that the offer was out of date.
	Fetch(ctx context.Context, sess *session.Session, o *Offer, repair bool) error
}

// Offer is one substituter's word that it has a path.
type Offer struct {
	// Info is the path's metadata, under the path that was asked for.
	Info *pathinfo.Info
	// DownloadSize is in bytes, 0 when unknown.
	DownloadSize uint64
	// Ahead says that what is small but far away can be got ahead of its turn.
	Ahead bool
	// Source is for the Substituter alone.
	Source any
}

// pathGoal is the goal for a store path that is not built here (libstore/build/substitution-goal.cc).
type pathGoal struct {
	*goal
	path   storepath.Path
	ca     storepath.ContentAddress
	repair bool
	offer  *Offer
	broken bool // some offer could not be fetched
	stage  fetchStage
	// letGo ends the getting of the present offer ahead of its turn; nil if that has not begun, or its turn has come.
	letGo context.CancelFunc
	// turned says that the turn of the present offer has come, or that it was given up.
	turned bool
}

// fetchStage is what a path's goal does itself, for whoever looks.
type fetchStage uint8

const (
	fetchIdle    fetchStage = iota // waits for references, or is at nothing
	fetchAsking                    // waits for substituters to say who has it
	fetchQueued                    // waits for its turn
	fetchRunning                   // gets it
)

func (r *request) path(p storepath.Path, ca storepath.ContentAddress, repair bool) *goal {
	key := pathKey(r.dir, p, repair)
	if g, ok := r.find(key); ok {
		return g
	}
	s := &pathGoal{path: p, ca: ca, repair: repair}
	s.goal = r.newGoal(key, s.begin)
	s.owner = s
	r.roots = append(r.roots, p)
	return s.goal
}

// pathKey is the key of a path's goal.
func pathKey(dir storepath.Dir, p storepath.Path, repair bool) string {
	key := "a$" + p.Name() + "$" + dir.Print(p)
	if repair {
		key += "$repair"
	}
	return key
}

func (p *pathGoal) begin() {
	r := p.r
	if !p.repair {
		valid, err := r.s.store.IsValid(r.ctx, p.path)
		if err != nil {
			r.fail(err)
			return
		}
		if valid {
			p.succeed(derivation.StatusAlreadyValid, nil)
			return
		}
	}
	if r.s.subst == nil || !r.sess.Settings.Substitute {
		p.giveUp()
		return
	}
	r.progress.toFetch++
	p.find()
}

// find looks for the next offer, away from the request's goroutine unless the answer is at hand. Then goals go on in
// upstream's order.
func (p *pathGoal) find() {
	r := p.r
	after := p.offer
	if offer, known, err := r.s.subst.FindQuickly(r.ctx, r.sess, p.path, p.ca, after); known {
		p.found(offer, err)
		return
	}
	p.step, p.stage = nil, fetchAsking
	r.fetching.finds++
	r.fetching.start(r, func(ctx context.Context) func() {
		offer, err := r.s.subst.Find(ctx, r.sess, p.path, p.ca, after)
		return func() {
			r.fetching.finds--
			p.found(offer, err)
		}
	})
}

func (p *pathGoal) found(offer *Offer, err error) {
	r := p.r
	p.stage = fetchIdle
	switch {
	case err != nil && !r.sess.Settings.Fallback:
		r.fail(err)
		return
	case err != nil:
		r.logError(err)
	}
	if offer == nil {
		r.progress.toFetch--
		if p.broken {
			r.progress.fetchesFailed++
		}
		p.giveUp()
		return
	}
	p.offer, p.turned = offer, false
	r.progress.downloadExpected += offer.DownloadSize
	r.progress.narExpected += offer.Info.NarSize
	var refs []*goal
	for _, ref := range offer.Info.References {
		if ref != p.path {
			refs = append(refs, r.path(ref, storepath.ContentAddress{}, false))
		}
	}
	p.goAhead(len(refs) == 0)
	p.await(refs, p.haveReferences)
}

func (p *pathGoal) haveReferences() {
	r := p.r
	if p.nrFailed > 0 {
		p.withdraw()
		r.progress.toFetch--
		e := exitFailed
		if p.nrNoSubst > 0 {
			e = exitNoSubstituters
		}
		p.goal.fail(e, failuref(derivation.StatusDependencyFailed, "some references of path '%s' could not be realised", r.dir.Print(p.path)))
		return
	}
	p.step, p.stage = nil, fetchQueued
	r.fetching.queue = append(r.fetching.queue, p)
	p.goAhead(true)
	r.startFetches()
}

// withdraw takes the present offer's sizes out of what is expected.
func (p *pathGoal) withdraw() {
	p.turn()
	if p.letGo != nil {
		p.letGo()
		p.letGo = nil
	}
	p.r.progress.downloadExpected -= p.offer.DownloadSize
	p.r.progress.narExpected -= p.offer.Info.NarSize
}

// startFetches starts what the client's max-substitution-jobs (at least one) allows.
func (r *request) startFetches() {
	f := &r.fetching
	most := max(1, r.sess.Settings.MaxSubstitutionJobs)
	for len(f.queue) > 0 && r.progress.fetching < uint64(most) {
		p := f.queue[0]
		f.queue = f.queue[1:]
		r.progress.fetching++
		p.turn()
		offer := p.offer
		p.stage = fetchRunning
		f.start(r, func(ctx context.Context) func() {
			err := r.s.subst.Fetch(ctx, r.sess, offer, p.repair)
			return func() { p.fetched(err) }
		})
	}
}

func (p *pathGoal) fetched(err error) {
	r := p.r
	r.progress.fetching--
	p.stage = fetchIdle
	p.withdraw()
	defer r.startFetches()
	switch {
	case err == nil:
		p.succeeded()
	case isGone(err):
		// Archives that were collected are nothing to worry about.
		r.log.Message(activity.Warn, warningPrefix+Coloured(err))
		p.find()
	default:
		r.logError(err)
		p.broken = true
		p.find()
	}
}

func (p *pathGoal) succeeded() {
	r := p.r
	r.markGood(map[string]storepath.Path{"": p.path})
	r.log.Message(activity.Chatty, "substitution of path '"+r.dir.Print(p.path)+"' succeeded")
	r.progress.toFetch--
	r.progress.fetched++
	r.progress.downloadDone += p.offer.DownloadSize
	r.progress.narDone += p.offer.Info.NarSize
	p.succeed(derivation.StatusSubstituted, nil)
}

func (p *pathGoal) giveUp() {
	e := exitNoSubstituters
	if p.broken {
		e = exitFailed
	}
	p.goal.fail(e, failuref(derivation.StatusNoSubstituters,
		"path '%s' is required, but there is no substituter that can build it", p.r.dir.Print(p.path)))
}
