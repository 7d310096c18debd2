package substitute

import (
	"compress/bzip2"
	"compress/gzip"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// decompress reads a compressed archive; closing it closes the body.
func decompress(method string, body io.ReadCloser) (io.ReadCloser, error) {
	var r io.Reader
	var err error
	switch method {
	case "none":
		return body, nil
	case "bzip2":
		r = bzip2.NewReader(body)
	case "gzip":
		r, err = gzip.NewReader(body)
	case "xz":
		r, err = xz.NewReader(body)
	case "zstd":
		r, err = zstd.NewReader(body)
	default:
		err = fmt.Errorf("unknown compression method '%s'", method)
	}
	if err != nil {
		body.Close()
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{r, body}, nil
}
