package limited

import (
	"errors"
	"io"

	"nixdaemon/protocol/nar"
)

// ErrNotFlat is upstream's text (libutil/archive.cc).
var ErrNotFlat = errors.New("regular file expected")

// OneFile is the handler of an archive that must be one file, whose contents it uses.
type OneFile func(contents io.Reader) error

var _ nar.Handler = OneFile(nil)

// Directory fails.
func (OneFile) Directory(string) error { return ErrNotFlat }

// EndDirectory fails.
func (OneFile) EndDirectory() error { return ErrNotFlat }

// Symlink fails.
func (OneFile) Symlink(string, string) error { return ErrNotFlat }

// Regular uses the contents.
func (use OneFile) Regular(_ string, _ bool, _ uint64, contents io.Reader) error {
	return use(contents)
}
