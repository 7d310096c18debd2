package localstore

import (
	"context"
	"math"
	"runtime"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"nixdaemon/localstore/internal/db"
	"nixdaemon/protocol/storepath"
)

// rowBlock is how many rows a [rowReader] holds.
const rowBlock = 1024

// rowReader gives out the paths that were valid when it was made, in the order of their registration, to several
// goroutines. It holds few of them at a time, however large the store is; what becomes invalid meanwhile may be among
// them or not.
type rowReader struct {
	store    *Store
	read     readRows
	mu       sync.Mutex
	block    []validRow
	id, last int64 // of the last row read, and of the last to be read
}

// readRows gives the first rows beyond a number, at most limit.
type readRows func(ctx context.Context, id int64, limit int) ([]db.PathRow, error)

// validRow is a path that was valid, with what the database said of it but for its references; of a reader of names
// that is the number and the path alone.
type validRow struct {
	path storepath.Path
	row  *db.PathRow
}

func (s *Store) newRowReader(ctx context.Context, h *handle) (*rowReader, error) {
	return s.newReader(ctx, h, h.db.RowsBeyond)
}

// newNameReader is newRowReader for who wants no more than the paths.
func (s *Store) newNameReader(ctx context.Context, h *handle) (*rowReader, error) {
	return s.newReader(ctx, h, h.db.NamesBeyond)
}

func (s *Store) newReader(ctx context.Context, h *handle, read readRows) (*rowReader, error) {
	last, err := h.db.LastID(ctx)
	// The numbers of rows begin at 1, unless somebody else has written others.
	return &rowReader{store: s, read: read, id: math.MinInt64, last: last}, public(err)
}

// next gives the next rows, at most n of them; none at the end.
func (r *rowReader) next(ctx context.Context, n int) ([]validRow, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.block) == 0 {
		if err := r.fill(ctx); err != nil {
			return nil, err
		}
	}
	n = min(n, len(r.block))
	some := r.block[:n:n]
	r.block = r.block[n:]
	return some, nil
}

func (r *rowReader) fill(ctx context.Context) error {
	if r.id >= r.last {
		return nil
	}
	rows, err := r.read(ctx, r.id, rowBlock)
	if err != nil {
		return public(err)
	}
	block := make([]validRow, 0, len(rows))
	for i := range rows {
		if rows[i].ID > r.last {
			break
		}
		p, err := r.store.opts.StoreDir.Parse(rows[i].Path)
		if err != nil {
			return err
		}
		block = append(block, validRow{p, &rows[i]})
	}
	r.id = r.last
	if len(block) > 0 {
		r.id = block[len(block)-1].row.ID
	}
	r.block = block
	return nil
}

// each runs f for all rows that are left, one after the other.
func (r *rowReader) each(ctx context.Context, f func(context.Context, validRow) error) error {
	for {
		some, err := r.next(ctx, 1)
		if err != nil || len(some) == 0 {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := f(ctx, some[0]); err != nil {
			return err
		}
	}
}

// onAllProcessors runs f once for each processor, and stops at the first error.
func onAllProcessors(ctx context.Context, f func(context.Context) error) error {
	return onWorkers(ctx, runtime.GOMAXPROCS(0), f)
}

// onWorkers is onAllProcessors for so many goroutines.
func onWorkers(ctx context.Context, n int, f func(context.Context) error) error {
	group, ctx := errgroup.WithContext(ctx)
	for range n {
		group.Go(func() error { return f(ctx) })
	}
	return group.Wait()
}

// inParallel runs f for all items on all processors, and stops at the first error.
func inParallel[T any](ctx context.Context, items []T, f func(context.Context, T) error) error {
	var next atomic.Int64
	return onAllProcessors(ctx, func(ctx context.Context) error {
		for {
			i := next.Add(1) - 1
			if i >= int64(len(items)) {
				return nil
			}
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err := f(ctx, items[i]); err != nil {
				return err
			}
		}
	})
}
