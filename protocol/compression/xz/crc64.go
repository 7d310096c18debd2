package xz

import (
	"encoding/binary"
	"hash"
	"hash/crc64"
)

var ecma = crc64.MakeTable(crc64.ECMA)

// crc is the check of most files, the CRC-64 of ECMA-182. It is that of [hash/crc64], which takes a tenth of the time that
// unpacking takes, where the processor does not help.
type crc struct{ sum uint64 }

var _ hash.Hash = (*crc)(nil)

func (c *crc) Write(p []byte) (int, error) {
	c.sum = update(c.sum, p)
	return len(p), nil
}

func (c *crc) Sum(b []byte) []byte { return binary.BigEndian.AppendUint64(b, c.sum) }
func (c *crc) Reset()              { c.sum = 0 }
func (c *crc) Size() int           { return crc64.Size }
func (c *crc) BlockSize() int      { return 1 }

// update is [crc64.Update].
func update(sum uint64, p []byte) uint64 {
	sum, p = fold(sum, p)
	return crc64.Update(sum, ecma, p)
}
