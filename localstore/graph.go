package localstore

import (
	"context"

	"nixdaemon/localstore/internal/db"
)

// Graph gives a snapshot of all valid paths, what they refer to, their derivers and outputs: what a collector works with.
func (s *Store) Graph(ctx context.Context) (*db.Graph, error) {
	h := s.acquire()
	defer h.release()
	return h.db.LoadGraph(ctx)
}
