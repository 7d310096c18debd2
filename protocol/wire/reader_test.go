package wire

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
)

func encoded(t testing.TB, write func(*Writer) error) []byte {
	t.Helper()
	var out bytes.Buffer
	w := NewWriter(&out)
	if err := errors.Join(write(w), w.Flush()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestLongStrings(t *testing.T) {
	for _, n := range []int{DefaultBufferSize - 9, DefaultBufferSize - 8, DefaultBufferSize - 7, DefaultBufferSize,
		claimStep - 1, claimStep, claimStep + 1, 3*claimStep + 5, 1 << 20} {
		want := strings.Repeat("0123456789abcde", n/15+1)[:n]
		in := encoded(t, func(w *Writer) error { return w.Strings([]string{want, want}) })
		for _, src := range []io.Reader{bytes.NewReader(in), iotest.HalfReader(bytes.NewReader(in))} {
			r := NewReader(src)
			got, err := r.Strings(2, n)
			if err != nil || len(got) != 2 || got[0] != want || got[1] != want {
				t.Fatalf("%d bytes: got %d strings, %v", n, len(got), err)
			}
		}
		r := NewReader(bytes.NewReader(in[8:]))
		if got, err := r.Bytes(n); err != nil || string(got) != want {
			t.Fatalf("%d bytes: got %d, %v", n, len(got), err)
		}
	}
}

// allocated returns how many bytes f allocates.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

func TestClaimsAreNotAllocated(t *testing.T) {
	const arrived = 200 << 10
	in := encoded(t, func(w *Writer) error { return w.Uint64(1 << 30) })
	in = append(in, make([]byte, arrived)...)
	for name, read := range map[string]func(*Reader) error{
		"string":  func(r *Reader) error { _, err := r.String(1 << 30); return err },
		"bytes":   func(r *Reader) error { _, err := r.Bytes(1 << 30); return err },
		"strings": func(r *Reader) error { _, err := r.Strings(1<<30, 10); return err },
		"framed":  func(r *Reader) error { return r.Framed().Drain() },
	} {
		t.Run(name, func(t *testing.T) {
			var err error
			got := allocated(func() { err = read(NewReader(bytes.NewReader(in))) })
			if !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Fatalf("got error %v", err)
			}
			// A string header is twice the 8 bytes that an empty string takes, and slices double.
			if limit := uint64(12 * arrived); got > limit {
				t.Errorf("allocated %d bytes for %d that arrived", got, arrived)
			}
		})
	}
}

func TestBudget(t *testing.T) {
	in := encoded(t, func(w *Writer) error {
		return errors.Join(w.Strings([]string{"1234", "5678"}), w.String("9"), w.Count(3))
	})
	for _, tt := range []struct {
		budget int64
		want   error
	}{
		{2*elementCost + 9 + 3*elementCost, nil},
		{2*elementCost + 9 + 3*elementCost - 1, ErrBudget},
		{2*elementCost + 8, ErrBudget},
		{2*elementCost + 7, ErrBudget},
		{2*elementCost - 1, ErrBudget},
		{-1, ErrBudget},
	} {
		r := NewReader(bytes.NewReader(in))
		r.SetBudget(tt.budget)
		_, err := r.Strings(9, 9)
		if err == nil {
			_, err = r.String(9)
		}
		if err == nil {
			_, err = r.Count(9)
		}
		if err != tt.want {
			t.Errorf("budget %d: got %v, want %v", tt.budget, err, tt.want)
		}
	}
	if ErrBudget.Error() != "request is too large" {
		t.Errorf("got text %q", ErrBudget)
	}
}

func TestReadPastBuffer(t *testing.T) {
	in := bytes.Repeat([]byte("0123456789abcdef"), 1<<12)
	src := &countingReader{Reader: bytes.NewReader(in)}
	r := NewReader(src)
	if _, err := r.Uint64(); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(in)-8)
	if _, err := io.ReadFull(r, got); err != nil || !bytes.Equal(got, in[8:]) {
		t.Fatalf("contents differ, %v", err)
	}
	if src.calls != 2 {
		t.Errorf("%d reads from the stream, want one for the buffer and one for the rest", src.calls)
	}
}

type countingReader struct {
	io.Reader
	calls int
}

func (c *countingReader) Read(p []byte) (int, error) {
	c.calls++
	return c.Reader.Read(p)
}

