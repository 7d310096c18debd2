package xz

import (
	"bufio"
	"io"
)

const (
	// windowFirst is the room that a small dictionary gets at least when it slides, and what Reset keeps.
	windowFirst = 1 << 20
	// maxDictionary is the largest one that is accepted, the limit of libarchive (read_support_filter_xz.c).
	maxDictionary = 1 << 30
)

// chunks decodes the LZMA2 data of a block. What it has decoded is in the dictionary.
type chunks struct {
	model      *model
	in         *packed
	buf        []byte // the dictionary, with the present chunk behind it
	dictionary uint   // its size: so far back may matches reach
	w          uint   // end of what is decoded
	given      uint   // end of what has been read of it
	needReset  bool   // of the dictionary
	needProps  bool
	ended      bool
	packedSize uint64 // of what has been taken in

	end    uint // of the compressed chunk that is being decoded; 0 if there is none
	inSize uint // of that chunk, as it is in in
}

// begin starts on a block with a dictionary of the size.
func (c *chunks) begin(dictionary uint) {
	c.dictionary, c.w, c.given, c.packedSize = dictionary, 0, 0, 0
	c.needReset, c.needProps, c.ended, c.end = true, true, false, 0
}

// next decodes one chunk or a slice of it, or notes the end. All that was decoded has been read.
func (c *chunks) next(r *bufio.Reader) error {
	if c.end > 0 {
		return c.slice()
	}
	control, err := r.ReadByte()
	switch {
	case err != nil:
		return cut(err)
	case control == 0:
		c.packedSize++
		c.ended = true
		return nil
	case control == 1 || control >= 0xe0:
		c.needReset, c.needProps = false, true
		c.w, c.given = 0, 0
	case c.needReset:
		return ErrData
	}
	if control < 0x80 {
		return c.stored(r, control)
	}
	return c.compressed(r, control)
}

func (c *chunks) stored(r *bufio.Reader, control byte) error {
	if control > 2 {
		return ErrData
	}
	head, err := take(r, 2)
	if err != nil {
		return err
	}
	size := uint(head[0])<<8 + uint(head[1]) + 1
	c.makeRoom(size)
	if _, err := io.ReadFull(r, c.buf[c.w:c.w+size]); err != nil {
		return cut(err)
	}
	c.w += size
	c.packedSize += 3 + uint64(size)
	return nil
}

func (c *chunks) compressed(r *bufio.Reader, control byte) error {
	head, err := take(r, 4)
	if err != nil {
		return err
	}
	size := uint(control&0x1f)<<16 + uint(head[0])<<8 + uint(head[1]) + 1
	packedSize := uint(head[2])<<8 + uint(head[3]) + 1
	if err := c.resets(r, control); err != nil {
		return err
	}
	if _, err := io.ReadFull(r, c.in[:packedSize]); err != nil {
		return cut(err)
	}
	if packedSize < 5 {
		return ErrData
	}
	c.makeRoom(size)
	if !c.model.begin(c.in, c.w) {
		return ErrData
	}
	c.end, c.inSize = c.w+size, packedSize
	c.packedSize += 5 + uint64(packedSize)
	return c.slice()
}

// slice decodes a part of a chunk.
func (c *chunks) slice() error {
	w, ok := c.model.packets(c.in, c.inSize, c.buf[:c.end+overshoot], c.w, min(c.end, c.w+slice), c.end)
	if ok && w == c.end {
		ok, c.end = c.model.finish(c.in, c.inSize), 0
	}
	if !ok {
		return ErrData
	}
	c.w = w
	return nil
}

// resets does what a compressed chunk demands before it is decoded.
func (c *chunks) resets(r *bufio.Reader, control byte) error {
	if control >= 0xc0 {
		props, err := r.ReadByte()
		if err != nil {
			return cut(err)
		}
		if err := c.model.setProperties(props); err != nil {
			return err
		}
		c.needProps = false
		c.packedSize++
	} else if c.needProps {
		return ErrData
	}
	if control >= 0xa0 {
		c.model.reset()
	}
	return nil
}

// makeRoom gives size bytes more, and keeps as much as matches may refer to. Memory grows with what has really been
// decoded, whatever size the header has promised.
func (c *chunks) makeRoom(size uint) {
	if c.w+size+overshoot <= uint(len(c.buf)) {
		return
	}
	// Positions count modulo 16, at most. Bytes are moved when a quarter of the dictionary is gone, so each about four
	// times.
	gone := (c.w - min(c.w, c.dictionary)) &^ (posStatesMax - 1)
	if gone > 0 && gone >= c.dictionary/4 {
		copy(c.buf, c.buf[gone:c.w])
		c.w -= gone
		c.given -= gone
	}
	need := c.w + size + overshoot
	if need <= uint(len(c.buf)) {
		return
	}
	room := need
	if c.w > 0 {
		room = max(need, min(2*need, c.dictionary+max(c.dictionary/4, windowFirst)+size+overshoot))
	}
	grown := make([]byte, room)
	copy(grown, c.buf[:c.w])
	c.buf = grown
}
