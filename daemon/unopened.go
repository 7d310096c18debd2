package daemon

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"nixdaemon/daemon/config"
	"nixdaemon/protocol"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker"
)

// unopenedError says that the store could not be opened for a connection, whose client has heard nothing yet.
type unopenedError struct {
	error
	// told is set when the log has the reason already.
	told bool
	// answered is set when the client has it already, too.
	answered bool
}

// Unwrap gives the reason.
func (e *unopenedError) Unwrap() error { return e.error }

// answering has clients told why the store cannot be opened.
func answering(serve func(context.Context, io.ReadWriter, Peer) error, cfg *config.Config) func(context.Context, io.ReadWriter, Peer) error {
	return func(ctx context.Context, stream io.ReadWriter, peer Peer) error {
		err := serve(ctx, stream, peer)
		var unopened *unopenedError
		if !errors.As(err, &unopened) || unopened.answered || ctx.Err() != nil {
			return err
		}
		return errors.Join(err, worker.Refuse(stream, storepath.Dir(cfg.Store.StoreDir), serverInfo(peer), unopened.error))
	}
}

// serverInfo is what a client hears of us that has no store to ask.
func serverInfo(peer Peer) protocol.ServerInfo {
	info := protocol.ServerInfo{NixVersion: NixVersion, Trust: protocol.NotTrusted}
	if peer.Trusted {
		info.Trust = protocol.Trusted
	}
	return info
}

// reopening is a backend whose store could not be opened when the server started. Each connection tries again, as each
// of upstream's opens the store: a repair heals it without a restart.
type reopening struct {
	// ctx is the server's, for what outlives the connection that opened the store.
	ctx  context.Context
	open func(context.Context) (backend, error)
	// opened is told of the backend, once, before anybody is served by it.
	opened func(backend)
	log    zerolog.Logger

	// Of a store that is verified when it is opened first; nil and zero for others. See startRecovering.
	cfg       *config.Config
	how       *recovery
	tellEvery time.Duration
	cancel    context.CancelFunc
	work      sync.WaitGroup

	mu     sync.Mutex
	b      backend  // nil until the store is open
	trying *attempt // nil when nobody tries
	reason string   // why it is not, as the log has it
	closed bool

	retired bool
}

var _ backend = (*reopening)(nil)

// attempt is one try to open the store, for all who have come meanwhile.
type attempt struct {
	done chan struct{} // closed when b and err are set
	b    backend
	err  error
}

// startReopening begins with the error that the store could not be opened for.
func startReopening(ctx context.Context, open func(context.Context) (backend, error), opened func(backend), why error, log zerolog.Logger) *reopening {
	log.Error().Msg("cannot open the store; clients are told why, and it is tried again for each: " + why.Error())
	return &reopening{ctx: ctx, open: open, opened: opened, log: log, reason: why.Error()}
}

// get gives the backend when the store can be opened by now.
func (r *reopening) get(ctx context.Context) (backend, error) {
	r.mu.Lock()
	if r.b != nil || r.closed {
		defer r.mu.Unlock()
		if r.b == nil {
			return nil, context.Canceled
		}
		return r.b, nil
	}
	a := r.trying
	if a == nil {
		a = &attempt{done: make(chan struct{})}
		r.trying = a
		r.mu.Unlock()
		r.try(a)
	} else {
		r.mu.Unlock()
		select {
		case <-a.done:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	return a.b, a.err
}

// try opens the store.
func (r *reopening) try(a *attempt) {
	b, err := r.open(r.ctx)
	r.end(a, b, err)
}

// end is the end of an attempt.
func (r *reopening) end(a *attempt, b backend, err error) {
	defer close(a.done)
	if err == nil {
		r.opened(b)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.trying = nil
	if err != nil {
		told := r.reason == err.Error()
		r.reason = err.Error()
		a.err = &unopenedError{error: err, told: told}
		return
	}
	a.b, r.b, r.reason = b, b, ""
	if r.retired {
		b.retire()
	}
	r.log.Warn().Msg("the store is open now")
}

// now gives the backend, nil if there is none, and why there is none.
func (r *reopening) now() (b backend, reason string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.b, r.reason
}

func (r *reopening) serve(ctx context.Context, stream io.ReadWriter, peer Peer) error {
	if a := r.verifying(); a != nil {
		return r.serveHeld(ctx, a, stream, peer)
	}
	b, err := r.get(ctx)
	if err != nil {
		return err
	}
	return b.serve(ctx, stream, peer)
}

func (r *reopening) converse(ctx context.Context, stream io.ReadWriter, peer Peer, write bool) error {
	b, err := r.get(ctx)
	if err != nil {
		return err
	}
	return b.converse(ctx, stream, peer, write)
}

// building is nothing while there is no store.
func (r *reopening) building() []string {
	if b, _ := r.now(); b != nil {
		return b.building()
	}
	return nil
}

// problem is why nobody is served; "" if all are.
func (r *reopening) problem() string {
	if r.verifying() != nil {
		return r.how.text()
	}
	if _, reason := r.now(); reason != "" {
		return "cannot open the store: " + reason
	}
	return ""
}

// retire is for the backend that there is, or will be.
func (r *reopening) retire() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.retired = true
	if r.b != nil {
		r.b.retire()
	}
}

func (r *reopening) close() error {
	if r.cancel != nil {
		r.cancel()
		r.work.Wait()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	if r.b == nil {
		return nil
	}
	return r.b.close()
}
