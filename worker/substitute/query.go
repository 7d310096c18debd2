package substitute

import (
	"context"
	"sync"

	"nixdaemon/protocol/storepath"
	"nixdaemon/worker/session"
)

// atOnce bounds the questions that one request asks at the same time. What goes over the network waits for a connection
// beneath that.
const atOnce = 256

// Available gives those of the paths that could be substituted from stores that want to be asked about many, unsorted
// (libstore/store-api.cc, querySubstitutablePaths).
func (s *Substituter) Available(ctx context.Context, sess *session.Session, paths []storepath.Path) ([]storepath.Path, error) {
	sources, err := s.sources(ctx, sess)
	if err != nil {
		return nil, err
	}
	var found []storepath.Path
	for _, src := range sources {
		if len(paths) == 0 {
			break
		}
		if src.Dir() != s.o.Store.Dir() || !src.WantMassQuery() {
			continue
		}
		has, err := s.validAt(ctx, sess, src, paths)
		if err != nil {
			return nil, err
		}
		var rest []storepath.Path
		for i, p := range paths {
			if has[i] {
				found = append(found, p)
			} else {
				rest = append(rest, p)
			}
		}
		paths = rest
	}
	return found, nil
}

// validAt tells which paths a store has.
func (s *Substituter) validAt(ctx context.Context, sess *session.Session, src Source, paths []storepath.Path) ([]bool, error) {
	has := make([]bool, len(paths))
	err := Each(ctx, len(paths), func(ctx context.Context, i int) error {
		info, err := src.PathInfo(ctx, s.asker(sess), paths[i])
		has[i] = info != nil && info.Path == paths[i]
		return err
	})
	return has, err
}

// Each calls f for 0 to n-1, many at once, and gives the first error, after which no new calls are begun.
func Each(ctx context.Context, n int, f func(ctx context.Context, i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	for i := range n {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			break
		}
		wg.Go(func() {
			defer func() { <-slots }()
			if err := f(ctx, i); err != nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}
