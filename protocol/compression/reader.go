package compression

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/zstd"
)

const (
	// MaxDictionary is the largest dictionary of xz, lzip and lzma that is accepted, in bytes. "xz -9" makes 64 MiB.
	MaxDictionary = 128 << 20
	// MaxWindow is the largest window of zstd that is accepted, in bytes; libzstd's default, and so libarchive's.
	MaxWindow = 128 << 20
)

// bufferSize is how much compressed data is read at once.
const bufferSize = 64 << 10

// ErrUnrecognized is returned for a stream that is not in the format that its method says.
var ErrUnrecognized = errors.New("input compression not recognized")

// Decoders opens compressed streams. It keeps decoders and buffers that are not in use for the next stream. The zero
// value is ready; methods may be called from any goroutine.
type Decoders struct {
	zstd    sync.Pool // of *zstd.Decoder
	xz      sync.Pool // of *xz.Reader
	buffers sync.Pool // of *bufio.Reader
}

// NewReader opens a stream with decoders of its own, as [Decoders.NewReader] does.
func NewReader(method string, r io.Reader) (io.ReadCloser, error) {
	return new(Decoders).NewReader(method, r)
}

// NewReader gives the contents of r, which was compressed by a method; "", "none" and "identity" mean that it was not.
// An error of r comes through as it is. The one who reads closes the result, which gives decoders back and does not
// close r. Reading may take more from r than the compressed stream has.
func (d *Decoders) NewReader(method string, r io.Reader) (io.ReadCloser, error) {
	switch method {
	case "", "none", "identity":
		return io.NopCloser(r), nil
	}
	f, ok := formats[method]
	if !ok {
		return nil, fmt.Errorf("failed to get libarchive filter by name: No such filter '%s'", method)
	}
	return d.open(f, r)
}

// Known tells whether streams of a method can be read.
func Known(method string) bool {
	_, ok := formats[method]
	return ok || method == "" || method == "none" || method == "identity"
}

// Sniff opens a stream whose method nobody has told, by its first bytes, and says which it is. One that looks like none
// is given as it is, with the method "none".
func (d *Decoders) Sniff(r io.Reader) (contents io.ReadCloser, method string, err error) {
	buffered := d.buffer(r)
	for _, name := range []string{"gzip", "bzip2", "xz", "zstd", "lz4", "lzip", "compress"} {
		if head, _ := buffered.Peek(len(formats[name].magic)); bytes.Equal(head, []byte(formats[name].magic)) {
			contents, err = d.decode(formats[name], buffered)
			return contents, name, err
		}
	}
	return &stream{Reader: buffered, release: func() { d.keep(buffered) }}, "none", nil
}

// format is how one method is read.
type format struct {
	magic string // how every stream begins; none for those that have no such thing
	open  func(d *Decoders, r *bufio.Reader) (io.Reader, func(), error)
}

// formats lists what can be read, by method. The functions return what to do at the end, or nil.
var formats = map[string]format{
	"br":       {"", newBrotli},
	"bzip2":    {"BZh", newBzip2},
	"compress": {"\x1f\x9d", newCompress},
	"gzip":     {"\x1f\x8b\x08", newGzip},
	"lz4":      {"\x04\x22\x4d\x18", newLz4},
	"lzip":     {"LZIP", newLzip},
	"lzma":     {"", newLzma},
	"xz":       {"\xfd7zXZ\x00", newXz},
	"zstd":     {"\x28\xb5\x2f\xfd", newZstd},
}

func (d *Decoders) open(f format, r io.Reader) (io.ReadCloser, error) {
	return d.decode(f, d.buffer(r))
}

func (d *Decoders) decode(f format, buffered *bufio.Reader) (io.ReadCloser, error) {
	release := func() { d.keep(buffered) }
	if f.magic != "" {
		head, err := buffered.Peek(len(f.magic))
		if err != nil && err != io.EOF {
			release()
			return nil, err
		}
		if !bytes.Equal(head, []byte(f.magic)) && !skippable(f, head) {
			release()
			return nil, ErrUnrecognized
		}
	}
	contents, end, err := f.open(d, buffered)
	if err != nil {
		release()
		return nil, err
	}
	if end != nil {
		first := release
		release = func() { end(); first() }
	}
	return &stream{Reader: contents, release: release}, nil
}

// skippable tells the frames that may stand before those of zstd and lz4.
func skippable(f format, head []byte) bool {
	return (f.magic == formats["zstd"].magic || f.magic == formats["lz4"].magic) && len(head) == 4 &&
		head[0]&0xf0 == 0x50 && string(head[1:]) == "\x2a\x4d\x18"
}

// stream is decoded contents. It may be closed more than once.
type stream struct {
	io.Reader
	release func()
}

func (s *stream) Close() error {
	if s.release != nil {
		s.release()
		s.release, s.Reader = nil, closedReader{}
	}
	return nil
}

// WriteTo lets decoders write that can.
func (s *stream) WriteTo(w io.Writer) (int64, error) { return io.Copy(w, s.Reader) }

type closedReader struct{}

func (closedReader) Read([]byte) (int, error) {
	return 0, errors.New("read compressed stream: closed already")
}

func (d *Decoders) buffer(r io.Reader) *bufio.Reader {
	if b, ok := d.buffers.Get().(*bufio.Reader); ok {
		b.Reset(r)
		return b
	}
	return bufio.NewReaderSize(r, bufferSize)
}

func (d *Decoders) keep(b *bufio.Reader) {
	b.Reset(nil)
	d.buffers.Put(b)
}

func newZstd(d *Decoders, r *bufio.Reader) (io.Reader, func(), error) {
	z, ok := d.zstd.Get().(*zstd.Decoder)
	if ok {
		if err := z.Reset(r); err != nil {
			return nil, nil, err
		}
	} else {
		var err error
		// In the caller's goroutine: that of the network runs beside it, and such a decoder needs no end.
		z, err = zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxWindow(MaxWindow), zstd.WithDecodeBuffersBelow(0))
		if err != nil {
			return nil, nil, err
		}
	}
	return named{z, "Zstd"}, func() {
		// A decoder lets go of its source by this, and keeps its buffers.
		if z.Reset(nil) == nil {
			d.zstd.Put(z)
		}
	}, nil
}
