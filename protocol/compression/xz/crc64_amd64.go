//go:build !purego

package xz

import (
	"encoding/binary"
	"hash/crc64"

	"github.com/klauspost/cpuid/v2"
)

// foldFrom is from how many bytes on folding is worth it; a multiple of foldBlock is folded.
const (
	foldFrom  = 256
	foldBlock = 64
)

// fold does the most of an update, and gives the sum up to what is left of p. Many bytes are folded to sixteen that have
// the same remainder.
func fold(sum uint64, p []byte) (uint64, []byte) {
	if len(p) < foldFrom || !cpuid.CPU.Has(cpuid.CLMUL) {
		return sum, p
	}
	blocks := uint(len(p) / foldBlock)
	low, high := foldAsm(^sum, &p[0], blocks)
	var rest [16]byte
	binary.LittleEndian.PutUint64(rest[:], low)
	binary.LittleEndian.PutUint64(rest[8:], high)
	// The sum so far is in them, so they are summed up from zero on, inverted as sums are.
	return crc64.Update(^uint64(0), ecma, rest[:]), p[blocks*foldBlock:]
}

// foldAsm gives sixteen bytes, as two numbers, that are equal to so many blocks modulo the polynomial, at least one. sum
// is that of what came before, not inverted.
//
//go:noescape
func foldAsm(sum uint64, p *byte, blocks uint) (low, high uint64)
