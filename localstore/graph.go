package localstore

import (
	"context"

	"nixdaemon/localstore/internal/db"
)

// Graph gives a snapshot of all valid paths and what they refer to, with their derivers and outputs if asked for: what a
// collector works with.
func (s *Store) Graph(ctx context.Context, o db.GraphOptions) (*db.Graph, error) {
	h := s.acquire()
	defer h.release()
	return h.db.LoadGraph(ctx, o)
}
