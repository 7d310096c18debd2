package xz

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
)

// Reader gives what one or more xz streams, one after the other, contain.
type Reader struct {
	r     *bufio.Reader
	c     chunks
	kind  byte // the stream's kind of check
	check check
	block block  // the present one
	size  uint64 // of its contents, so far
	index index  // the blocks of the present stream
	// state takes in what comes next.
	state func(*Reader) error
	err   error
	limit uint // on dictionaries, in bytes; 0 for the package's own
}

// Limit refuses larger dictionaries than that, in bytes, from now on, with [ErrFilter].
func (z *Reader) Limit(dictionary uint) { z.limit = dictionary }

// NewReader reads from r. Nothing is read before the first call of Read. Errors are [ErrFormat], [ErrFilter] and
// [ErrData], mostly wrapped, [io.ErrUnexpectedEOF], and those of r.
//
// Memory: 0.3 MB, and the encoder's dictionary and a quarter, but only in so far as data has filled it.
func NewReader(r io.Reader) *Reader {
	z := &Reader{r: bufio.NewReaderSize(nil, 1<<16), c: chunks{model: new(model), in: new(packed)}}
	z.Reset(r)
	return z
}

// Reset begins anew with another source and keeps the memory, but for large dictionaries.
func (z *Reader) Reset(r io.Reader) {
	z.r.Reset(r)
	z.c.begin(0)
	if len(z.c.buf) > windowFirst {
		z.c.buf = nil
	}
	z.state, z.err = (*Reader).beginStream, nil
}

func (z *Reader) Read(p []byte) (int, error) {
	for len(p) > 0 {
		if z.c.given < z.c.w {
			n := copy(p, z.c.buf[z.c.given:z.c.w])
			z.c.given += uint(n)
			return n, nil
		}
		if z.err != nil {
			return 0, z.err
		}
		z.err = z.state(z)
	}
	return 0, nil
}

// beginStream reads a stream's header.
func (z *Reader) beginStream() error {
	head, err := take(z.r, 12)
	if err != nil {
		return err
	}
	if !bytes.Equal(head[:6], headerMagic) {
		return ErrFormat
	}
	if z.kind, err = checkKind(head[6:8], head[8:]); err != nil {
		return err
	}
	z.check, z.index, z.state = newCheck(z.kind), index{}, (*Reader).beginBlock
	return nil
}

// beginBlock reads a block's header; where there is none the index stands.
func (z *Reader) beginBlock() error {
	words, err := z.r.ReadByte()
	if err != nil {
		return cut(err)
	}
	if words == 0 {
		return z.endStream()
	}
	head := make([]byte, 4*(int(words)+1))
	head[0] = words
	if _, err := io.ReadFull(z.r, head[1:]); err != nil {
		return cut(err)
	}
	if z.block, err = parseBlock(head); err != nil {
		return err
	}
	if z.limit > 0 && z.block.dictionary > z.limit {
		return fmt.Errorf("%w: dictionary of %d bytes", ErrFilter, z.block.dictionary)
	}
	z.c.begin(z.block.dictionary)
	z.check.reset()
	z.size, z.state = 0, (*Reader).decode
	return nil
}

// decode takes in a part of a block.
func (z *Reader) decode() error {
	if err := z.c.next(z.r); err != nil {
		return err
	}
	if z.c.ended {
		return z.endBlock()
	}
	fresh := z.c.buf[z.c.given:z.c.w]
	z.size += uint64(len(fresh))
	z.check.write(fresh)
	return nil
}

// endBlock compares what was decoded with what the block says of it.
func (z *Reader) endBlock() error {
	wrong := fmt.Errorf("%w: size of a block", ErrData)
	if z.block.packedSize != 0 && z.block.packedSize != z.c.packedSize || z.block.sizeKnown && z.block.size != z.size {
		return wrong
	}
	for n := z.c.packedSize; n%4 != 0; n++ {
		if b, err := z.r.ReadByte(); err != nil {
			return cut(err)
		} else if b != 0 {
			return wrong
		}
	}
	sum := make([]byte, z.check.size)
	if _, err := io.ReadFull(z.r, sum); err != nil {
		return cut(err)
	}
	if !z.check.is(sum) {
		return fmt.Errorf("%w: check of a block", ErrData)
	}
	z.index.add(uint64(z.block.headerSize)+z.c.packedSize+uint64(z.check.size), z.size)
	z.state = (*Reader).beginBlock
	return nil
}

// endStream reads the index and the footer.
func (z *Reader) endStream() error {
	size, err := z.index.compare(z.r)
	if err != nil {
		return err
	}
	foot, err := take(z.r, 12)
	if err != nil {
		return err
	}
	if crc32.ChecksumIEEE(foot[4:10]) != binary.LittleEndian.Uint32(foot) || foot[8] != 0 || foot[9] != z.kind ||
		binary.LittleEndian.Uint32(foot[4:8]) != uint32(size/4-1) || !bytes.Equal(foot[10:], footerMagic) {
		return fmt.Errorf("%w: footer", ErrData)
	}
	z.state = (*Reader).betweenStreams
	return nil
}

// betweenStreams passes over padding, zeros in multiples of four.
func (z *Reader) betweenStreams() error {
	pad, err := z.r.Peek(4)
	if len(pad) == 0 && err == io.EOF {
		return io.EOF
	}
	if err != nil {
		return cut(err)
	}
	if binary.LittleEndian.Uint32(pad) != 0 {
		return z.beginStream()
	}
	_, err = z.r.Discard(4)
	return err
}
