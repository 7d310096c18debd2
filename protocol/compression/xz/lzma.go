package xz

import "encoding/binary"

const (
	states       = 12
	litStates    = 7 // states below it follow a literal
	posStatesMax = 1 << 4
	minMatch     = 2
	maxMatch     = 273
	// overshoot is how far behind its end a match may be written, since it is copied in pieces of up to 32 bytes.
	overshoot = 32
	// slice is how much is decoded at once. It is still in the processor's cache when it is summed up and read. And assembly
	// is not interrupted, who stops the world waits for it: that is a millisecond for so many bytes.
	slice = 64 << 10
)

// lengths are the probabilities of the lengths of one kind of match.
type lengths struct {
	choice, choice2 prob
	low, mid        [posStatesMax][8]prob
	high            [256]prob
}

// model is all that an LZMA decoder has learnt, and what it repeats.
type model struct {
	isMatch, isRep0Long           [states][posStatesMax]prob
	isRep, isRep0, isRep1, isRep2 [states]prob
	slot                          [4][64]prob
	special                       [128]prob
	align                         [16]prob
	matchLen, repLen              lengths
	literals                      [1 << 4][0x300]prob // lc + lp are at most 4 in LZMA2
	state                         uint32
	rep0, rep1, rep2, rep3        uint32 // distances, less one
	literalBits                   uint   // lc
	literalPosMask, posMask       uint32

	// Where the decoder stands in a chunk: range, position in the range (always less than it), next byte.
	rng, code uint32
	at        uint
}

// setProperties reads the byte (pb*5 + lp)*9 + lc.
func (m *model) setProperties(b byte) error {
	if b >= 9*5*5 {
		return ErrData
	}
	lc, lp, pb := uint(b%9), uint(b/9%5), uint(b/45)
	if lc+lp > 4 {
		return ErrData
	}
	m.literalBits, m.literalPosMask, m.posMask = lc, 1<<lp-1, 1<<pb-1
	return nil
}

// reset forgets everything but the properties.
func (m *model) reset() {
	m.state, m.rep0, m.rep1, m.rep2, m.rep3 = 0, 0, 0, 0, 0
	for s := range m.isMatch {
		fill(m.isMatch[s][:])
		fill(m.isRep0Long[s][:])
	}
	for _, p := range [][]prob{m.isRep[:], m.isRep0[:], m.isRep1[:], m.isRep2[:], m.special[:], m.align[:]} {
		fill(p)
	}
	for i := range m.slot {
		fill(m.slot[i][:])
	}
	m.matchLen.reset()
	m.repLen.reset()
	for i := range (m.literalPosMask + 1) << m.literalBits {
		fill(m.literals[i][:])
	}
}

func (l *lengths) reset() {
	l.choice, l.choice2 = probInit, probInit
	for i := range l.low {
		fill(l.low[i][:])
		fill(l.mid[i][:])
	}
	fill(l.high[:])
}

func fill(p []prob) {
	for i := range p {
		p[i] = probInit
	}
}

// begin starts on a chunk whose contents go to w in the dictionary. What is before, up to the last reset of the dictionary
// or as far as the dictionary reaches, is what matches refer to. [model.packets] decodes it.
func (m *model) begin(in *packed, w uint) bool {
	m.rng, m.code, m.at = 1<<32-1, binary.BigEndian.Uint32(in[1:5]), 5
	// A position outside of the range would stay there up to the end, where it must be zero.
	if in[0] != 0 || m.code == m.rng {
		return false
	}
	// A literal after a match looks at what the match would go on with. That may be gone when the dictionary has been moved
	// since and the match went further back than the dictionary reaches.
	return m.state < litStates || uint(m.rep0) < w
}

// finish tells whether the end of the contents is that of the chunk.
func (m *model) finish(in *packed, size uint) bool {
	if m.rng < top {
		m.code = m.code<<8 | uint32(in[m.at&packedMask])
		m.at++
	}
	return m.at == size && m.code == 0
}
