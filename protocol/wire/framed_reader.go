package wire

import (
	"bufio"
	"io"
)

// FramedReader is the contents of a framed stream; it ends with [io.EOF] at the frame of length 0.
// Whatever the consumer of the contents does, [FramedReader.Drain] brings the outer stream behind it.
type FramedReader struct {
	r    *Reader
	left uint32
	// err is sticky: io.EOF after the last frame, or what broke the stream.
	err error
}

// Framed returns a reader of the framed stream that starts at the current position.
// Nothing else may be read from r until it ended or was drained.
func (r *Reader) Framed() *FramedReader { return &FramedReader{r: r} }

// Read reads contents, at most up to the end of the current frame.
func (f *FramedReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if err := f.next(); err != nil {
		return 0, err
	}
	if uint64(len(p)) > uint64(f.left) {
		p = p[:f.left]
	}
	n, err := f.r.Read(p)
	f.left -= uint32(n)
	if err != nil {
		f.err = inside(err)
	}
	return n, f.errUnlessData(n)
}

// errUnlessData keeps an error that arrived with bytes for the next call.
func (f *FramedReader) errUnlessData(n int) error {
	if n > 0 {
		return nil
	}
	return f.err
}

// next makes sure that the current frame has bytes left.
func (f *FramedReader) next() error {
	if f.err != nil || f.left > 0 {
		return f.err
	}
	n, err := f.r.Uint32()
	switch {
	case err != nil:
		f.err = inside(err)
	case n == 0:
		f.err = io.EOF
	}
	f.left = n
	return f.err
}

// Buffered returns how much of the current frame can be read without reading from the stream.
func (f *FramedReader) Buffered() int {
	return int(min(uint64(f.left), uint64(f.r.Buffered())))
}

// Peek returns the next n bytes without consuming them; they stay valid until the next read.
// It looks no further than the current frame: past its end, as past the buffer, the error is [bufio.ErrBufferFull].
func (f *FramedReader) Peek(n int) ([]byte, error) {
	if n == 0 {
		return nil, nil
	}
	if err := f.next(); err != nil {
		return nil, err
	}
	if uint64(n) > uint64(f.left) {
		b, _ := f.r.Peek(f.Buffered())
		return b, bufio.ErrBufferFull
	}
	b, err := f.r.Peek(n)
	return b, inside(err)
}

// Discard skips n bytes of contents and returns how many it skipped; fewer only with an error.
func (f *FramedReader) Discard(n int) (int, error) {
	for left := n; left > 0; {
		if err := f.next(); err != nil {
			return n - left, err
		}
		got, err := f.r.Discard(int(min(uint64(left), uint64(f.left))))
		f.left -= uint32(got)
		left -= got
		if err != nil {
			f.err = inside(err)
			return n - left, f.err
		}
	}
	return n, nil
}

// WriteTo writes the rest of the contents to w.
func (f *FramedReader) WriteTo(w io.Writer) (int64, error) {
	var total int64
	buf := make([]byte, frameSize)
	for {
		n, err := f.Read(buf)
		if n > 0 {
			written, err := w.Write(buf[:n])
			total += int64(written)
			if err != nil {
				return total, err
			}
		}
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}

// Drain consumes the rest of the stream, so that the outer stream stands behind it.
// The result is nil if the stream ended well, however much of it had been read before.
func (f *FramedReader) Drain() error {
	for f.next() == nil {
		_, _ = f.Discard(int(f.left)) // its error sticks
	}
	if f.err == io.EOF {
		return nil
	}
	return f.err
}

// Close is [FramedReader.Drain].
func (f *FramedReader) Close() error { return f.Drain() }

// Ended reports whether the frame of length 0 was read.
func (f *FramedReader) Ended() bool { return f.err == io.EOF }
