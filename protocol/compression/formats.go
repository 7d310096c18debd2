package compression

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"
	"github.com/pierrec/lz4/v4"
	slowxz "github.com/therootcompany/xz"
	"github.com/ulikunitz/xz/lzma"

	"nixdaemon/protocol/compression/xz"
)

// named gives the errors of a decoder the texts that upstream's have.
type named struct {
	io.Reader
	name string
}

// truncated is the error of a stream that ends too early; it is an [io.ErrUnexpectedEOF].
type truncated string

func (t truncated) Error() string        { return string(t) }
func (t truncated) Is(target error) bool { return target == io.ErrUnexpectedEOF }

func (n named) Read(p []byte) (int, error) {
	k, err := n.Reader.Read(p)
	if err == io.ErrUnexpectedEOF {
		err = truncated("failed to read compressed data (truncated " + n.name + " input)")
	}
	return k, err
}

// newXz takes our own reader, but for streams with filters in front of LZMA2, which it leaves to a slower one.
func newXz(d *Decoders, r *bufio.Reader) (io.Reader, func(), error) {
	if filtered(r) {
		z, err := slowxz.NewReader(r, MaxDictionary)
		if err != nil {
			return nil, nil, xzError(err)
		}
		return xzReader{z}, nil, nil
	}
	z, ok := d.xz.Get().(*xz.Reader)
	if ok {
		z.Reset(r)
	} else {
		z = xz.NewReader(r)
		z.Limit(MaxDictionary)
	}
	return xzReader{z}, func() {
		z.Reset(nil)
		d.xz.Put(z)
	}, nil
}

// filtered tells whether the first block of a stream has more filters than one ("The .xz File Format", 3.1.2).
func filtered(r *bufio.Reader) bool {
	const streamHeader, filters = 12, 3
	head, err := r.Peek(streamHeader + 2)
	return err == nil && head[streamHeader] != 0 && head[streamHeader+1]&filters != 0
}

// xzReader gives liblzma's texts to errors.
type xzReader struct{ z io.Reader }

func (x xzReader) Read(p []byte) (int, error) {
	n, err := x.z.Read(p)
	return n, xzError(err)
}

func xzError(err error) error {
	switch {
	case err == nil || err == io.EOF:
		return err
	case err == slowxz.ErrBuf || err == io.ErrUnexpectedEOF:
		return truncated("failed to read compressed data (Lzma library error: No progress is possible)")
	case err == slowxz.ErrMemlimit, errors.Is(err, xz.ErrFilter):
		return fmt.Errorf("failed to read compressed data (Lzma library error: Out of memory): %w", err)
	case err == slowxz.ErrFormat, err == slowxz.ErrOptions, err == slowxz.ErrData, err == slowxz.ErrUnsupportedCheck,
		errors.Is(err, xz.ErrFormat), errors.Is(err, xz.ErrData):
		return fmt.Errorf("failed to read compressed data (Lzma library error: Corrupted input data): %w", err)
	}
	return err
}

// newGzip reads members one by one, since what follows the last is nothing to complain about.
func newGzip(_ *Decoders, r *bufio.Reader) (io.Reader, func(), error) {
	z, err := gzip.NewReader(r)
	if err != nil {
		return nil, nil, err
	}
	z.Multistream(false)
	return named{&members{r: r, now: z, magic: "\x1f\x8b\x08", next: func() error {
		err := z.Reset(r)
		z.Multistream(false)
		return err
	}}, "gzip"}, nil, nil
}

func newBzip2(_ *Decoders, r *bufio.Reader) (io.Reader, func(), error) {
	return named{tail{bzip2.NewReader(r)}, "bzip2"}, nil, nil
}

// tail ignores what follows the last member of a bzip2 stream.
type tail struct{ r io.Reader }

func (t tail) Read(p []byte) (int, error) {
	n, err := t.r.Read(p)
	if s, ok := errors.AsType[bzip2.StructuralError](err); ok && s == "bad magic value in continuation file" {
		err = io.EOF
	}
	return n, err
}

func newLz4(_ *Decoders, r *bufio.Reader) (io.Reader, func(), error) {
	return named{lz4.NewReader(r), "lz4"}, nil, nil
}

func newBrotli(_ *Decoders, r *bufio.Reader) (io.Reader, func(), error) {
	return brotliReader{brotli.NewReader(r)}, nil, nil
}

type brotliReader struct{ r *brotli.Reader }

func (b brotliReader) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if err == io.ErrUnexpectedEOF {
		err = truncated("error while decompressing brotli file")
	}
	return n, err
}

