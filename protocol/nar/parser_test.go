package nar

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"

	"nixdaemon/protocol/wire"
)

// sizes are those at which buffers of the reader, the tee and the chunk begin and end.
var sizes = []int{0, 1, 7, 8, 9, minChunk - 1, minChunk, minChunk + 1, wire.DefaultBufferSize, teeSize - 1, teeSize, teeSize + 1,
	writeSize, chunkSize - 1, chunkSize, chunkSize + 1, 3*chunkSize + 5}

// tree makes an archive with a file of each size.
func tree(t testing.TB) []byte {
	t.Helper()
	var out bytes.Buffer
	w := NewWriter(&out)
	err := w.Directory("")
	rng := rand.NewChaCha8([32]byte{2})
	for i, size := range sizes {
		data := make([]byte, size)
		_, _ = rng.Read(data)
		err = errors.Join(err, w.Regular(string(rune('a'+i)), i%2 == 0, uint64(size), bytes.NewReader(data)))
	}
	if err := errors.Join(err, w.EndDirectory(), w.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// How a handler reads contents makes no difference to what it gets and to what follows.
func TestContents(t *testing.T) {
	in := tree(t)
	for how, reader := range readers {
		for name, copy := range map[string]func(io.Writer, io.Reader) error{
			"write to": func(w io.Writer, r io.Reader) error { _, err := r.(io.WriterTo).WriteTo(w); return err },
			"small reads": func(w io.Writer, r io.Reader) error {
				_, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{r}, make([]byte, 1000))
				return err
			},
			"large reads": func(w io.Writer, r io.Reader) error {
				_, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{r}, make([]byte, 1<<20))
				return err
			},
			"both": func(w io.Writer, r io.Reader) error {
				_, err := io.CopyN(w, struct{ io.Reader }{r}, 5)
				if err == io.EOF {
					return nil
				}
				_, err2 := io.Copy(w, r)
				return errors.Join(err, err2)
			},
		} {
			var out bytes.Buffer
			w := NewWriter(&out)
			if err := Parse(reader(bytes.NewReader(in)), copying{w, copy}); err != nil {
				t.Fatalf("%s, %s: %v", how, name, err)
			}
			if err := w.Close(); err != nil || !bytes.Equal(out.Bytes(), in) {
				t.Errorf("%s, %s: archives differ, %v", how, name, err)
			}
		}
	}
}

// copying passes contents on by a copy function.
type copying struct {
	*Writer
	copy func(io.Writer, io.Reader) error
}

func (c copying) Regular(name string, executable bool, size uint64, contents io.Reader) error {
	return errors.Join(c.Create(name, executable, size), c.copy(c.Writer, contents))
}

func TestUnreadContentsAreSkipped(t *testing.T) {
	in := append(tree(t), "next"...)
	for how, reader := range readers {
		r := reader(bytes.NewReader(in))
		files := 0
		h := funcs{regular: func(contents io.Reader) error {
			files++
			_, err := io.CopyN(io.Discard, contents, int64(files%3))
			if err == io.EOF {
				return nil
			}
			return err
		}}
		if err := Parse(r, h); err != nil || files != len(sizes) {
			t.Errorf("%s: %d files, %v", how, files, err)
		}
		if rest, err := io.ReadAll(r); string(rest) != "next" || err != nil {
			t.Errorf("%s: behind the archive got %d bytes, %v", how, len(rest), err)
		}
	}
}

// funcs is a Handler of which a test chooses a method.
type funcs struct {
	ignore
	regular func(contents io.Reader) error
}

func (f funcs) Regular(_ string, _ bool, _ uint64, contents io.Reader) error {
	return f.regular(contents)
}

func TestTee(t *testing.T) {
	in := tree(t)
	for how, reader := range readers {
		for name, h := range map[string]Handler{"unread": ignore{}, "read": &listing{}, "copied": NewWriter(io.Discard)} {
			r := reader(bytes.NewReader(append(in[:len(in):len(in)], "next"...)))
			hash, out := sha256.New(), &bytes.Buffer{}
			n, err := ParseTee(r, io.MultiWriter(out, hash), h)
			if err != nil || n != int64(len(in)) || !bytes.Equal(out.Bytes(), in) || [32]byte(hash.Sum(nil)) != sha256.Sum256(in) {
				t.Errorf("%s, %s: %d of %d bytes, %v", how, name, n, len(in), err)
			}
		}
		var out bytes.Buffer
		if n, err := Copy(&out, reader(bytes.NewReader(in))); err != nil || n != int64(len(in)) || !bytes.Equal(out.Bytes(), in) {
			t.Errorf("%s: copied %d of %d bytes, %v", how, n, len(in), err)
		}
	}
	for _, tt := range accepted {
		var out bytes.Buffer
		if n, err := Copy(&out, strings.NewReader(tt.archive)); err != nil || n != int64(out.Len()) || out.String() != tt.archive {
			t.Errorf("%s: copied %d of %d bytes, %v", tt.name, n, len(tt.archive), err)
		}
	}
}

