package builtin

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"compress/flate"
	"compress/zlib"
	"io"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// maxZstdWindow is what libzstd accepts by default, and with it libcurl and libarchive.
const maxZstdWindow = 128 << 20

// decoder undoes one compression.
type decoder func(r *bufio.Reader) (io.Reader, error)

func newGzip(r *bufio.Reader) (io.Reader, error) { return gzip.NewReader(r) }

func newBzip2(r *bufio.Reader) (io.Reader, error) { return bzip2.NewReader(r), nil }

func newBrotli(r *bufio.Reader) (io.Reader, error) { return brotli.NewReader(r), nil }

func newXz(r *bufio.Reader) (io.Reader, error) { return xz.NewReader(r) }

// newZstd decodes in the caller's goroutine, so that nothing has to be closed.
func newZstd(r *bufio.Reader) (io.Reader, error) {
	return zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(maxZstdWindow))
}

// newDeflate takes the deflate of HTTP: by the standard in zlib's frame, by some servers without.
func newDeflate(r *bufio.Reader) (io.Reader, error) {
	head, err := r.Peek(2)
	if err == nil && head[0]&0x0f == 8 && (uint(head[0])<<8|uint(head[1]))%31 == 0 {
		return zlib.NewReader(r)
	}
	return flate.NewReader(r), nil
}

// sniff finds the decoder for a compressed file by its first bytes. It is nil for others.
func sniff(r *bufio.Reader) (name string, d decoder) {
	head, _ := r.Peek(6) // a shorter file matches nothing longer
	for _, format := range []struct {
		magic, name string
		decoder     decoder
	}{
		{"\x1f\x8b", "gzip", newGzip},
		{"BZh", "bzip2", newBzip2},
		{"\xfd7zXZ\x00", "xz", newXz},
		{"\x28\xb5\x2f\xfd", "zstd", newZstd},
	} {
		if bytes.HasPrefix(head, []byte(format.magic)) {
			return format.name, format.decoder
		}
	}
	return "", nil
}
