package substitute

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"
)

// closing notes that a stream is closed.
type closing struct {
	io.Reader
	closed *bool
}

func (c closing) Close() error { *c.closed = true; return nil }

// readerFunc is a Read.
type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// TestAside reads streams of all lengths that are around those of the pieces, in steps of any size, to the error at
// their end.
func TestAside(t *testing.T) {
	broken := errors.New("broken")
	for _, size := range []int{0, 1, asidePiece/2 - 1, asidePiece / 2, asidePiece, asidePiece + 1, asidePieces*asidePiece + 7, 10 * asidePiece} {
		contents := make([]byte, size)
		rand.NewChaCha8([32]byte{byte(size)}).Read(contents)
		for name, body := range map[string]io.Reader{
			"whole":     bytes.NewReader(contents),
			"in halves": iotest.HalfReader(bytes.NewReader(contents)),
			"at once":   iotest.DataErrReader(bytes.NewReader(contents)),
			"broken":    io.MultiReader(bytes.NewReader(contents), iotest.ErrReader(broken)),
		} {
			var closed bool
			a := readAside(closing{body, &closed}, func() {})
			got, err := io.ReadAll(a)
			if want := error(nil); !bytes.Equal(got, contents) || name != "broken" && err != want || name == "broken" && err != broken {
				t.Errorf("%d bytes %s: got %d, %v", size, name, len(got), err)
			}
			if n, again := a.Read(make([]byte, 1)); n != 0 || again == nil || err != nil && again != err {
				t.Errorf("%d bytes %s: after the end %d, %v", size, name, n, again)
			}
			if err := a.Close(); err != nil || !closed {
				t.Errorf("%d bytes %s: closed %v, %v", size, name, closed, err)
			}
		}
	}
}

// TestAsideAbandoned closes streams in the midst: while there is more than is wanted, and while nothing comes.
func TestAsideAbandoned(t *testing.T) {
	var closed bool
	a := readAside(closing{readerFunc(func(p []byte) (int, error) { return len(p), nil }), &closed}, func() {})
	if _, err := io.ReadFull(a, make([]byte, 3)); err != nil {
		t.Fatal(err)
	}
	a.Close()
	if !closed {
		t.Error("a stream without an end was not closed")
	}
	closed = false
	ctx, cancel := context.WithCancel(t.Context())
	a = readAside(closing{readerFunc(func([]byte) (int, error) {
		<-ctx.Done()
		return 0, ctx.Err()
	}), &closed}, cancel)
	a.Close()
	if !closed {
		t.Error("a stream that does not come was not closed")
	}
}

// TestAsidePanics has a decoder panic: that is an error of the stream's.
func TestAsidePanics(t *testing.T) {
	var closed bool
	a := readAside(closing{readerFunc(func([]byte) (int, error) { panic("bad table") }), &closed}, func() {})
	defer a.Close()
	if _, err := a.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "internal error: bad table") {
		t.Errorf("got %v", err)
	}
}

// BenchmarkAside is what handing pieces over costs.
func BenchmarkAside(b *testing.B) {
	contents := make([]byte, 64<<20)
	buffer := make([]byte, narBuffer)
	b.SetBytes(int64(len(contents)))
	for b.Loop() {
		a := readAside(io.NopCloser(bytes.NewReader(contents)), func() {})
		for {
			if _, err := a.Read(buffer); err != nil {
				break
			}
		}
		a.Close()
	}
}
