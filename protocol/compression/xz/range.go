package xz

const (
	// maxPacked is the largest compressed size of a chunk.
	maxPacked = 1 << 16
	// packedRoom is a power of two, so that a masked index needs no check. What lies behind the chunk is garbage; a
	// decoder that has run into it knows by its position.
	packedRoom = 2 * maxPacked
	packedMask = packedRoom - 1

	top       = 1 << 24 // below it the range takes in another byte
	probBits  = 11
	probInit  = 1 << probBits / 2
	probShift = 5
	// zeroBias rounds the change of a probability for a zero bit, which grows towards 1<<probBits, like that for a one
	// bit, which falls towards zero.
	zeroBias = 1<<32 - 1<<probBits + 1<<probShift - 1
)

type (
	prob   = uint16 // of a zero bit, in 1/2048
	packed = [packedRoom]byte
)

// The decoder's state is passed and returned by value: so it stays in registers.
//
// rng and code are the range and the position in it, at is the index of the next byte in the chunk.

// bit decodes one bit with its probability.
func bit(p *prob, in *packed, rng, code uint32, at uint) (b, rng2, code2 uint32, at2 uint) {
	if rng < top {
		rng, code = rng<<8, code<<8|uint32(in[at&packedMask])
		at++
	}
	pr := uint32(*p)
	bound := rng >> probBits * pr
	if code < bound {
		*p = prob(pr + (1<<probBits-pr)>>probShift)
		return 0, bound, code, at
	}
	*p = prob(pr - pr>>probShift)
	return 1, rng - bound, code - bound, at
}

// literal decodes the eight bits of a byte, the highest first.
func literal(probs *[0x300]prob, in *packed, rng, code uint32, at uint) (b byte, rng2, code2 uint32, at2 uint) {
	sym := uint32(1)
	for sym < 0x100 {
		if rng < top {
			rng, code = rng<<8, code<<8|uint32(in[at&packedMask])
			at++
		}
		pr := uint32(probs[sym])
		bound := rng >> probBits * pr
		// zero is all ones if the bit is 0: bits of literals are hard to foretell, for the processor too.
		less := uint64(code) - uint64(bound)
		zero := uint32(less >> 32)
		rest := rng - bound
		rng = rest ^ (rest^bound)&zero
		code = uint32(less) + bound&zero
		probs[sym] = prob(pr - uint32(int32(pr+zero&zeroBias)>>probShift))
		sym = sym<<1 + 1 + zero
	}
	return byte(sym), rng, code, at
}

// matched decodes a byte after a match: where the byte that would have continued the match is right about the bits so
// far, it chooses the probabilities.
func matched(probs *[0x300]prob, like byte, in *packed, rng, code uint32, at uint) (b byte, rng2, code2 uint32, at2 uint) {
	sym, offset, match := uint32(1), uint32(0x100), uint32(like)
	for sym < 0x100 {
		if rng < top {
			rng, code = rng<<8, code<<8|uint32(in[at&packedMask])
			at++
		}
		match <<= 1
		matchBit := match & offset
		p := &probs[offset+matchBit+sym]
		pr := uint32(*p)
		bound := rng >> probBits * pr
		less := uint64(code) - uint64(bound)
		zero := uint32(less >> 32)
		rest := rng - bound
		rng = rest ^ (rest^bound)&zero
		code = uint32(less) + bound&zero
		*p = prob(pr - uint32(int32(pr+zero&zeroBias)>>probShift))
		sym = sym<<1 + 1 + zero
		// The offset stays as long as the bits agree.
		offset &= matchBit ^ zero
	}
	return byte(sym), rng, code, at
}

// tree3, tree6 and tree8 decode numbers of so many bits, the highest first.
func tree3(probs *[8]prob, in *packed, rng, code uint32, at uint) (n, rng2, code2 uint32, at2 uint) {
	sym := uint32(1)
	for sym < 8 {
		if rng < top {
			rng, code = rng<<8, code<<8|uint32(in[at&packedMask])
			at++
		}
		pr := uint32(probs[sym])
		bound := rng >> probBits * pr
		less := uint64(code) - uint64(bound)
		zero := uint32(less >> 32)
		rest := rng - bound
		rng = rest ^ (rest^bound)&zero
		code = uint32(less) + bound&zero
		probs[sym] = prob(pr - uint32(int32(pr+zero&zeroBias)>>probShift))
		sym = sym<<1 + 1 + zero
	}
	return sym - 8, rng, code, at
}

func tree6(probs *[64]prob, in *packed, rng, code uint32, at uint) (n, rng2, code2 uint32, at2 uint) {
	sym := uint32(1)
	for sym < 64 {
		if rng < top {
			rng, code = rng<<8, code<<8|uint32(in[at&packedMask])
			at++
		}
		pr := uint32(probs[sym])
		bound := rng >> probBits * pr
		less := uint64(code) - uint64(bound)
		zero := uint32(less >> 32)
		rest := rng - bound
		rng = rest ^ (rest^bound)&zero
		code = uint32(less) + bound&zero
		probs[sym] = prob(pr - uint32(int32(pr+zero&zeroBias)>>probShift))
		sym = sym<<1 + 1 + zero
	}
	return sym - 64, rng, code, at
}

func tree8(probs *[256]prob, in *packed, rng, code uint32, at uint) (n, rng2, code2 uint32, at2 uint) {
	sym := uint32(1)
	for sym < 256 {
		if rng < top {
			rng, code = rng<<8, code<<8|uint32(in[at&packedMask])
			at++
		}
		pr := uint32(probs[sym])
		bound := rng >> probBits * pr
		less := uint64(code) - uint64(bound)
		zero := uint32(less >> 32)
		rest := rng - bound
		rng = rest ^ (rest^bound)&zero
		code = uint32(less) + bound&zero
		probs[sym] = prob(pr - uint32(int32(pr+zero&zeroBias)>>probShift))
		sym = sym<<1 + 1 + zero
	}
	return sym - 256, rng, code, at
}

// reverse decodes a number of count bits, the lowest first.
func reverse(probs []prob, count uint, in *packed, rng, code uint32, at uint) (n, rng2, code2 uint32, at2 uint) {
	sym := uint32(1)
	for i := range count {
		if rng < top {
			rng, code = rng<<8, code<<8|uint32(in[at&packedMask])
			at++
		}
		pr := uint32(probs[sym])
		bound := rng >> probBits * pr
		less := uint64(code) - uint64(bound)
		zero := uint32(less >> 32)
		rest := rng - bound
		rng = rest ^ (rest^bound)&zero
		code = uint32(less) + bound&zero
		probs[sym] = prob(pr - uint32(int32(pr+zero&zeroBias)>>probShift))
		sym = sym<<1 + 1 + zero
		n |= (1 + zero) << i
	}
	return n, rng, code, at
}

// direct decodes a number of count bits that have no probabilities, the highest first.
func direct(count uint, in *packed, rng, code uint32, at uint) (n, rng2, code2 uint32, at2 uint) {
	for range count {
		if rng < top {
			rng, code = rng<<8, code<<8|uint32(in[at&packedMask])
			at++
		}
		rng >>= 1
		code -= rng
		zero := -(code >> 31)
		code += rng & zero
		n = n<<1 + 1 + zero
	}
	return n, rng, code, at
}
