package limited

import (
	"errors"
	"io"

	"nixdaemon/protocol"
	"nixdaemon/protocol/pathinfo"
)

// Entries gives the paths of an OpAddMultipleToStore one after the other, then io.EOF. A stream that ends too early is
// io.ErrUnexpectedEOF.
func Entries(entries *protocol.Reader) func() (*pathinfo.Info, io.Reader, error) {
	var left uint64
	counted := false
	return func() (*pathinfo.Info, io.Reader, error) {
		var err error
		if !counted {
			if left, err = entries.Uint64(); err != nil {
				return nil, nil, unexpected(err)
			}
			counted = true
		}
		if left == 0 {
			return nil, nil, io.EOF
		}
		left--
		entries.StartRequest()
		info, err := entries.Info()
		return info, entries, unexpected(err)
	}
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
