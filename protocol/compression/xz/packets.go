package xz

import "encoding/binary"

// packetsGo decodes packets, which are literals and matches, from m.at on into buf[w:], until stop is reached. No packet
// ends behind end. It returns where the last one ends, or that the chunk is corrupt: then only the dictionary and the
// probabilities have changed.
//
// It is what [model.packets] is where there is no assembly. It is one function, and a long one, because its state lives
// in registers.
func (m *model) packetsGo(in *packed, size uint, buf []byte, w, stop, end uint) (uint, bool) {
	rng, code, at := m.rng, m.code, m.at
	state, posMask := m.state, uint(m.posMask)
	rep0, rep1, rep2, rep3 := uint(m.rep0), uint(m.rep1), uint(m.rep2), uint(m.rep3)
	var b, n uint32
	for w < stop {
		// Nothing that one turn takes reaches past the buffer's room.
		if at > size {
			return w, false
		}
		posState := w & posMask % posStatesMax
		b, rng, code, at = bit(&m.isMatch[state%states][posState], in, rng, code, at)
		if b == 0 {
			var prev byte
			if w > 0 {
				prev = buf[w-1]
			}
			probs := &m.literals[(w&uint(m.literalPosMask)<<m.literalBits|uint(prev)>>(8-m.literalBits))%16]
			if state < litStates {
				buf[w], rng, code, at = literal(probs, in, rng, code, at)
			} else {
				buf[w], rng, code, at = matched(probs, buf[w-rep0-1], in, rng, code, at)
			}
			w++
			state = afterLiteral[state%states]
			continue
		}
		b, rng, code, at = bit(&m.isRep[state%states], in, rng, code, at)
		if b == 0 {
			rep3, rep2, rep1 = rep2, rep1, rep0
			n, rng, code, at = m.matchLen.decode(posState, in, rng, code, at)
			rep0, rng, code, at = m.distance(n, in, rng, code, at)
			state = afterState(state, 7, 10)
		} else {
			b, rng, code, at = bit(&m.isRep0[state%states], in, rng, code, at)
			if b == 0 {
				b, rng, code, at = bit(&m.isRep0Long[state%states][posState], in, rng, code, at)
				if b == 0 {
					if rep0 >= w {
						return w, false
					}
					buf[w] = buf[w-rep0-1]
					w++
					state = afterState(state, 9, 11)
					continue
				}
			} else {
				b, rng, code, at = bit(&m.isRep1[state%states], in, rng, code, at)
				if b == 0 {
					rep0, rep1 = rep1, rep0
				} else {
					b, rng, code, at = bit(&m.isRep2[state%states], in, rng, code, at)
					if b == 0 {
						rep0, rep1, rep2 = rep2, rep0, rep1
					} else {
						rep0, rep1, rep2, rep3 = rep3, rep0, rep1, rep2
					}
				}
			}
			n, rng, code, at = m.repLen.decode(posState, in, rng, code, at)
			state = afterState(state, 8, 11)
		}
		length := uint(n) + minMatch
		if rep0 >= w || length > end-w {
			return w, false
		}
		repeat(buf, w, rep0+1, length)
		w += length
	}
	m.state = state
	m.rep0, m.rep1, m.rep2, m.rep3 = uint32(rep0), uint32(rep1), uint32(rep2), uint32(rep3)
	m.rng, m.code, m.at = rng, code, at
	return w, true
}

var afterLiteral = [states]uint32{0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 4, 5}

func afterState(state, lit, other uint32) uint32 {
	if state < litStates {
		return lit
	}
	return other
}

// repeat copies length bytes from distance before w. It may write up to overshoot bytes more.
func repeat(buf []byte, w, distance, length uint) {
	if distance >= 8 {
		for i := uint(0); i < length; i += 8 {
			binary.LittleEndian.PutUint64(buf[w+i:], binary.LittleEndian.Uint64(buf[w+i-distance:]))
		}
		return
	}
	for i := range length {
		buf[w+i] = buf[w+i-distance]
	}
}

// decode decodes a length, less minMatch.
func (l *lengths) decode(posState uint, in *packed, rng, code uint32, at uint) (n, rng2, code2 uint32, at2 uint) {
	var b uint32
	b, rng, code, at = bit(&l.choice, in, rng, code, at)
	if b == 0 {
		return tree3(&l.low[posState%posStatesMax], in, rng, code, at)
	}
	b, rng, code, at = bit(&l.choice2, in, rng, code, at)
	if b == 0 {
		n, rng, code, at = tree3(&l.mid[posState%posStatesMax], in, rng, code, at)
		return n + 8, rng, code, at
	}
	n, rng, code, at = tree8(&l.high, in, rng, code, at)
	return n + 16, rng, code, at
}

// distance decodes the distance of a match of length n, both less what is added to them.
func (m *model) distance(n uint32, in *packed, rng, code uint32, at uint) (distance uint, rng2, code2 uint32, at2 uint) {
	slot, rng, code, at := tree6(&m.slot[min(n, 3)], in, rng, code, at)
	if slot < 4 {
		return uint(slot), rng, code, at
	}
	count := uint(slot>>1 - 1)
	d := (2 | slot&1) << count
	if slot < 14 {
		n, rng, code, at = reverse(m.special[d-slot:], count, in, rng, code, at)
		return uint(d + n), rng, code, at
	}
	n, rng, code, at = direct(count-4, in, rng, code, at)
	d += n << 4
	n, rng, code, at = reverse(m.align[:], 4, in, rng, code, at)
	return uint(d + n), rng, code, at
}
