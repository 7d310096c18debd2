package localstore

import "nixdaemon/protocol/storepath"

// ownCollector is a collection of this process that is told of roots without its socket.
type ownCollector struct {
	tell func(hashPart string) bool
	// epoch is that of the handle whose gc.lock is held: other files may have taken their places since.
	epoch uint64
}

// TellRoots has temporary roots of this process told to its own collector from now on, by the hash parts of their paths:
// over its socket each would take two turns of goroutines, for which a processor that deletes has to be waited for. tell
// must not wait; if it is false the root goes over the socket. Nil ends that. It is for who holds gc.lock, before it reads
// what roots there are.
func (s *Store) TellRoots(tell func(hashPart string) bool) {
	if tell == nil {
		s.told.Store(nil)
		return
	}
	h := s.acquire()
	defer h.release()
	s.told.Store(&ownCollector{tell, h.epoch})
}

// tellOwn tells the collector of this process, if one runs, and tells whether that is all there is to do. The roots are
// written down already: a collector that begins later reads them.
func (s *Store) tellOwn(h *handle, paths []storepath.Path) bool {
	own := s.told.Load()
	if own == nil || own.epoch != h.epoch {
		return false
	}
	for _, p := range paths {
		if !own.tell(p.HashPart()) {
			return false
		}
	}
	return true
}
