package twosum

import (
	"encoding"
	"encoding/binary"
	"hash"
)

const (
	blockSize = 64
	// The state of a digest of crypto/sha256 in its binary form: what it begins with, eight words, the bytes of a block that
	// is not complete, and how many bytes were written.
	stateMagic = "sha\x03"
	stateSize  = len(stateMagic) + 32 + blockSize + 8
)

// Available tells whether two at once are faster than one after the other here.
func Available() bool { return available() }

// Write writes p to a and q to b, which must not be the same digest.
func Write(a, b hash.Hash, p, q []byte) {
	if available() && min(len(p), len(q)) >= 2*blockSize {
		p, q = blocks(a, b, p, q)
	}
	a.Write(p)
	b.Write(q)
}

// blocks writes as many whole blocks to both, as far as they are digests of SHA-256, and gives what is left.
func blocks(a, b hash.Hash, p, q []byte) ([]byte, []byte) {
	var x, y state
	var ok bool
	if p, ok = x.take(a, p); !ok {
		return p, q
	}
	if q, ok = y.take(b, q); !ok {
		return p, q
	}
	n := min(len(p), len(q)) / blockSize * blockSize
	blocks2(&x.words, &y.words, p[:n], q[:n])
	x.put(a, n)
	y.put(b, n)
	return p[n:], q[n:]
}

// state is that of a digest.
type state struct {
	words  [8]uint32
	binary [stateSize]byte
}

// take reads a digest's state, after completing a block that the digest is in with the first of p. It gives the rest of p,
// and tells whether it is a digest of SHA-256.
func (s *state) take(h hash.Hash, p []byte) ([]byte, bool) {
	if !s.read(h) {
		return p, false
	}
	if in := s.written() % blockSize; in != 0 {
		h.Write(p[:blockSize-in])
		p = p[blockSize-in:]
		s.read(h)
	}
	for i := range s.words {
		s.words[i] = binary.BigEndian.Uint32(s.binary[len(stateMagic)+4*i:])
	}
	return p, true
}

func (s *state) read(h hash.Hash) bool {
	from, ok := h.(encoding.BinaryAppender)
	if !ok {
		return false
	}
	if _, ok := h.(encoding.BinaryUnmarshaler); !ok {
		return false
	}
	b, err := from.AppendBinary(s.binary[:0])
	return err == nil && len(b) == stateSize && string(b[:len(stateMagic)]) == stateMagic
}

func (s *state) written() uint64 { return binary.BigEndian.Uint64(s.binary[stateSize-8:]) }

// put sets the digest's state after so many bytes more.
func (s *state) put(h hash.Hash, n int) {
	for i, word := range s.words {
		binary.BigEndian.PutUint32(s.binary[len(stateMagic)+4*i:], word)
	}
	binary.BigEndian.PutUint64(s.binary[stateSize-8:], s.written()+uint64(n))
	if err := h.(encoding.BinaryUnmarshaler).UnmarshalBinary(s.binary[:]); err != nil {
		panic(err) // It has made this form itself.
	}
}
