package xz

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"hash"
	"hash/crc32"
	"hash/maphash"
)

// index remembers the blocks of a stream until they are compared with its index, in little memory however many they
// are.
type index struct {
	blocks  uint64
	records maphash.Hash
}

// add notes a block: its size as it stands in the stream, without padding, and its contents' size.
func (x *index) add(unpadded, size uint64) {
	x.blocks++
	x.records.Write(record(unpadded, size))
}

func record(unpadded, size uint64) []byte {
	return binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, unpadded), size)
}

// summed reads bytes and sums them up.
type summed struct {
	r   *bufio.Reader
	sum hash.Hash32
	n   uint64
}

func (s *summed) ReadByte() (byte, error) {
	b, err := s.r.ReadByte()
	if err == nil {
		s.sum.Write([]byte{b})
		s.n++
	}
	return b, err
}

// compare reads the stream's index, whose first byte has been read, and returns its size in bytes.
func (x *index) compare(r *bufio.Reader) (uint64, error) {
	wrong := fmt.Errorf("%w: index", ErrData)
	s := &summed{r: r, sum: crc32.NewIEEE(), n: 1}
	s.sum.Write([]byte{0})
	count, err := varint(s)
	if err != nil {
		return 0, err
	}
	if count != x.blocks {
		return 0, wrong
	}
	var told maphash.Hash
	told.SetSeed(x.records.Seed())
	for range count {
		unpadded, err := varint(s)
		if err != nil {
			return 0, err
		}
		size, err := varint(s)
		if err != nil {
			return 0, err
		}
		told.Write(record(unpadded, size))
	}
	for s.n%4 != 0 {
		if b, err := s.ReadByte(); err != nil {
			return 0, cut(err)
		} else if b != 0 {
			return 0, wrong
		}
	}
	want := s.sum.Sum32()
	sum, err := take(r, 4)
	if err != nil {
		return 0, err
	}
	if told.Sum64() != x.records.Sum64() || want != binary.LittleEndian.Uint32(sum) {
		return 0, wrong
	}
	return s.n + 4, nil
}
