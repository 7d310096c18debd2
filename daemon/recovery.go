package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"nixdaemon/protocol/storepath"
	"nixdaemon/worker"
)

// recovery is how far the verification is of what was registered shortly before the machine went down. The zero value
// is one that has not begun.
type recovery struct {
	mu          sync.Mutex
	began       chan struct{} // nil until somebody asks
	running     bool
	done, total uint64
}

// begun is closed once it has begun.
func (r *recovery) begun() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.began == nil {
		r.began = make(chan struct{})
	}
	return r.began
}

// note is told by the store of each path that is done.
func (r *recovery) note(done, total uint64) {
	began := r.begun()
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.running {
		r.running = true
		select {
		case <-began:
		default:
			close(r.began)
		}
	}
	r.done, r.total = max(done, r.done), total
}

func (r *recovery) text() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return fmt.Sprintf("still checking what was written before the machine went down: %d of %d paths", r.done, r.total)
}

// telling calls tell once the verification has begun, however short it is, and then every so often while it goes on, until
// stop is called, after which it is not called any more.
func (r *recovery) telling(every time.Duration, tell func(text string)) (stop func()) {
	begun, enough := r.begun(), make(chan struct{})
	var wait sync.WaitGroup
	wait.Go(func() {
		select {
		case <-begun:
		case <-enough:
			select {
			case <-begun: // both, and it is told of all the same
			default:
				return
			}
		}
		tick := time.NewTicker(every)
		defer tick.Stop()
		for told := ""; ; {
			if text := r.text(); text != told {
				told = text
				tell(text)
			}
			select {
			case <-tick.C:
			case <-enough:
				return
			}
		}
	})
	return func() {
		close(enough)
		wait.Wait()
	}
}

// open makes the attempt.
func (a *attempt) open(ctx context.Context, open func(context.Context) (backend, error)) {
	defer close(a.done)
	a.b, a.err = open(ctx)
}

// tellEvery is how often those who wait for the verification are told how far it is. What takes less is not mentioned.
const tellEvery = 2 * time.Second

// startRecovering is a backend whose store is being verified, by an attempt to open it that goes on. Clients are greeted
// meanwhile and told how far that is. cancel ends the attempt.
func startRecovering(r *reopening, first *attempt, how *recovery, cancel context.CancelFunc) *reopening {
	a := &attempt{done: make(chan struct{})}
	r.trying, r.how, r.cancel = a, how, cancel
	r.work.Go(func() {
		<-first.done
		if first.err != nil && !errors.Is(first.err, context.Canceled) {
			r.mu.Lock()
			r.reason = first.err.Error()
			r.mu.Unlock()
			r.log.Error().Msg("cannot open the store; clients are told why, and it is tried again for each: " + first.err.Error())
		}
		r.end(a, first.b, first.err)
	})
	return r
}

// verifying gives the attempt that is under way, if clients are to be told of it.
func (r *reopening) verifying() *attempt {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.how == nil || r.b != nil {
		return nil
	}
	return r.trying
}

// hold greets a client and tells it now and then how far the attempt is, until that ends. It gives nothing if the client
// has gone.
func (r *reopening) hold(ctx context.Context, a *attempt, stream io.ReadWriter, peer Peer) (*worker.Greeting, error) {
	g, err := worker.Greet(stream, storepath.Dir(r.cfg.Store.StoreDir), serverInfo(peer))
	if g == nil || err != nil {
		return nil, err
	}
	tick := time.NewTicker(r.tellEvery)
	defer tick.Stop()
	for told := ""; ; {
		select {
		case <-a.done:
			return g, nil
		case <-ctx.Done():
			err = context.Cause(ctx)
		case <-tick.C:
			if text := r.how.text(); text != told {
				told, err = text, g.Tell(text)
			}
		}
		if err != nil {
			g.Release()
			return nil, err
		}
	}
}

// serveHeld serves a client that waited for the attempt.
func (r *reopening) serveHeld(ctx context.Context, a *attempt, stream io.ReadWriter, peer Peer) error {
	g, err := r.hold(ctx, a, stream, peer)
	if g == nil || err != nil {
		return err
	}
	if err = a.err; err == nil {
		peer.Greeted = g
		err = a.b.serve(ctx, stream, peer)
	}
	var unopened *unopenedError
	if !errors.As(err, &unopened) {
		return err
	}
	defer g.Release()
	return errors.Join(&unopenedError{unopened.error, unopened.told, true}, g.Refuse(unopened.error))
}
