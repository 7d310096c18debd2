package compression

import (
	"encoding/binary"
	"hash/crc32"
	"io"
	"math/bits"

	"github.com/ulikunitz/xz/lzma"
)

// lzipWriter writes one member: what the library makes of LZMA, between lzip's header and trailer instead of its own.
type lzipWriter struct {
	z    *lzma.Writer
	out  *lzipOut
	sum  uint32
	size uint64
}

// lzipOut drops the beginning of what is written to it and counts the rest.
type lzipOut struct {
	w       io.Writer
	drop    int
	written uint64
}

// classicHeader is the length of the header of an .lzma file.
const classicHeader = 13

func (o *lzipOut) Write(p []byte) (int, error) {
	dropped := min(o.drop, len(p))
	o.drop -= dropped
	n, err := o.w.Write(p[dropped:])
	o.written += uint64(n)
	return dropped + n, err
}

func newLzipWriter(level int, w io.Writer) (io.WriteCloser, error) {
	dict := xzDictionary(level)
	out := &lzipOut{w: w, drop: classicHeader}
	head := []byte{'L', 'Z', 'I', 'P', 1, byte(bits.TrailingZeros(uint(dict)))}
	if _, err := w.Write(head); err != nil {
		return nil, err
	}
	z, err := lzma.WriterConfig{DictCap: dict, EOSMarker: true}.NewWriter(out)
	if err != nil {
		return nil, err
	}
	return &lzipWriter{z: z, out: out}, nil
}

func (l *lzipWriter) Write(p []byte) (int, error) {
	n, err := l.z.Write(p)
	l.sum = crc32.Update(l.sum, crc32.IEEETable, p[:n])
	l.size += uint64(n)
	return n, err
}

func (l *lzipWriter) Close() error {
	if err := l.z.Close(); err != nil {
		return err
	}
	trailer := binary.LittleEndian.AppendUint32(nil, l.sum)
	trailer = binary.LittleEndian.AppendUint64(trailer, l.size)
	trailer = binary.LittleEndian.AppendUint64(trailer, lzipHeader+l.out.written+lzipTrailer)
	_, err := l.out.w.Write(trailer)
	return err
}
