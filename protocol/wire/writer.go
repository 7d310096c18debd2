package wire

import (
	"encoding/binary"
	"io"
	"unsafe"
)

// Writer encodes primitives to a stream. What it buffers reaches the stream at [Writer.Flush] or when the buffer is full.
// Its first error sticks: a stream that lost bytes is of no use.
type Writer struct {
	dst  io.Writer
	buf  []byte // nil until the first write; len is what waits, cap the size
	size int
	err  error
}

// NewWriter returns a writer to w with a buffer of [DefaultBufferSize].
func NewWriter(w io.Writer) *Writer { return NewWriterSize(w, DefaultBufferSize) }

// NewWriterSize returns a writer to w with a buffer of size bytes (at least 64), allocated at first use.
func NewWriterSize(w io.Writer, size int) *Writer {
	return &Writer{dst: w, size: max(size, minBufferSize)}
}

// Reset makes the writer write to dst, forgetting buffered bytes and its error but keeping its buffer.
func (w *Writer) Reset(dst io.Writer) {
	*w = Writer{dst: dst, buf: w.buf[:0], size: w.size}
}

// Buffered returns the number of bytes that wait for [Writer.Flush].
func (w *Writer) Buffered() int { return len(w.buf) }

// Flush writes what is buffered to the stream.
func (w *Writer) Flush() error {
	if w.err != nil || len(w.buf) == 0 {
		return w.err
	}
	err := w.direct(w.buf)
	w.buf = w.buf[:0]
	return err
}

func (w *Writer) direct(p []byte) error {
	n, err := w.dst.Write(p)
	if err == nil && n < len(p) {
		err = io.ErrShortWrite
	}
	w.err = err
	return err
}

// room makes sure that n bytes, at most 64, can be appended.
func (w *Writer) room(n int) error {
	if w.err != nil {
		return w.err
	}
	if w.buf == nil {
		w.buf = make([]byte, 0, w.size)
	}
	if cap(w.buf)-len(w.buf) < n {
		return w.Flush()
	}
	return nil
}

// Write writes raw bytes; those that would fill the buffer go past it.
func (w *Writer) Write(p []byte) (int, error) {
	if err := w.room(0); err != nil {
		return 0, err
	}
	if len(p) <= cap(w.buf)-len(w.buf) {
		w.buf = append(w.buf, p...)
		return len(p), nil
	}
	if err := w.Flush(); err != nil {
		return 0, err
	}
	if len(p) < cap(w.buf) {
		w.buf = append(w.buf, p...)
		return len(p), nil
	}
	if err := w.direct(p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// WriteString writes raw bytes given as a string, without length or padding.
func (w *Writer) WriteString(s string) (int, error) {
	return w.Write(unsafe.Slice(unsafe.StringData(s), len(s))) // writers must not modify their argument
}

// Uint64 writes an integer.
func (w *Writer) Uint64(n uint64) error {
	if err := w.room(8); err != nil {
		return err
	}
	w.buf = binary.LittleEndian.AppendUint64(w.buf, n)
	return nil
}

// Int64 writes a signed integer in two's complement, as upstream writes times and durations.
func (w *Writer) Int64(n int64) error { return w.Uint64(uint64(n)) }

// Bool writes 1 for true, 0 for false.
func (w *Writer) Bool(b bool) error {
	if b {
		return w.Uint64(1)
	}
	return w.Uint64(0)
}

// String writes the length of s, its bytes, and zeros up to a multiple of 8.
func (w *Writer) String(s string) error {
	if err := w.Uint64(uint64(len(s))); err != nil {
		return err
	}
	if _, err := w.WriteString(s); err != nil {
		return err
	}
	return w.pad(len(s))
}

// Concat writes the parts as one string, without putting them together first.
func (w *Writer) Concat(parts ...string) error {
	n := 0
	for _, part := range parts {
		n += len(part)
	}
	if err := w.Uint64(uint64(n)); err != nil {
		return err
	}
	for _, part := range parts {
		if _, err := w.WriteString(part); err != nil {
			return err
		}
	}
	return w.pad(n)
}

// Bytes writes b as [Writer.String] writes a string.
func (w *Writer) Bytes(b []byte) error {
	return w.String(unsafe.String(unsafe.SliceData(b), len(b))) // not kept beyond the call
}

func (w *Writer) pad(n int) error {
	var zero [8]byte
	missing := padded(n) - n
	if missing == 0 {
		return w.err
	}
	if err := w.room(missing); err != nil {
		return err
	}
	w.buf = append(w.buf, zero[:missing]...)
	return nil
}

// Count writes the number of elements of a list that follows.
func (w *Writer) Count(n int) error { return w.Uint64(uint64(n)) }

// Strings writes a list of strings in the order given. Sets are written sorted: the caller sorts.
func (w *Writer) Strings(list []string) error {
	if err := w.Count(len(list)); err != nil {
		return err
	}
	for _, s := range list {
		if err := w.String(s); err != nil {
			return err
		}
	}
	return nil
}
