package nar

import "io"

// contents reads the data of one regular file. The parser has a single one and points it at each file in turn.
type contents struct {
	src  *source
	left uint64
	err  error // sticky, from the stream
}

var _ io.WriterTo = (*contents)(nil)

func (c *contents) Read(p []byte) (int, error) {
	if c.left == 0 {
		return 0, io.EOF
	}
	if c.err != nil {
		return 0, c.err
	}
	if uint64(len(p)) > c.left {
		p = p[:c.left]
	}
	n, err := c.src.read(p)
	c.left -= uint64(n)
	c.err = err
	if n > 0 {
		return n, nil
	}
	return 0, err
}

// some returns the next piece of the data, valid until the next call.
func (c *contents) some() ([]byte, error) {
	if c.err != nil {
		return nil, c.err
	}
	b, err := c.src.some(c.left)
	c.left -= uint64(len(b))
	c.err = err
	return b, err
}

// WriteTo writes the rest of the data to w.
func (c *contents) WriteTo(w io.Writer) (int64, error) {
	var total int64
	for c.left > 0 {
		b, err := c.some()
		if len(b) > 0 {
			n, err := w.Write(b)
			total += int64(n)
			if err != nil {
				return total, err
			}
		}
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

// skip consumes what is left.
func (c *contents) skip() error {
	for c.left > 0 {
		if _, err := c.some(); err != nil {
			return err
		}
	}
	return c.err
}
