package substitute

import (
	"context"
	"io"
	"sync"
	"time"

	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/narinfo"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
)

// restAfter is how long a store that nobody uses is held: as long as an idle connection to a machine for builds.
const restAfter = time.Minute

// holder is a source that holds what others may want back: connections, with processes at their other end, or the files
// of a database. To upstream such a store belongs to one client, and ends with it; here everybody shares it.
type holder interface {
	Source
	// Holds tells whether closing it gives anything back.
	Holds() bool
	// Known and KnowsRealisation answer what needs nobody to be asked.
	Known(ctx context.Context, a Asker, p storepath.Path) (*narinfo.NarInfo, bool)
	KnowsRealisation(ctx context.Context, a Asker, id pathinfo.DrvOutput) bool
}

// resting is a holder that is closed while nobody uses it, and opened again for whoever does.
type resting struct {
	reopen func(ctx context.Context, a Asker) (Source, error)
	after  time.Duration

	uri                    string
	dir                    storepath.Dir
	priority               int
	wantMassQuery, trusted bool

	turn chan struct{} // holds one token while the rest is looked at

	source  holder // nil while it rests
	users   int
	timer   *time.Timer
	retired bool // it rests whenever nobody uses it
	closed  bool
}

var _ holder = (*resting)(nil)

func newResting(source holder, after time.Duration, reopen func(context.Context, Asker) (Source, error)) *resting {
	r := &resting{
		reopen: reopen, after: after, turn: make(chan struct{}, 1), source: source,
		uri: source.URI(), dir: source.Dir(), priority: source.Priority(), wantMassQuery: source.WantMassQuery(), trusted: source.Trusted(),
	}
	r.timer = time.AfterFunc(after, r.rest)
	return r
}

// use gives the store, open, until release is called.
func (r *resting) use(ctx context.Context, a Asker) (source holder, release func(), err error) {
	select {
	case r.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, nil, context.Cause(ctx)
	}
	defer func() { <-r.turn }()
	if r.source == nil {
		// Whoever opened it first was warned of its parameters.
		again, err := r.reopen(ctx, Asker{Settings: a.Settings, Log: activity.Discard{}})
		if err != nil {
			return nil, nil, err
		}
		r.source = again.(holder) // it was one before
	}
	r.users++
	r.timer.Stop()
	return r.source, sync.OnceFunc(r.release), nil
}

func (r *resting) release() {
	r.turn <- struct{}{}
	defer func() { <-r.turn }()
	r.users--
	switch {
	case r.users > 0 || r.closed:
	case r.retired:
		r.closeSource()
	default:
		r.timer.Reset(r.after)
	}
}

// rest closes the store if nobody uses it.
func (r *resting) rest() {
	r.turn <- struct{}{}
	defer func() { <-r.turn }()
	if r.users == 0 {
		r.closeSource()
	}
}

// retire is rest, from now on whenever the last user leaves.
func (r *resting) retire() {
	r.turn <- struct{}{}
	r.retired = true
	<-r.turn
	r.rest()
}

// closeSource closes the store if it is open. Where the error has nobody to go to nothing is lost: it was only read from.
func (r *resting) closeSource() error {
	if r.source == nil {
		return nil
	}
	err := r.source.Close()
	r.source = nil
	return err
}

// Close closes the store for good.
func (r *resting) Close() error {
	r.turn <- struct{}{}
	defer func() { <-r.turn }()
	r.closed = true
	r.timer.Stop()
	return r.closeSource()
}

// Holds implements holder.
func (r *resting) Holds() bool { return true }

// URI names the store in messages.
func (r *resting) URI() string { return r.uri }

// Dir is the store's directory.
func (r *resting) Dir() storepath.Dir { return r.dir }

// Priority is the store's.
func (r *resting) Priority() int { return r.priority }

// WantMassQuery is the store's.
func (r *resting) WantMassQuery() bool { return r.wantMassQuery }

// Trusted is the store's.
func (r *resting) Trusted() bool { return r.trusted }

// PathInfo asks the store.
func (r *resting) PathInfo(ctx context.Context, a Asker, p storepath.Path) (*narinfo.NarInfo, error) {
	s, release, err := r.use(ctx, a)
	if err != nil {
		return nil, err
	}
	defer release()
	return s.PathInfo(ctx, a, p)
}

// Known asks the store.
func (r *resting) Known(ctx context.Context, a Asker, p storepath.Path) (*narinfo.NarInfo, bool) {
	s, release, err := r.use(ctx, a)
	if err != nil {
		return nil, false
	}
	defer release()
	return s.Known(ctx, a, p)
}

// Realisation asks the store.
func (r *resting) Realisation(ctx context.Context, a Asker, id pathinfo.DrvOutput) (*pathinfo.Realisation, error) {
	s, release, err := r.use(ctx, a)
	if err != nil {
		return nil, err
	}
	defer release()
	return s.Realisation(ctx, a, id)
}

// KnowsRealisation asks the store.
func (r *resting) KnowsRealisation(ctx context.Context, a Asker, id pathinfo.DrvOutput) bool {
	s, release, err := r.use(ctx, a)
	if err != nil {
		return false
	}
	defer release()
	return s.KnowsRealisation(ctx, a, id)
}

// OpenNAR asks the store, which is in use until the archive is closed.
func (r *resting) OpenNAR(ctx context.Context, a Asker, info *narinfo.NarInfo) (io.ReadCloser, error) {
	s, release, err := r.use(ctx, a)
	if err != nil {
		return nil, err
	}
	body, err := s.OpenNAR(ctx, a, info)
	if err != nil {
		release()
		return nil, err
	}
	return &lent{body, release}, nil
}

// lent is an archive of a store that is in use as long.
type lent struct {
	io.ReadCloser
	release func()
}

// Close ends both.
func (l *lent) Close() error {
	defer l.release()
	return l.ReadCloser.Close()
}
