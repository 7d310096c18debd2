package cachestore

import (
	"context"
	"errors"
	"io"
	"sync"

	"nixdaemon/localstore"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
)

// uploadsAtOnce bounds the paths that are put into the cache while the next is received. It is more than there are
// connections by default (http-connections), since some wait for their references.
const uploadsAtOnce = 32

// AddNARs adds the paths that next gives, each after those that it refers to. The objects of a
// path go into the cache while the following are received; its narinfo behind those of what it refers to, as anybody may
// ask for the path from then on.
func (s *Store) AddNARs(ctx context.Context, next func() (*pathinfo.Info, io.Reader, error), o localstore.AddOptions) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	b := &batch{s: s, o: o, fail: cancel, slots: make(chan struct{}, uploadsAtOnce), ends: make(map[storepath.Path]chan struct{})}
	for ctx.Err() == nil {
		info, archive, err := next()
		if err == nil {
			err = b.add(ctx, info, archive)
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			cancel(err)
		}
	}
	b.running.Wait()
	return context.Cause(ctx)
}

// batch are the paths of one request.
type batch struct {
	s       *Store
	o       localstore.AddOptions
	fail    context.CancelCauseFunc
	slots   chan struct{}
	running sync.WaitGroup
	// ends are closed when a path of this request is in the cache, or never will be.
	ends map[storepath.Path]chan struct{}
}

// add receives a path and begins to put it into the cache. There is no io.EOF among its errors.
func (b *batch) add(ctx context.Context, info *pathinfo.Info, archive io.Reader) error {
	if end, again := b.ends[info.Path]; again {
		<-end
	}
	u, err := b.s.receive(ctx, info, archive, b.o)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if u == nil || err != nil {
		return err
	}
	before := make(map[storepath.Path]chan struct{})
	for _, ref := range info.References {
		if end := b.ends[ref]; end != nil && ref != info.Path {
			before[ref] = end
		}
	}
	end := make(chan struct{})
	b.ends[info.Path] = end
	b.slots <- struct{}{} // freed by those before, who wait for none that come later
	b.running.Go(func() {
		defer func() { <-b.slots }()
		defer close(end)
		coming := func(ref storepath.Path) bool { return before[ref] != nil }
		err := u.publishAfter(ctx, info, b.o.Repair, coming, func() error {
			for _, other := range before {
				<-other
			}
			return context.Cause(ctx) // the first of those that failed has ended it
		})
		if err = firstOf(err, u.close()); err != nil {
			b.fail(err)
		}
	})
	return nil
}
