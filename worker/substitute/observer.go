package substitute

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"nixdaemon/protocol/storepath"
	"nixdaemon/worker/session"
)

// Observer is told of paths that are fetched, for status, metrics and logs. [Substituter.Fetching] tells how far they are.
//
// The methods may be called from any goroutine, for each fetch FetchBegan and then FetchEnded. No lock is held meanwhile,
// but whoever waits for the path waits for them, too: they return at once.
type Observer interface {
	FetchBegan(f Fetch)
	FetchEnded(f Fetch, e FetchEnd)
}

// Fetch is a path on its way.
type Fetch struct {
	// ID tells the fetches of one [Substituter] apart; it is never 0.
	ID   uint64
	Path storepath.Path
	// Cache is the URI of the store that it comes from, without parameters and passwords.
	Cache string
	// NarSize is how many bytes the archive has, DownloadSize how many are transferred; 0 if unknown.
	NarSize, DownloadSize uint64
	// User and Client are who wanted it first; others may wait for it, too.
	User   string
	Client uint64
	// Began is when the fetch began.
	Began time.Time
}

// FetchEnd is how a fetch ended.
type FetchEnd struct {
	// Done is how many bytes of the archive had arrived.
	Done uint64
	// Ended is when that was.
	Ended time.Time
	// Err is why the path could not be had; nil if it is valid now.
	Err error
}

// FetchStatus is how far a fetch is.
type FetchStatus struct {
	Fetch
	// Done is how many bytes of the archive have arrived.
	Done uint64
}

// progress holds what is being fetched.
type progress struct {
	mu   sync.Mutex
	last uint64
	live map[uint64]*fetching
}

// fetching is a fetch under way. A nil one counts nothing.
type fetching struct {
	Fetch
	done atomic.Uint64
}

func (f *fetching) add(n uint64) {
	if f != nil {
		f.done.Add(n)
	}
}

// Fetching lists what is being fetched at the moment, the oldest first.
func (s *Substituter) Fetching() []FetchStatus {
	p := &s.progress
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make([]FetchStatus, 0, len(p.live))
	for _, f := range p.live {
		all = append(all, FetchStatus{Fetch: f.Fetch, Done: f.done.Load()})
	}
	slices.SortFunc(all, func(a, b FetchStatus) int { return int(int64(a.ID) - int64(b.ID)) })
	return all
}

// errPanicked is how a fetch has ended that did not return.
var errPanicked = errors.New("substitute: internal error")

// observed does a fetch while whoever wants to know can see it.
func (s *Substituter) observed(ctx context.Context, sess *session.Session, o *Offer, do func(ctx context.Context, f *fetching) error) error {
	f := &fetching{Fetch: Fetch{
		Path: o.Info.Path, Cache: o.source.URI(), NarSize: o.Info.NarSize, DownloadSize: o.DownloadSize,
		User: sess.User, Client: sess.Client, Began: time.Now(),
	}}
	p := &s.progress
	p.mu.Lock()
	p.last++
	f.ID = p.last
	if p.live == nil {
		p.live = make(map[uint64]*fetching)
	}
	p.live[f.ID] = f
	p.mu.Unlock()
	if s.o.Observer != nil {
		s.o.Observer.FetchBegan(f.Fetch)
	}
	err := errPanicked
	defer func() {
		p.mu.Lock()
		delete(p.live, f.ID)
		p.mu.Unlock()
		if s.o.Observer != nil {
			s.o.Observer.FetchEnded(f.Fetch, FetchEnd{Done: f.done.Load(), Ended: time.Now(), Err: err})
		}
	}()
	err = do(ctx, f)
	return err
}
