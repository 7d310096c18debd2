package forward

import (
	"errors"
	"fmt"
	"io"
	"os"

	"nixdaemon/protocol/nar"
)

// archive is the one archive that begins at a place of a stream. What follows
// it there is left alone; close leaves the stream right behind it, however much
// of it was wanted.
type archive struct {
	stream io.Reader
	taken  bool
	pipe   *io.PipeReader // nil until the first Read
	done   chan error
}

// WriteTo copies the archive. When w wants no more, the rest is skipped.
func (a *archive) WriteTo(w io.Writer) (int64, error) {
	a.taken = true
	to := &willing{w: w}
	n, err := nar.Copy(to, a.stream)
	if err == nil {
		err = to.err
	}
	return n, err
}

// willing passes on what its receiver wants, and drops the rest.
type willing struct {
	w   io.Writer
	err error
}

// Write never fails.
func (d *willing) Write(p []byte) (int, error) {
	if d.err == nil {
		_, d.err = d.w.Write(p)
	}
	return len(p), nil
}

// Read reads the archive: for daemons that ask for it piece by piece, since
// nothing but taking it apart tells where it ends.
func (a *archive) Read(p []byte) (int, error) {
	if a.pipe == nil {
		r, w := io.Pipe()
		a.taken, a.pipe, a.done = true, r, make(chan error, 1)
		go func() {
			_, err := a.WriteTo(w)
			w.CloseWithError(err)
			a.done <- err
		}()
	}
	return a.pipe.Read(p)
}

// close moves the stream behind the archive. Its error is that of reading it.
func (a *archive) close() error {
	switch {
	case !a.taken:
		return nar.Skip(a.stream)
	case a.pipe == nil:
		return nil
	}
	a.pipe.Close()
	if err := <-a.done; !errors.Is(err, io.ErrClosedPipe) {
		return err
	}
	return nil
}

// keep gives a file that has no name any more, at its start, with what fill
// writes to it.
func keep(fill func(io.Writer) error) (_ *os.File, err error) {
	f, err := os.CreateTemp("", "nix-daemon-")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	if err := os.Remove(f.Name()); err != nil {
		return nil, err
	}
	if err := fill(f); err != nil {
		return nil, fmt.Errorf("keep data for another daemon: %w", err)
	}
	_, err = f.Seek(0, io.SeekStart)
	return f, err
}

// flatArchive gives the archive of a file with these contents, whose size must
// be known before the first of them.
func flatArchive(contents io.Reader) (*os.File, error) {
	var size int64
	file, err := keep(func(w io.Writer) (err error) {
		size, err = io.Copy(w, contents)
		return err
	})
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return keep(func(w io.Writer) error {
		out := nar.NewWriter(w)
		if err := out.Regular("", false, uint64(size), file); err != nil {
			return err
		}
		return out.Close()
	})
}
