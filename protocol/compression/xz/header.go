package xz

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
)

var (
	headerMagic = []byte("\xfd7zXZ\x00")
	footerMagic = []byte("YZ")
)

// take reads n bytes, at most 16. They are good until the next read.
func take(r *bufio.Reader, n int) ([]byte, error) {
	b, err := r.Peek(n)
	if err != nil {
		return nil, cut(err)
	}
	_, err = r.Discard(n)
	return b, err
}

// checkKind reads the two bytes of a stream's flags, of which the sum is given.
func checkKind(flags, sum []byte) (byte, error) {
	if crc32.ChecksumIEEE(flags) != binary.LittleEndian.Uint32(sum) {
		return 0, fmt.Errorf("%w: stream flags", ErrData)
	}
	if flags[0] != 0 || flags[1] > 0xf {
		return 0, fmt.Errorf("%w: stream flags %x", ErrFilter, flags)
	}
	return flags[1], nil
}

// check sums up what a block contains.
type check struct {
	size int       // of the sum, in bytes
	h    hash.Hash // nil if the kind is not one that we know, or none
}

// newCheck gives what computes a kind of check. Kinds without a meaning have a size all the same, and are passed over
// as liblzma does.
func newCheck(kind byte) check {
	c := check{size: [16]int{0, 4, 4, 4, 8, 8, 8, 16, 16, 16, 32, 32, 32, 64, 64, 64}[kind]}
	switch kind {
	case 1:
		c.h = crc32.NewIEEE()
	case 4:
		c.h = new(crc)
	case 10:
		c.h = sha256.New()
	}
	return c
}

func (c check) reset() {
	if c.h != nil {
		c.h.Reset()
	}
}

func (c check) write(p []byte) {
	if c.h != nil {
		c.h.Write(p)
	}
}

// is compares the sum with the one in the stream, where CRCs are little-endian.
func (c check) is(sum []byte) bool {
	if c.h == nil {
		return true
	}
	own := c.h.Sum(nil)
	if len(own) <= 8 {
		for i, j := 0, len(own)-1; i < j; i, j = i+1, j-1 {
			own[i], own[j] = own[j], own[i]
		}
	}
	return bytes.Equal(own, sum)
}

// block is what a block's header says.
type block struct {
	headerSize int
	dictionary uint
	packedSize uint64 // of the data; 0 if the header does not tell
	size       uint64 // unpacked, as packedSize
	sizeKnown  bool
}

const filterLZMA2 = 0x21

// parseBlock reads a block's header, the whole of it.
func parseBlock(head []byte) (block, error) {
	corrupt := fmt.Errorf("%w: block header", ErrData)
	body, sum := head[:len(head)-4], head[len(head)-4:]
	if crc32.ChecksumIEEE(body) != binary.LittleEndian.Uint32(sum) {
		return block{}, corrupt
	}
	b := block{headerSize: len(head)}
	flags, rest := body[1], bytes.NewReader(body[2:])
	if flags&0x3c != 0 || flags&3 != 0 {
		return block{}, fmt.Errorf("%w: more than LZMA2", ErrFilter)
	}
	var err error
	if flags&0x40 != 0 {
		if b.packedSize, err = varint(rest); err != nil || b.packedSize == 0 {
			return block{}, corrupt
		}
	}
	if flags&0x80 != 0 {
		if b.size, err = varint(rest); err != nil {
			return block{}, corrupt
		}
		b.sizeKnown = true
	}
	if b.dictionary, err = parseFilter(rest); err != nil {
		return block{}, err
	}
	for rest.Len() > 0 {
		if pad, _ := rest.ReadByte(); pad != 0 {
			return block{}, corrupt
		}
	}
	return b, nil
}

// parseFilter reads the flags of the one filter and gives the dictionary's size.
func parseFilter(r *bytes.Reader) (uint, error) {
	id, err := varint(r)
	if err != nil {
		return 0, err
	}
	if id != filterLZMA2 {
		return 0, fmt.Errorf("%w: 0x%x", ErrFilter, id)
	}
	size, err := varint(r)
	if err != nil {
		return 0, err
	}
	bits, err := r.ReadByte()
	if err != nil || size != 1 || bits > 40 {
		return 0, fmt.Errorf("%w: filter properties", ErrData)
	}
	dictionary := uint64(2|bits&1) << (bits/2 + 11)
	if dictionary > maxDictionary {
		return 0, fmt.Errorf("%w: dictionary of %d bytes", ErrFilter, dictionary)
	}
	return uint(dictionary), nil
}

// varint reads a number of up to nine bytes, the lowest seven bits first.
func varint(r io.ByteReader) (uint64, error) {
	var n uint64
	for shift := 0; shift < 63; shift += 7 {
		b, err := r.ReadByte()
		if err != nil {
			return 0, cut(err)
		}
		n |= uint64(b&0x7f) << shift
		if b < 0x80 {
			if b == 0 && shift > 0 {
				break // not the shortest form
			}
			return n, nil
		}
	}
	return 0, fmt.Errorf("%w: number", ErrData)
}
