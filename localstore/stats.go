package localstore

import "nixdaemon/localstore/internal/db"

// DatabaseStats count what the store's database has done since it was opened,
// which may have been anew when its files were replaced.
type DatabaseStats = db.Stats

// DatabaseStats tells what was done so far.
func (s *Store) DatabaseStats() DatabaseStats {
	h := s.acquire()
	defer h.release()
	return h.db.Stats()
}
