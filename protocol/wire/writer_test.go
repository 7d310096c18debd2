package wire

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
)

type failingWriter struct{ err error }

func (f failingWriter) Write([]byte) (int, error) { return 0, f.err }

type shortWriter struct{}

func (shortWriter) Write(p []byte) (int, error) { return len(p) / 2, nil }

type recordingWriter struct{ sizes []int }

func (w *recordingWriter) Write(p []byte) (int, error) {
	w.sizes = append(w.sizes, len(p))
	return len(p), nil
}

// Whatever the sizes, the bytes are those that a writer with an endless buffer would give.
func TestWriterBuffer(t *testing.T) {
	for size := range 200 {
		var got, want bytes.Buffer
		small, large := NewWriterSize(&got, 64), NewWriterSize(&want, 1<<20)
		for _, w := range []*Writer{small, large} {
			for n := range 20 {
				s := strings.Repeat("x", n*size/7)
				_, err := w.WriteString(s)
				if err := errors.Join(err, w.String(s), w.Uint64(uint64(n)), w.Bytes([]byte(s)), w.Concat(s, "/", s)); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.Flush(); err != nil || w.Buffered() != 0 {
				t.Fatalf("%d bytes left, %v", w.Buffered(), err)
			}
		}
		if !bytes.Equal(got.Bytes(), want.Bytes()) {
			t.Fatalf("size %d: bytes differ", size)
		}
	}
}

func TestWriterConcat(t *testing.T) {
	for _, parts := range [][]string{{}, {""}, {"abc"}, {"/nix/store", "/", "x"}, {"1234", "5678"}} {
		var got, want bytes.Buffer
		w, v := NewWriter(&got), NewWriter(&want)
		if err := errors.Join(w.Concat(parts...), v.String(strings.Join(parts, "")), w.Flush(), v.Flush()); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.Bytes(), want.Bytes()) {
			t.Errorf("%q: got %q, want %q", parts, got.Bytes(), want.Bytes())
		}
	}
}

func TestWriterGathers(t *testing.T) {
	out := &recordingWriter{}
	w := NewWriter(out)
	for range DefaultBufferSize / 8 {
		if err := w.Uint64(1); err != nil {
			t.Fatal(err)
		}
	}
	if len(out.sizes) != 0 || w.Buffered() != DefaultBufferSize {
		t.Errorf("wrote %v before the buffer was full", out.sizes)
	}
	if err := w.String(strings.Repeat("x", 1<<20)); err != nil {
		t.Fatal(err)
	}
	if len(out.sizes) != 3 || out.sizes[2] != 1<<20 {
		t.Errorf("wrote %v, want buffer, length, and the string past the buffer", out.sizes)
	}
}

func TestWriterErrorSticks(t *testing.T) {
	cause := errors.New("cause")
	w := NewWriterSize(failingWriter{cause}, 64)
	if err := w.Uint64(1); err != nil {
		t.Errorf("buffered: got %v", err)
	}
	if err := w.Flush(); err != cause {
		t.Errorf("got %v", err)
	}
	_, err := w.Write(nil)
	for i, err := range []error{err, w.Uint64(1), w.Bool(true), w.String(""), w.Bytes(nil), w.Concat(), w.Strings(nil),
		w.Strings([]string{"x"}), w.Flush(), w.Framed().Close()} {
		if err != cause {
			t.Errorf("%d: got %v, want the first error", i, err)
		}
	}
	var out bytes.Buffer
	w.Reset(&out)
	if err := errors.Join(w.Uint64(1), w.Flush()); err != nil || out.Len() != 8 {
		t.Errorf("after a reset wrote %d bytes, %v", out.Len(), err)
	}
	short := NewWriter(shortWriter{})
	if err := errors.Join(short.Uint64(1), short.Flush()); !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("got %v", err)
	}
}
