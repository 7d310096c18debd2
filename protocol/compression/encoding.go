package compression

import (
	"bufio"
	"compress/flate"
	"compress/zlib"
	"io"

	"github.com/klauspost/compress/gzip"
)

// Encoding opens what came with a content encoding of HTTP: gzip (or x-gzip), deflate, br, zstd, and xz, which some
// caches use although it is not registered. It is nil, nil for an encoding that is none of these.
func (d *Decoders) Encoding(name string, r io.Reader) (io.ReadCloser, error) {
	f, ok := map[string]format{"gzip": {"", newStrictGzip}, "x-gzip": {"", newStrictGzip}, "deflate": {"", newDeflate},
		"br": formats["br"], "zstd": formats["zstd"], "xz": formats["xz"]}[name]
	if !ok {
		return nil, nil
	}
	return d.open(f, r)
}

// newStrictGzip wants every byte to be gzip, as libcurl does.
func newStrictGzip(_ *Decoders, r *bufio.Reader) (io.Reader, func(), error) {
	z, err := gzip.NewReader(r)
	if err != nil {
		return nil, nil, err
	}
	return z, nil, nil
}

// newDeflate takes the deflate of HTTP: by the standard in zlib's frame, by some servers without.
func newDeflate(_ *Decoders, r *bufio.Reader) (io.Reader, func(), error) {
	head, err := r.Peek(2)
	if err == nil && head[0]&0x0f == 8 && (uint(head[0])<<8|uint(head[1]))%31 == 0 {
		z, err := zlib.NewReader(r)
		return z, nil, err
	}
	return flate.NewReader(r), nil, nil
}