// Errors of the stream, of the tee and of the handler end the parse wherever they occur, and come out as they are.
func TestForeignErrors(t *testing.T) {
	in, cause := tree(t), errors.New("cause")
	for _, n := range []int{0, 5, 100, len(in) / 2, len(in) - 1} {
		for how, reader := range readers {
			if how == "framed" {
				continue // its transport is memory
			}
			broken := io.MultiReader(bytes.NewReader(in[:n]), iotest.ErrReader(cause))
			if err := Parse(reader(broken), &listing{}); !errors.Is(err, cause) {
				t.Errorf("stream fails after %d bytes, %s: got %v", n, how, err)
			}
		}
		if _, err := Copy(&limitedWriter{n, cause}, bytes.NewReader(in)); err != cause {
			t.Errorf("tee fails after %d bytes: got %v", n, err)
		}
	}
	if err := Parse(bytes.NewReader(in), funcs{regular: func(io.Reader) error { return cause }}); err != cause {
		t.Errorf("handler fails: got %v", err)
	}
	for _, n := range []int{0, len(in) / 2, len(in) - 1} {
		w := NewWriter(&limitedWriter{n, cause})
		if err := Parse(bytes.NewReader(in), w); err == nil {
			err = w.Close()
			if err != cause {
				t.Errorf("writer fails after %d bytes: got %v", n, err)
			}
		} else if err != cause {
			t.Errorf("writer fails after %d bytes: got %v", n, err)
		}
	}
	// A handler that hides the stream's error does not make the archive whole.
	hiding := funcs{regular: func(r io.Reader) error { _, _ = io.Copy(io.Discard, r); return nil }}
	if err := Parse(bytes.NewReader(in[:len(in)/2]), hiding); err != io.ErrUnexpectedEOF {
		t.Errorf("got %v", err)
	}
}

type limitedWriter struct {
	left int
	err  error
}

func (w *limitedWriter) Write(p []byte) (int, error) {
	if len(p) > w.left {
		return w.left, w.err
	}
	w.left -= len(p)
	return len(p), nil
}

// A size is a claim: nothing is allocated for it, and numbers near the largest do not overflow.
func TestHugeSize(t *testing.T) {
	header := archive("( type regular contents")
	for _, size := range []string{"\xff\xff\xff\xff\xff\xff\xff\xff", "\xf9\xff\xff\xff\xff\xff\xff\xff", "\x00\x00\x00\x00\x00\x00\x00\x80"} {
		for how, reader := range readers {
			for name, h := range map[string]Handler{"skip": ignore{}, "write": NewWriter(io.Discard), "list": &listing{}} {
				if err := Parse(reader(strings.NewReader(header+size+"x")), h); !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Errorf("%s, %s: got %v", how, name, err)
				}
			}
		}
	}
}

// From a buffered connection, a tree of small files takes one read per buffer, and not one per string.
func TestReadsFromStream(t *testing.T) {
	in := smallFiles(t, 1000)
	src := &countingReader{r: bytes.NewReader(in)}
	if err := Parse(wire.NewReader(src), &listing{}); err != nil {
		t.Fatal(err)
	}
	if limit := len(in)/wire.DefaultBufferSize + 2; src.calls > limit {
		t.Errorf("%d reads for %d bytes, want at most %d", src.calls, len(in), limit)
	}
}

// A large file comes in large pieces, whatever the frames that carry it.
func TestLargePieces(t *testing.T) {
	const size = 10*chunkSize + 3
	var in bytes.Buffer
	w := NewWriter(&in)
	if err := errors.Join(w.Regular("", false, size, bytes.NewReader(make([]byte, size))), w.Close()); err != nil {
		t.Fatal(err)
	}
	for how, reader := range readers {
		out := &countingWriter{}
		h := funcs{regular: func(r io.Reader) error { _, err := io.Copy(out, r); return err }}
		if err := Parse(reader(bytes.NewReader(in.Bytes())), h); err != nil {
			t.Fatalf("%s: %v", how, err)
		}
		if out.calls > 11 {
			t.Errorf("%s: %d writes, want 11", how, out.calls)
		}
	}
}

type countingReader struct {
	r     io.Reader
	calls int
}

func (c *countingReader) Read(p []byte) (int, error) {
	c.calls++
	return c.r.Read(p)
}

// smallFiles makes an archive of n files in directories of 100.
func smallFiles(t testing.TB, n int) []byte {
	t.Helper()
	var out bytes.Buffer
	w := NewWriter(&out)
	err := w.Directory("")
	name := func(i int) string { return "entry-" + string([]byte{byte('a' + i/26%26), byte('a' + i%26)}) }
	for i := range n {
		if i%100 == 0 {
			if i > 0 {
				err = errors.Join(err, w.EndDirectory())
			}
			err = errors.Join(err, w.Directory(name(i/100)))
		}
		err = errors.Join(err, w.Regular(name(i%100), false, 30, strings.NewReader("the contents of one small file")))
	}
	if err := errors.Join(err, w.EndDirectory(), w.EndDirectory(), w.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// Of each node, only the name is allocated.
func TestAllocations(t *testing.T) {
	in := smallFiles(t, 1000)
	src := bytes.NewReader(in)
	r := wire.NewReader(src)
	got := testing.AllocsPerRun(10, func() {
		src.Reset(in)
		r.Reset(src)
		if err := Skip(r); err != nil {
			t.Fatal(err)
		}
	})
	// The race detector's instrumentation adds a few for strings that otherwise stay on the stack.
	if names := 1010.0; got > 1.05*names {
		t.Errorf("%v allocations for %v names", got, names)
	}
}