func TestPeekAndDiscard(t *testing.T) {
	r := NewReaderSize(iotest.OneByteReader(strings.NewReader("abcdefghij")), 64)
	if b, err := r.Peek(4); string(b) != "abcd" || err != nil {
		t.Errorf("got %q, %v", b, err)
	}
	if n, err := r.Discard(6); n != 6 || err != nil {
		t.Errorf("got %d, %v", n, err)
	}
	if b, err := r.Peek(5); string(b) != "ghij" || err != io.ErrUnexpectedEOF {
		t.Errorf("got %q, %v", b, err)
	}
	if b, err := r.Peek(65); string(b) != "ghij" || err != bufio.ErrBufferFull {
		t.Errorf("got %q, %v", b, err)
	}
	if n, err := r.Discard(5); n != 4 || err != io.EOF {
		t.Errorf("got %d, %v", n, err)
	}
}

func TestResize(t *testing.T) {
	in := []byte(strings.Repeat("x", 500) + "end")
	r := NewReaderSize(bytes.NewReader(in), 256)
	for _, size := range []int{64, 1 << 10, 0, 300} {
		if b, err := r.Peek(3); err != nil || string(b) != "xxx" {
			t.Fatalf("got %q, %v", b, err)
		}
		r.Resize(size)
		if _, err := r.Discard(100); err != nil {
			t.Fatal(err)
		}
	}
	if rest, err := io.ReadAll(r); err != nil || string(rest) != strings.Repeat("x", 100)+"end" {
		t.Errorf("got %q, %v", rest, err)
	}
	r.Resize(DefaultBufferSize)
	if r.buf != nil {
		t.Error("an idle reader keeps its old buffer")
	}
}

// What a transport reports comes through once, after the bytes that came with it, and does not stick.
func TestTransportErrors(t *testing.T) {
	cause := errors.New("cause")
	src := &scriptedReader{steps: []step{{"\x01\x00\x00\x00\x00\x00\x00\x00\x02", cause},
		{"\x00\x00\x00\x00\x00\x00\x00", nil}, {"", io.EOF}}}
	r := NewReader(src)
	for i, want := range []struct {
		n   uint64
		err error
	}{{1, nil}, {0, cause}, {2, nil}, {0, io.EOF}} {
		if n, err := r.Uint64(); n != want.n || err != want.err {
			t.Errorf("%d: got %d, %v, want %v", i, n, err, want)
		}
	}
	if _, err := NewReader(&scriptedReader{steps: make([]step, 1000)}).Uint64(); err != io.ErrNoProgress {
		t.Errorf("got %v", err)
	}
}

type step struct {
	data string
	err  error
}

type scriptedReader struct{ steps []step }

func (s *scriptedReader) Read(p []byte) (int, error) {
	next := s.steps[0]
	s.steps = s.steps[1:]
	return copy(p, next.data), next.err
}

func TestIdleCostsNothing(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if got := allocated(func() { sinkReader, sinkWriter = NewReader(a), NewWriter(a) }); got > 1<<10 {
		t.Errorf("a reader and a writer take %d bytes before their first use", got)
	}
}

var (
	sinkReader *Reader
	sinkWriter *Writer
)

func TestAllocations(t *testing.T) {
	ints := bytes.Repeat([]byte{1, 0, 0, 0, 0, 0, 0, 0}, 4)
	src := bytes.NewReader(nil)
	r, w := NewReader(src), NewWriter(io.Discard)
	for _, tt := range []struct {
		name string
		want float64
		f    func() error
	}{
		{"integers", 0, func() error {
			_, a := r.Uint64()
			_, b := r.Uint32()
			_, c := r.Uint8()
			_, d := r.Bool()
			return errors.Join(a, b, c, d)
		}},
		{"write", 0, func() error {
			return errors.Join(w.Uint64(7), w.Bool(true), w.String("abc"), w.Flush())
		}},
	} {
		got := testing.AllocsPerRun(100, func() {
			src.Reset(ints)
			r.Reset(src)
			if err := tt.f(); err != nil {
				t.Fatal(err)
			}
		})
		if got != tt.want {
			t.Errorf("%s: %v allocations, want %v", tt.name, got, tt.want)
		}
	}
	text := encoded(t, func(w *Writer) error { return w.String("some store path") })
	if got := testing.AllocsPerRun(100, func() {
		src.Reset(text)
		r.Reset(src)
		if _, err := r.String(100); err != nil {
			t.Fatal(err)
		}
	}); got != 1 {
		t.Errorf("string: %v allocations, want 1", got)
	}
}
