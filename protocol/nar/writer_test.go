package nar

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// What was parsed is written back as it was.
func TestRoundTrip(t *testing.T) {
	w := NewWriter(nil)
	for _, tt := range append(accepted, struct{ name, archive, want string }{"deepest", deep(MaxDepth), ""}) {
		var out bytes.Buffer
		w.Reset(&out)
		if err := errors.Join(Parse(strings.NewReader(tt.archive), w), w.Close()); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if out.String() != tt.archive {
			t.Errorf("%s: got %q, want %q", tt.name, &out, tt.archive)
		}
	}
}

func TestWriteContents(t *testing.T) {
	for _, size := range sizes {
		data := bytes.Repeat([]byte("0123456789abcdef"), size/16+1)[:size]
		var want bytes.Buffer
		w := NewWriter(&want)
		if err := errors.Join(w.Regular("", false, uint64(size), bytes.NewReader(data)), w.Close()); err != nil {
			t.Fatal(err)
		}
		if text := archive("( type regular contents") + tokens(string(data), ")"); want.String() != text {
			t.Fatalf("%d bytes: archive differs from its text", size)
		}
		for name, write := range map[string]func(*Writer) error{
			"create and write": func(w *Writer) error {
				err := w.Create("", false, uint64(size))
				_, err2 := w.Write(data[:size/3])
				_, err3 := w.Write(data[size/3:])
				return errors.Join(err, err2, err3)
			},
			"half reads": func(w *Writer) error {
				return w.Regular("", false, uint64(size), iotest.HalfReader(bytes.NewReader(data)))
			},
			"end with data": func(w *Writer) error {
				return w.Regular("", false, uint64(size), iotest.DataErrReader(bytes.NewReader(data)))
			},
			"more than announced": func(w *Writer) error {
				return w.Regular("", false, uint64(size), io.MultiReader(bytes.NewReader(data), strings.NewReader("more")))
			},
		} {
			var got bytes.Buffer
			w := NewWriter(&got)
			if err := errors.Join(write(w), w.Close()); err != nil || !bytes.Equal(got.Bytes(), want.Bytes()) {
				t.Errorf("%s, %d bytes: archives differ, %v", name, size, err)
			}
		}
	}
}

// A writer makes nothing that the parser would refuse.
func TestWriterRefuses(t *testing.T) {
	none := strings.NewReader("")
	for _, tt := range []struct {
		name string
		f    func(*Writer) error
		want string
	}{
		{"nothing", (*Writer).Close, "write archive: incomplete"},
		{"open directory", func(w *Writer) error { return errors.Join(w.Directory(""), w.Close()) }, "write archive: incomplete"},
		{"no directory", (*Writer).EndDirectory, "write archive: no directory is open"},
		{"two roots", func(w *Writer) error { return errors.Join(w.Symlink("", "x"), w.Symlink("", "x")) }, "write archive: more than one root"},
		{"name", func(w *Writer) error { return errors.Join(w.Directory(""), w.Directory("..")) }, "bad archive: NAR contains invalid file name '..'"},
		{"order", func(w *Writer) error {
			return errors.Join(w.Directory(""), w.Symlink("b", "x"), w.Symlink("b", "x"))
		}, "bad archive: NAR directory is not sorted"},
		{"target", func(w *Writer) error { return w.Symlink("", "") }, "bad archive: NAR contains invalid symlink target"},
		{"short contents", func(w *Writer) error { return w.Regular("", false, 1, none) }, "read contents of '': unexpected EOF"},
		{"few writes", func(w *Writer) error { return errors.Join(w.Create("", false, 3), w.Close()) },
			"write archive: contents lack 3 of the 3 bytes announced"},
		{"many writes", func(w *Writer) error {
			_, err := w.Write([]byte("abcd"))
			return err
		}, "write archive: contents exceed the 0 bytes announced"},
		{"stuck contents", func(w *Writer) error { return w.Regular("f", false, 1, stuck{}) },
			"read contents of 'f': " + io.ErrNoProgress.Error()},
		{"depth", func(w *Writer) error {
			for range MaxDepth {
				if err := w.Directory("a"); err != nil {
					return errors.New("too early")
				}
			}
			return w.Symlink("a", "x")
		}, "bad archive: NAR directory nesting exceeds maximum depth of 64"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := NewWriter(io.Discard)
			err := tt.f(w)
			if err == nil || err.Error() != tt.want {
				t.Fatalf("got %v, want %s", err, tt.want)
			}
			if again := w.Close(); again == nil {
				t.Error("the error does not stick")
			}
		})
	}
}

type stuck struct{}

func (stuck) Read([]byte) (int, error) { return 0, nil }

// Many small files leave in few writes, and an archive of one leaves in one.
func TestWriterGathers(t *testing.T) {
	in := smallFiles(t, 1000)
	for _, tt := range []struct {
		in    []byte
		limit int
	}{{in, len(in)/writeSize + 1}, {[]byte(archive("( type regular contents x )")), 1}} {
		out := &countingWriter{}
		w := NewWriter(out)
		if err := errors.Join(Parse(bytes.NewReader(tt.in), w), w.Close()); err != nil {
			t.Fatal(err)
		}
		if out.calls > tt.limit {
			t.Errorf("%d writes for %d bytes, want at most %d", out.calls, len(tt.in), tt.limit)
		}
	}
}

type countingWriter struct{ calls int }

func (c *countingWriter) Write(p []byte) (int, error) {
	c.calls++
	return len(p), nil
}
