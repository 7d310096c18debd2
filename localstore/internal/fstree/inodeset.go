package fstree

import (
	"slices"
	"sync"
)

// inodeSet are the inodes of the files that have a name among the links, and which of them are known to be on disk. Those
// that had one from the start are eight bytes each, for a store may have millions. It may be used by several goroutines
// once it is loaded.
type inodeSet struct {
	loaded        []uint64 // sorted
	loadedDurable bool

	mu    sync.Mutex
	later map[uint64]bool // whether it is durable; nil at first
}

func (s *inodeSet) load(inodes []uint64) {
	slices.Sort(inodes)
	s.loaded = inodes
}

func (s *inodeSet) wasLoaded(ino uint64) bool {
	_, found := slices.BinarySearch(s.loaded, ino)
	return found
}

func (s *inodeSet) has(ino uint64) bool {
	if s.wasLoaded(ino) {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	_, found := s.later[ino]
	return found
}

func (s *inodeSet) isDurable(ino uint64) bool {
	if s.loadedDurable && s.wasLoaded(ino) {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.later[ino]
}

func (s *inodeSet) add(ino uint64, durable bool) {
	if s.wasLoaded(ino) && (!durable || s.loadedDurable) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.later == nil {
		s.later = make(map[uint64]bool)
	}
	s.later[ino] = s.later[ino] || durable
}
