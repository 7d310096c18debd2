package nar

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
)

// writeSize is how much a Writer gathers before it writes.
const writeSize = 64 << 10

// Writer serialises one tree. It is a [Handler]; the first call makes the root, whose name is ignored.
// Calls that would not give an archive that [Parse] accepts fail with its error. The first error sticks.
type Writer struct {
	dst io.Writer
	// buf grows up to writeSize, so that small archives cost little; contents are read straight into it.
	buf []byte
	err error

	open []string // of each open directory, the name of its last entry
	left uint64   // of the contents of the file begun last
	size uint64   // of these contents altogether
	file bool     // whether a file is open
	done bool     // whether the root is complete
}

var _ Handler = (*Writer)(nil)

// NewWriter returns a writer of an archive to w, which needs no buffer of its own. Call [Writer.Close] at the end.
func NewWriter(w io.Writer) *Writer { return &Writer{dst: w} }

// Reset prepares the writer for another archive, keeping its buffer.
func (w *Writer) Reset(dst io.Writer) {
	*w = Writer{dst: dst, buf: w.buf[:0], open: w.open[:0]}
}

// Directory begins a directory. Its entries must follow in increasing bytewise order of their names.
func (w *Writer) Directory(name string) error {
	if err := w.begin(name, "directory"); err != nil {
		return err
	}
	w.open = append(w.open, "")
	return w.flushFull()
}

// EndDirectory ends the directory begun last.
func (w *Writer) EndDirectory() error {
	if err := w.endFile(); err != nil {
		return err
	}
	if len(w.open) == 0 {
		return w.fail(errors.New("write archive: no directory is open"))
	}
	w.open = w.open[:len(w.open)-1]
	return w.end()
}

// Symlink writes a symbolic link.
func (w *Writer) Symlink(name, target string) error {
	if err := w.begin(name, "symlink"); err != nil {
		return err
	}
	if !ValidTarget(target) {
		return w.fail(errTarget())
	}
	w.buf = appendString(appendString(w.buf, "target"), target)
	return w.end()
}

// Regular writes a regular file with size bytes of contents.
// It reads exactly as many; fewer is [io.ErrUnexpectedEOF].
func (w *Writer) Regular(name string, executable bool, size uint64, contents io.Reader) error {
	if err := w.Create(name, executable, size); err != nil {
		return err
	}
	for idle := 0; w.left > 0; idle++ {
		if err := w.flushFull(); err != nil {
			return err
		}
		n, err := contents.Read(w.space())
		w.buf = w.buf[:len(w.buf)+n]
		w.left -= uint64(n)
		if n > 0 {
			idle = 0
		} else if err == nil && idle == 100 {
			err = io.ErrNoProgress
		}
		if err != nil && w.left > 0 {
			return w.fail(fmt.Errorf("read contents of '%s': %w", name, unexpected(err)))
		}
	}
	return w.endFile()
}

// space returns free room in the buffer for the contents, growing it towards writeSize as the file needs it.
func (w *Writer) space() []byte {
	want := int(min(w.left, uint64(writeSize-len(w.buf))))
	w.buf = slices.Grow(w.buf, want)
	return w.buf[len(w.buf) : len(w.buf)+want]
}

// Create begins a regular file whose size bytes of contents are given to [Writer.Write] next.
// The file ends with the next call of another method, which fails unless all were given.
func (w *Writer) Create(name string, executable bool, size uint64) error {
	if err := w.begin(name, "regular"); err != nil {
		return err
	}
	if executable {
		w.buf = appendString(appendString(w.buf, "executable"), "")
	}
	w.buf = appendString(w.buf, "contents")
	w.buf = binary.LittleEndian.AppendUint64(w.buf, size)
	w.file, w.left, w.size = true, size, size
	return nil
}

// Write writes contents of the file begun by [Writer.Create].
func (w *Writer) Write(p []byte) (int, error) {
	if w.err != nil {
		return 0, w.err
	}
	if uint64(len(p)) > w.left {
		return 0, w.fail(fmt.Errorf("write archive: contents exceed the %d bytes announced", w.size))
	}
	w.left -= uint64(len(p))
	if len(w.buf)+len(p) <= writeSize {
		w.buf = append(w.buf, p...)
		return len(p), nil
	}
	if err := w.flush(); err != nil {
		return 0, err
	}
	n, err := w.dst.Write(p)
	return n, w.fail(err)
}

// Close completes the archive and writes what is buffered. It does not close the destination.
func (w *Writer) Close() error {
	if err := w.endFile(); err != nil {
		return err
	}
	if !w.done {
		return w.fail(errors.New("write archive: incomplete"))
	}
	return w.flush()
}

// begin starts a node of a type: magic or entry, and up to the type.
func (w *Writer) begin(name, kind string) error {
	if err := w.endFile(); err != nil {
		return err
	}
	switch depth := len(w.open); {
	case w.done:
		return w.fail(errors.New("write archive: more than one root"))
	case depth >= MaxDepth:
		return w.fail(errTooDeep())
	case depth == 0:
		w.buf = appendString(w.buf, Magic)
	default:
		if err := w.entry(name, &w.open[depth-1]); err != nil {
			return w.fail(err)
		}
	}
	w.buf = append(w.buf, openType...)
	w.buf = appendString(w.buf, kind)
	return nil
}

func (w *Writer) entry(name string, last *string) error {
	if !ValidName(name) {
		return errName(name)
	}
	if name <= *last {
		return errUnsorted()
	}
	*last = name
	w.buf = append(w.buf, entryName...)
	w.buf = append(appendString(w.buf, name), nodeT...)
	return nil
}

// endFile completes the file begun by Create, if one is open.
func (w *Writer) endFile() error {
	if w.err != nil || !w.file {
		return w.err
	}
	if w.left > 0 {
		return w.fail(fmt.Errorf("write archive: contents lack %d of the %d bytes announced", w.left, w.size))
	}
	w.file = false
	w.buf = appendPadding(w.buf, w.size)
	return w.end()
}

// end completes a node and the entry that holds it.
func (w *Writer) end() error {
	w.buf = append(w.buf, closeT...)
	if len(w.open) == 0 {
		w.done = true
	} else {
		w.buf = append(w.buf, closeT...)
	}
	return w.flushFull()
}

func (w *Writer) flushFull() error {
	if len(w.buf) < writeSize {
		return w.err
	}
	return w.flush()
}

func (w *Writer) flush() error {
	if w.err != nil || len(w.buf) == 0 {
		return w.err
	}
	_, err := w.dst.Write(w.buf)
	w.buf = w.buf[:0]
	return w.fail(err)
}

func (w *Writer) fail(err error) error {
	if w.err == nil {
		w.err = err
	}
	return err
}

func appendString(b []byte, s string) []byte {
	b = binary.LittleEndian.AppendUint64(b, uint64(len(s)))
	return appendPadding(append(b, s...), uint64(len(s)))
}

// appendPadding appends what follows a string of size bytes.
func appendPadding(b []byte, size uint64) []byte {
	var zero [8]byte
	return append(b, zero[:-size&7]...)
}
