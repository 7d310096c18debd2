package nar

import (
	"bufio"
	"io"

	"nixdaemon/protocol/wire"
)

// Buffered is a reader with a buffer that can be looked into, such as [wire.Reader] and [bufio.Reader].
type Buffered interface {
	io.Reader

	// Buffered returns how many bytes Peek and Discard can have without reading further.
	Buffered() int
	Peek(n int) ([]byte, error)
	Discard(n int) (int, error)
}

var _ Buffered = (*wire.Reader)(nil)

// unbuffered reads exactly what is asked for, from a reader without a buffer to look into.
type unbuffered struct{ io.Reader }

func (unbuffered) Buffered() int              { return 0 }
func (unbuffered) Peek(int) ([]byte, error)   { return nil, io.ErrNoProgress }
func (unbuffered) Discard(n int) (int, error) { return 0, io.ErrNoProgress }

const (
	// chunkSize is how much of a large file moves at once.
	chunkSize = 128 << 10

	// minChunk is the least that is worth moving past the reader's buffer.
	minChunk = 4 << 10

	// largePiece is what of a large file is worth moving by itself because it is buffered.
	largePiece = 32 << 10

	// teeSize is how much of the archive gathers before a tee passes it on.
	teeSize = 32 << 10

	// teeDirect is what is passed on as it is, since copying it costs more than a write.
	teeDirect = 4 << 10
)

// Lender is a destination of a copy that lends memory to be filled, instead of
// being given what must be copied.
type Lender interface {
	io.Writer

	// Space lends memory for at least one byte. It is taken back by the next call of Advance or Write.
	Space() ([]byte, error)
	// Advance says how many bytes were put there. They stay as they are until the next call of Space or Write.
	Advance(n int) error
}

// source is what the parser reads: exactly the bytes asked for, each passed to tee if there is one.
type source struct {
	in Buffered
	// plain is set if in has no buffer.
	plain bool
	// small receives strings that the buffer does not hold whole; long, made when needed, those too long for it.
	small [64]byte
	long  []byte
	// chunk is allocated for the first file that the buffer does not hold whole.
	chunk []byte

	tee     io.Writer // nil for none
	teeBuf  []byte    // consumed but not yet passed to tee
	teeSize int64     // passed to tee
}

// begin makes ready for another archive, with the memory of the one before.
func (s *source) begin(r io.Reader, tee io.Writer) {
	s.plain = false
	s.tee, s.teeBuf, s.teeSize = tee, s.teeBuf[:0], 0
	if in, ok := r.(Buffered); ok {
		s.in = in
	} else {
		s.in, s.plain = unbuffered{r}, true
	}
}

// next consumes n bytes, at most maxString. They stay valid until the next call.
func (s *source) next(n int) ([]byte, error) {
	if n == 0 {
		return nil, nil
	}
	if s.in.Buffered() >= n {
		return s.take(n)
	}
	b := s.memory(n)
	if _, err := io.ReadFull(s.in, b); err != nil {
		return nil, unexpected(err)
	}
	if s.tee != nil {
		return b, s.copyToTee(b)
	}
	return b, nil
}

// take consumes n bytes that are buffered.
func (s *source) take(n int) ([]byte, error) {
	b, err := s.in.Peek(n)
	if err != nil {
		return nil, err
	}
	if _, err := s.in.Discard(n); err != nil {
		return nil, err
	}
	if s.tee != nil {
		return b, s.copyToTee(b)
	}
	return b, nil
}

func (s *source) memory(n int) []byte {
	if n <= len(s.small) {
		return s.small[:n]
	}
	if s.long == nil {
		s.long = make([]byte, maxString)
	}
	return s.long[:n]
}

// accept consumes want if it comes next and is buffered already.
func (s *source) accept(want string) bool {
	if s.in.Buffered() < len(want) {
		return false
	}
	b, _ := s.in.Peek(len(want))
	if string(b) != want {
		return false
	}
	_, _ = s.in.Discard(len(want))
	if s.tee != nil {
		s.teeBuf = append(s.teeBuf, want...)
	}
	return true
}

// read reads into p as io.Reader does.
func (s *source) read(p []byte) (int, error) {
	n, err := s.in.Read(p)
	if s.tee != nil && n > 0 {
		if teeErr := s.copyToTee(p[:n]); teeErr != nil {
			return n, teeErr
		}
	}
	return n, unexpected(err)
}

// some returns between 1 and limit bytes of contents, valid until the next call:
// out of the reader's buffer what is or fits there, and otherwise a whole chunk,
// so that a handler writes large pieces however small those are in which they arrive.
// With an error there may be fewer.
func (s *source) some(limit uint64) ([]byte, error) {
	if limit <= minChunk && !s.plain {
		if _, err := s.in.Peek(int(limit)); err != nil && err != bufio.ErrBufferFull {
			return nil, unexpected(err)
		}
	}
	if n := min(limit, chunkSize, uint64(s.in.Buffered())); n == limit || n >= largePiece {
		return s.take(int(n))
	}
	if lender, ok := s.tee.(Lender); ok {
		return s.borrow(lender, limit)
	}
	n := int(min(limit, chunkSize))
	if len(s.chunk) < n {
		s.chunk = make([]byte, n)
	}
	n, err := io.ReadFull(s.in, s.chunk[:n])
	b := s.chunk[:n]
	if s.tee != nil {
		if err := s.copyToTee(b); err != nil {
			return b, err
		}
	}
	return b, unexpected(err)
}

// borrow reads contents to where the tee wants them.
func (s *source) borrow(tee Lender, limit uint64) ([]byte, error) {
	if err := s.flushTee(); err != nil {
		return nil, err
	}
	b, err := tee.Space()
	if err != nil {
		return nil, err
	}
	n, err := io.ReadFull(s.in, b[:min(limit, uint64(len(b)))])
	s.teeSize += int64(n)
	if e := tee.Advance(n); e != nil {
		return b[:n], e
	}
	return b[:n], unexpected(err)
}

func (s *source) copyToTee(b []byte) error {
	if len(b) >= teeDirect || len(s.teeBuf)+len(b) >= teeSize {
		if err := s.flushTee(); err != nil {
			return err
		}
		if len(b) >= teeDirect {
			return s.writeTee(b)
		}
	}
	s.teeBuf = append(s.teeBuf, b...)
	return nil
}

func (s *source) flushTee() error {
	if len(s.teeBuf) == 0 {
		return nil
	}
	err := s.writeTee(s.teeBuf)
	s.teeBuf = s.teeBuf[:0]
	return err
}

func (s *source) writeTee(b []byte) error {
	n, err := s.tee.Write(b)
	s.teeSize += int64(n)
	return err
}

// unexpected turns the end of the stream into an unexpected one: an archive says itself where it ends.
func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
