package compression

import (
	"bufio"
	"errors"
	"io"
)

// newCompress reads the format of the old program "compress": LZW with codes of 9 to 16 bits, in groups of eight.
func newCompress(_ *Decoders, r *bufio.Reader) (io.Reader, func(), error) {
	var head [3]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, nil, truncated("failed to read compressed data (truncated compress input)")
	}
	c := &lzw{r: r, maxBits: uint(head[2] & 0x1f), clears: head[2]&0x80 != 0}
	if head[2]&0x60 != 0 || c.maxBits < 9 || c.maxBits > 16 {
		return nil, nil, ErrUnrecognized
	}
	c.first = 256
	if c.clears {
		c.first = 257 // 256 is the code that clears the table
	}
	c.reset()
	return c, nil, nil
}

// lzw decodes; its memory is the table of 65,536 codes.
type lzw struct {
	r       *bufio.Reader
	maxBits uint
	clears  bool
	first   int // the first free code of an empty table

	bits    uint
	free    int // next code to define
	old     int // the code before, -1 at the start
	oldByte byte
	group   [16]byte // eight codes are as many bytes as a code has bits
	have    int      // bits in group
	at      int      // bits of it that were used
	prefix  [1 << 16]uint16
	suffix  [1 << 16]byte
	stack   [1 << 16]byte // what is decoded, backwards
	depth   int
}

func (c *lzw) reset() { c.bits, c.free, c.old, c.at, c.have = 9, c.first, -1, 0, 0 }

func (c *lzw) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		for c.depth > 0 && n < len(p) {
			c.depth--
			p[n] = c.stack[c.depth]
			n++
		}
		if n == len(p) {
			break
		}
		if err := c.step(); err != nil {
			if n > 0 && err == io.EOF {
				return n, nil
			}
			return n, err
		}
	}
	return n, nil
}

// code reads the next code; unused bits at the end of the stream are its end.
func (c *lzw) code() (int, error) {
	if c.at+int(c.bits) > c.have {
		n, err := io.ReadFull(c.r, c.group[:c.bits])
		if n*8 < int(c.bits) {
			if err == io.ErrUnexpectedEOF {
				err = io.EOF
			}
			return 0, err
		}
		c.at, c.have = 0, n*8
	}
	code := 0
	for i := range int(c.bits) {
		bit := c.group[(c.at+i)/8] >> ((c.at + i) % 8) & 1
		code |= int(bit) << i
	}
	c.at += int(c.bits)
	return code, nil
}

// step decodes one code onto the stack.
func (c *lzw) step() error {
	code, err := c.code()
	if err != nil {
		return err
	}
	if c.clears && code == 256 {
		c.reset()
		return nil
	}
	if code > c.free || code == c.free && c.old < 0 || c.old < 0 && code > 255 {
		return errors.New("failed to read compressed data (Invalid compressed data)")
	}
	walk := code
	if code == c.free { // the sequence that is only now defined
		c.push(c.oldByte)
		walk = c.old
	}
	for walk > 255 {
		c.push(c.suffix[walk])
		walk = int(c.prefix[walk])
	}
	c.push(byte(walk))
	c.oldByte = byte(walk)
	if c.old >= 0 && c.free < 1<<c.maxBits {
		c.prefix[c.free], c.suffix[c.free] = uint16(c.old), byte(walk)
		c.free++
		if c.free == 1<<c.bits && c.bits < c.maxBits {
			c.bits++
			c.at, c.have = 0, 0 // the rest of a group is not used when codes become longer
		}
	}
	c.old = code
	return nil
}

func (c *lzw) push(b byte) {
	c.stack[c.depth] = b
	c.depth++
}