func newLzma(_ *Decoders, r *bufio.Reader) (io.Reader, func(), error) {
	if _, err := r.Peek(1); err == io.EOF {
		return nil, nil, ErrUnrecognized
	}
	z, err := lzma.ReaderConfig{DictCap: MaxDictionary}.NewReader(r)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrUnrecognized, err)
	}
	return named{z, "lzma"}, nil, nil
}

// members is a stream of members, each of which ends where the next may begin.
type members struct {
	r     *bufio.Reader
	now   io.Reader
	magic string
	next  func() error // begins another member
}

func (m *members) Read(p []byte) (int, error) {
	for {
		n, err := m.now.Read(p)
		if err != io.EOF || n > 0 {
			if err == io.EOF {
				err = nil
			}
			return n, err
		}
		head, err := m.r.Peek(len(m.magic))
		if err != nil && err != io.EOF {
			return 0, err
		}
		if !bytes.Equal(head, []byte(m.magic)) {
			return 0, io.EOF
		}
		if err := m.next(); err != nil {
			return 0, err
		}
	}
}

const (
	lzipHeader  = 6  // magic, version, coded dictionary size
	lzipTrailer = 20 // CRC-32, size of contents, size of the member
)

// newLzip reads lzip's members: raw LZMA with fixed properties and an end mark, between a header and a trailer.
func newLzip(_ *Decoders, r *bufio.Reader) (io.Reader, func(), error) {
	l := &lzipMember{r: r, sum: crc32.NewIEEE()}
	if err := l.begin(); err != nil {
		return nil, nil, err
	}
	return named{&members{r: r, now: l, magic: "LZIP", next: l.begin}, "lzip"}, nil, nil
}

type lzipMember struct {
	r   *bufio.Reader
	z   io.Reader
	sum interface {
		io.Writer
		Sum32() uint32
		Reset()
	}
	size uint64
}

func (l *lzipMember) begin() error {
	var head [lzipHeader]byte
	if _, err := io.ReadFull(l.r, head[:]); err != nil {
		return io.ErrUnexpectedEOF
	}
	bits, sixteenths := head[5]&0x1f, uint32(head[5]>>5)
	if head[4] > 1 || bits < 12 || bits > 29 {
		return fmt.Errorf("%w: lzip version %d, dictionary %#x", ErrUnrecognized, head[4], head[5])
	}
	dict := uint32(1) << bits
	dict -= dict / 16 * sixteenths
	if dict > MaxDictionary {
		return fmt.Errorf("read lzip member: dictionary of %d bytes", dict)
	}
	// The header of an .lzma file with lzip's properties (lc=3, lp=0, pb=2) and of unknown size.
	classic := append(binary.LittleEndian.AppendUint32([]byte{0x5d}, dict), bytes.Repeat([]byte{0xff}, 8)...)
	z, err := lzma.ReaderConfig{DictCap: MaxDictionary}.NewReader(&prefixed{classic, l.r})
	if err != nil {
		return fmt.Errorf("read lzip member: %w", err)
	}
	l.z, l.size = z, 0
	l.sum.Reset()
	return nil
}

func (l *lzipMember) Read(p []byte) (int, error) {
	n, err := l.z.Read(p)
	l.size += uint64(n)
	_, _ = l.sum.Write(p[:n]) // never fails
	if err != io.EOF {
		return n, err
	}
	return n, l.end()
}

// end checks the trailer.
func (l *lzipMember) end() error {
	if l.z == nil {
		return io.EOF
	}
	l.z = bytes.NewReader(nil)
	if l.size == finished {
		return io.EOF
	}
	var trailer [lzipTrailer]byte
	if _, err := io.ReadFull(l.r, trailer[:]); err != nil {
		return io.ErrUnexpectedEOF
	}
	if binary.LittleEndian.Uint32(trailer[:]) != l.sum.Sum32() || binary.LittleEndian.Uint64(trailer[4:]) != l.size {
		return errors.New("failed to read compressed data (Lzip: CRC or size does not match)")
	}
	l.size = finished
	return io.EOF
}

// finished as size marks a member whose trailer was read.
const finished = ^uint64(0)

// prefixed reads some bytes and then those of a buffer, one at a time if asked so: its reader takes no more than it
// needs.
type prefixed struct {
	head []byte
	r    *bufio.Reader
}

func (x *prefixed) Read(p []byte) (int, error) {
	if len(x.head) > 0 {
		n := copy(p, x.head)
		x.head = x.head[n:]
		return n, nil
	}
	return x.r.Read(p)
}

func (x *prefixed) ReadByte() (byte, error) {
	if len(x.head) > 0 {
		b := x.head[0]
		x.head = x.head[1:]
		return b, nil
	}
	return x.r.ReadByte()
}
