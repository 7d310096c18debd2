package build

import (
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/storepath"
)

// refScanner finds which of a set of store paths a stream refers to, by their hash parts (libstore/references.cc).
// It is an io.Writer.
type refScanner struct {
	// wanted is the index of each candidate not yet found; nil until the first hash part, since most outputs are small and
	// have none, and a closure may be large.
	wanted map[[storepath.HashLen]byte]int
	paths  []storepath.Path
	found  []storepath.Path
	tail   []byte // the last bytes of what was written before, fewer than a hash part's
}

// notDigit marks the bytes that cannot be part of a hash part.
var notDigit = func() (table [256]bool) {
	for i := range table {
		table[i] = !nixhash.IsNix32(byte(i))
	}
	return table
}()

func newRefScanner(candidates []storepath.Path) *refScanner {
	return &refScanner{paths: candidates}
}

func (s *refScanner) want() {
	s.wanted = make(map[[storepath.HashLen]byte]int, len(s.paths))
	for i, p := range s.paths {
		s.wanted[[storepath.HashLen]byte([]byte(p.HashPart()))] = i
	}
}

// Write never fails.
func (s *refScanner) Write(data []byte) (int, error) {
	if s.wanted != nil && len(s.wanted) == 0 {
		return len(data), nil
	}
	const keep = storepath.HashLen - 1
	if len(s.tail) > 0 {
		// What spans the border shows in the tail and as many bytes as could complete it.
		border := append(s.tail, data[:min(keep, len(data))]...)
		s.search(border)
		if len(data) < keep {
			s.tail = append(s.tail[:0], border[max(0, len(border)-keep):]...)
			return len(data), nil
		}
	}
	s.search(data)
	s.tail = append(s.tail[:0], data[max(0, len(data)-keep):]...)
	return len(data), nil
}

func (s *refScanner) search(data []byte) {
	eachHashPart(data, func(at int) {
		if s.wanted == nil {
			s.want()
		}
		key := [storepath.HashLen]byte(data[at : at+storepath.HashLen])
		if i, ok := s.wanted[key]; ok {
			delete(s.wanted, key)
			s.found = append(s.found, s.paths[i])
		}
	})
}

// eachHashPart calls f for every position at which HashLen digits of nix32 stand. It looks at the last of them first:
// when that is no digit, none of the positions up to it can begin a hash part, so most bytes are never looked at.
func eachHashPart(data []byte, f func(at int)) {
	const n = storepath.HashLen
	for i := 0; i+n <= len(data); {
		window := data[i : i+n : i+n]
		j := n - 1
		for j >= 0 && !notDigit[window[j]] {
			j--
		}
		if j >= 0 {
			i += j + 1
			continue
		}
		f(i)
		// While digits follow, each position is one, without looking at its other bytes again.
		for i++; i+n <= len(data) && !notDigit[data[i+n-1]]; i++ {
			f(i)
		}
		i += n
	}
}

// References are the paths found so far, a sorted set.
func (s *refScanner) References() []storepath.Path {
	return storepath.SortUnique(append([]storepath.Path(nil), s.found...))
}
