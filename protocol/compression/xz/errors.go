package xz

import (
	"errors"
	"io"
)

var (
	// ErrData is returned when the data is not what any encoder writes.
	ErrData = errors.New("xz: data is corrupt")
	// ErrFilter is returned for blocks with filters other than LZMA2, and for larger dictionaries than 1 GiB.
	ErrFilter = errors.New("xz: unsupported filter")
	// ErrFormat is returned for what is no xz stream at all.
	ErrFormat = errors.New("xz: not an xz stream")
)

// cut makes the end of input in mid-stream an error.
func cut(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
