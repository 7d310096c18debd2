package build

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"nixdaemon/protocol/activity"
)

// ErrGone is wrapped by errors of [Substituter].Fetch when the substituter had a path's metadata, but no longer its
// contents. That counts as if it had never offered the path.
var ErrGone = errors.New("substitute is gone")

func isGone(err error) bool { return errors.Is(err, ErrGone) }

// fetching is a request's work in other goroutines than its own.
type fetching struct {
	ctx     context.Context // of the work, while there is some
	cancel  context.CancelFunc
	work    sync.WaitGroup
	running int // pieces of work whose result the request has not yet learnt
	queue   []*pathGoal

	finds int         // questions for offers among running
	found []*pathGoal // with an offer that can be got ahead but that waits for references, the last found last
	ready []*pathGoal // with one that waits for nothing but its turn, the first first
	ahead int         // offers that are got ahead, or have been, and whose turn has not come
}

// context is that of the work.
func (f *fetching) context(r *request) context.Context {
	if f.cancel == nil {
		f.ctx, f.cancel = context.WithCancel(r.ctx)
	}
	return f.ctx
}

// start runs work on its own; the function that it returns is called on the request's goroutine.
func (f *fetching) start(r *request, work func(context.Context) func()) {
	f.running++
	ctx := f.context(r)
	f.work.Go(func() {
		then := guardedWork(ctx, r, work)
		r.inbox.post(notice{then: func() {
			f.running--
			then()
		}})
	})
}

func guardedWork(ctx context.Context, r *request, work func(context.Context) func()) (then func()) {
	defer func() {
		if p := recover(); p != nil {
			r.s.log.Error().Interface("panic", p).Msg("panic in a substitution")
			then = func() { r.fail(fmt.Errorf("substitute: internal error")) }
		}
	}()
	return work(ctx)
}

// end stops the work and waits for it.
func (f *fetching) end() {
	if f.cancel != nil {
		f.cancel()
	}
	f.work.Wait()
}

// logError shows an error to the client without ending the request.
func (r *request) logError(err error) {
	r.log.Message(activity.Error, errorLog(Coloured(err)))
}
