package wire

import (
	"encoding/binary"
	"errors"
	"io"
)

// frameSize is the contents of a frame when there is enough to fill one. Upstream sends 32 KiB and reads any size.
const frameSize = 64 << 10

// frameHeader is the room that a frame's length takes before its contents.
const frameHeader = 8

var errFramedClosed = errors.New("write framed stream: already closed")

// FramedWriter sends a stream of unknown length as frames. Small writes are gathered into one frame.
type FramedWriter struct {
	w *Writer
	// buf holds a frame with its header, so that both leave in a single write; it grows up to a whole frame.
	buf    []byte
	closed bool
}

// Framed starts a framed stream at the current position.
// Nothing else may be written to w until it is closed.
func (w *Writer) Framed() *FramedWriter { return &FramedWriter{w: w, buf: make([]byte, frameHeader)} }

// NewFramedWriter is [Writer.Framed].
func NewFramedWriter(w *Writer) *FramedWriter { return w.Framed() }

// Write adds p to the contents; full frames are sent on.
func (f *FramedWriter) Write(p []byte) (int, error) {
	if f.closed {
		return 0, errFramedClosed
	}
	total := len(p)
	for len(p) > 0 {
		n := min(len(p), frameHeader+frameSize-len(f.buf))
		f.buf = append(f.buf, p[:n]...)
		p = p[n:]
		if err := f.sendFull(); err != nil {
			return total - len(p), err
		}
	}
	return total, nil
}

// ReadFrom adds everything that r has to the contents, reading straight into frames.
func (f *FramedWriter) ReadFrom(r io.Reader) (int64, error) {
	if f.closed {
		return 0, errFramedClosed
	}
	var total int64
	for idle := 0; idle < maxEmptyReads; idle++ {
		f.grow()
		n, err := r.Read(f.buf[len(f.buf):cap(f.buf)])
		f.buf = f.buf[:len(f.buf)+n]
		total += int64(n)
		if sendErr := f.sendFull(); sendErr != nil {
			return total, sendErr
		}
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, err
		}
		if n > 0 {
			idle = 0
		}
	}
	return total, io.ErrNoProgress
}

func (f *FramedWriter) grow() {
	if cap(f.buf) != frameHeader+frameSize {
		buf := make([]byte, len(f.buf), frameHeader+frameSize)
		copy(buf, f.buf)
		f.buf = buf
	}
}

func (f *FramedWriter) sendFull() error {
	if len(f.buf) < frameHeader+frameSize {
		return nil
	}
	return f.Send()
}

// Send passes gathered contents on to the writer as a frame, which may stay in the writer's buffer.
func (f *FramedWriter) Send() error {
	n := len(f.buf) - frameHeader
	if n == 0 {
		return nil
	}
	binary.LittleEndian.PutUint64(f.buf, uint64(n))
	_, err := f.w.Write(f.buf)
	f.buf = f.buf[:frameHeader]
	return err
}

// Close sends what is gathered and the frame of length 0. It does not flush the writer.
// Upstream's clients end the stream this way even when they give up in the middle of it.
func (f *FramedWriter) Close() error {
	if f.closed {
		return nil
	}
	f.closed = true
	if err := f.Send(); err != nil {
		return err
	}
	return f.w.Uint64(0)
}
