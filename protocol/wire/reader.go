package wire

import (
	"bufio"
	"encoding/binary"
	"io"
)

const (
	// DefaultBufferSize is the size of the buffer of a [Reader] and of a [Writer].
	// It holds typical requests whole, and two of them per connection leave most of its memory target unused.
	DefaultBufferSize = 8 << 10

	minBufferSize = 64
	maxEmptyReads = 100
)

// Reader decodes primitives from a stream.
// An error leaves the reader usable for what the caller knows to follow, such as after a timeout.
type Reader struct {
	src io.Reader
	// buf is nil until the first read that needs it; buf[start:end] was read but not consumed.
	buf        []byte
	start, end int
	size       int
	// pending came from src together with bytes, and is reported once those are consumed.
	pending error

	limited bool
	budget  int64
	claims  claims
}

// NewReader returns a reader of r with a buffer of [DefaultBufferSize].
func NewReader(r io.Reader) *Reader { return NewReaderSize(r, DefaultBufferSize) }

// NewReaderSize returns a reader of r with a buffer of size bytes (at least 64), allocated at first use.
func NewReaderSize(r io.Reader, size int) *Reader {
	return &Reader{src: r, size: max(size, minBufferSize)}
}

// Reset makes the reader read from src, forgetting buffered bytes, errors, budget and ledger but keeping its buffer.
func (r *Reader) Reset(src io.Reader) {
	r.Release()
	*r = Reader{src: src, buf: r.buf, size: r.size}
}

// Resize changes the size of the buffer, keeping what is buffered: large for the time of a bulk stream,
// small again for a connection that idles. The new buffer is never smaller than what is buffered.
func (r *Reader) Resize(size int) {
	size = max(size, minBufferSize, r.Buffered())
	if size == r.size {
		return
	}
	r.size = size
	if r.Buffered() == 0 {
		r.buf, r.start, r.end = nil, 0, 0
		return
	}
	buf := make([]byte, size)
	r.end = copy(buf, r.buf[r.start:r.end])
	r.start, r.buf = 0, buf
}

// Buffered returns the number of bytes that can be read without reading from the stream.
func (r *Reader) Buffered() int { return r.end - r.start }

// Peek returns the next n bytes without consuming them, reading as many as are missing.
// They stay valid until the next read. With fewer than n bytes the error says why:
// [bufio.ErrBufferFull] when n exceeds the buffer, [io.EOF] or [io.ErrUnexpectedEOF] at the end.
func (r *Reader) Peek(n int) ([]byte, error) {
	if r.Buffered() < n {
		if err := r.fill(n); err != nil {
			return r.buf[r.start:r.end], err
		}
	}
	return r.buf[r.start : r.start+n], nil
}

// Discard skips n bytes and returns how many it skipped; fewer only with an error.
func (r *Reader) Discard(n int) (int, error) {
	left := n
	for {
		step := min(left, r.Buffered())
		r.start += step
		left -= step
		if left == 0 {
			return n, nil
		}
		if err := r.fill(1); err != nil {
			return n - left, err
		}
	}
}

// Read reads raw bytes: buffered ones first, and directly from the stream when p is no smaller than the buffer.
func (r *Reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if r.Buffered() == 0 {
		if len(p) >= r.size && r.pending == nil {
			return r.src.Read(p)
		}
		if err := r.fill(1); err != nil {
			return 0, err
		}
	}
	n := copy(p, r.buf[r.start:r.end])
	r.start += n
	return n, nil
}

// readFull fills p; the end of the stream is always unexpected.
func (r *Reader) readFull(p []byte) error {
	_, err := io.ReadFull(r, p)
	return inside(err)
}

// fill reads until at least n bytes are buffered.
func (r *Reader) fill(n int) error {
	if n > r.size {
		return bufio.ErrBufferFull
	}
	if r.buf == nil {
		r.buf = make([]byte, r.size)
	}
	if r.start > 0 {
		r.end = copy(r.buf, r.buf[r.start:r.end])
		r.start = 0
	}
	for idle := 0; r.end < n; idle++ {
		if r.pending != nil {
			return r.takePending()
		}
		if idle == maxEmptyReads {
			return io.ErrNoProgress
		}
		var got int
		got, r.pending = r.src.Read(r.buf[r.end:])
		if got > 0 {
			r.end += got
			idle = 0
		}
	}
	return nil
}

func (r *Reader) takePending() error {
	err := r.pending
	r.pending = nil
	if r.Buffered() > 0 {
		return inside(err)
	}
	return err
}

// Uint64 reads an integer.
func (r *Reader) Uint64() (uint64, error) {
	if r.Buffered() < 8 {
		if err := r.fill(8); err != nil {
			return 0, err
		}
	}
	n := binary.LittleEndian.Uint64(r.buf[r.start:])
	r.start += 8
	return n, nil
}

// Uint32 reads an integer below 2^32: opcodes, field counts, levels, frame lengths.
func (r *Reader) Uint32() (uint32, error) {
	n, err := r.atMost(1<<32-1, 'j')
	return uint32(n), err
}

// Uint8 reads an integer below 256: tags and small enumerations.
func (r *Reader) Uint8() (uint8, error) {
	n, err := r.atMost(1<<8-1, 'h')
	return uint8(n), err
}

// Int64 reads an integer below 2^63: times and durations.
// Negative numbers are refused, as upstream does when reading a signed type.
func (r *Reader) Int64() (int64, error) {
	n, err := r.atMost(1<<63-1, 'l')
	return int64(n), err
}

// atMost reads an integer; typeName is the C++ compiler's mangled name of the type, which upstream's text shows.
func (r *Reader) atMost(limit uint64, typeName rune) (uint64, error) {
	n, err := r.Uint64()
	if err == nil && n > limit {
		return 0, Errorf("serialised integer %d is too large for type '%c'", n, typeName)
	}
	return n, err
}

// Bool reads a bool: any integer but zero is true.
func (r *Reader) Bool() (bool, error) {
	n, err := r.Uint64()
	return n != 0, err
}
