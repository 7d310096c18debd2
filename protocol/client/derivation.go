package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/nar"
	"nixdaemon/protocol/storepath"
	"nixdaemon/protocol/wire"
)

// ReadDerivation reads a derivation out of the store, through its NAR.
func (c *Client) ReadDerivation(ctx context.Context, p storepath.Path) (*derivation.Derivation, error) {
	if err := p.RequireDerivation(); err != nil {
		return nil, err
	}
	var file textFile
	parsed := make(chan error, 1)
	r, w := io.Pipe()
	go func() {
		err := nar.Parse(r, &file)
		r.CloseWithError(err)
		parsed <- err
	}()
	err := c.Dump(ctx, p, w)
	w.CloseWithError(err)
	if parseErr := <-parsed; err == nil {
		err = parseErr
	}
	if err != nil {
		return nil, err
	}
	return derivation.ParseFile(c.o.Dir, p, file.text.String(), c.o.Features)
}

// errNoFile says that a derivation's path holds something else.
var errNoFile = errors.New("derivation is not a regular file")

// textFile is the handler of an archive that is one file of bounded size.
type textFile struct{ text strings.Builder }

// Directory fails.
func (*textFile) Directory(string) error { return errNoFile }

// EndDirectory fails.
func (*textFile) EndDirectory() error { return errNoFile }

// Symlink fails.
func (*textFile) Symlink(string, string) error { return errNoFile }

// Regular keeps the contents.
func (f *textFile) Regular(_ string, _ bool, size uint64, contents io.Reader) error {
	if size > wire.MaxString {
		return fmt.Errorf("derivation has %d bytes, more than can be read", size)
	}
	_, err := io.Copy(&f.text, contents)
	return err
}
