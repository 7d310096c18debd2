package wire

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"
)

func randomBytes(n int) []byte {
	rng := rand.NewChaCha8([32]byte{1})
	b := make([]byte, n)
	_, _ = rng.Read(b)
	return b
}

func TestFramedRoundTrip(t *testing.T) {
	for _, size := range []int{0, 1, frameSize - 1, frameSize, frameSize + 1, 5*frameSize + 77} {
		data := randomBytes(size)
		for name, send := range map[string]func(*FramedWriter) error{
			"write": func(f *FramedWriter) error { _, err := f.Write(data); return err },
			"small": func(f *FramedWriter) error {
				_, err := io.CopyBuffer(struct{ io.Writer }{f}, iotest.HalfReader(bytes.NewReader(data)), make([]byte, 1000))
				return err
			},
			"read from": func(f *FramedWriter) error {
				_, err := f.ReadFrom(iotest.DataErrReader(bytes.NewReader(data)))
				return err
			},
			"mixed": func(f *FramedWriter) error {
				_, err := f.Write(data[:size/2])
				_, err2 := f.ReadFrom(bytes.NewReader(data[size/2:]))
				return errors.Join(err, err2)
			},
		} {
			in := encoded(t, func(w *Writer) error {
				f := NewFramedWriter(w)
				return errors.Join(send(f), f.Close(), f.Close(), w.String("next"))
			})
			frames := (size + frameSize - 1) / frameSize
			if want := 8*frames + size + 8 + 16; len(in) != want {
				t.Errorf("%s, %d bytes: %d on the wire, want %d", name, size, len(in), want)
			}
			for how, receive := range receivers {
				r := NewReader(bytes.NewReader(in))
				got, err := receive(r.Framed())
				if err != nil || !bytes.Equal(got, data) {
					t.Fatalf("%s, %s, %d bytes: got %d, %v", name, how, size, len(got), err)
				}
				if next, err := r.String(9); next != "next" || err != nil {
					t.Fatalf("%s, %s: behind the stream got %q, %v", name, how, next, err)
				}
			}
		}
	}
}

var receivers = map[string]func(*FramedReader) ([]byte, error){
	"read": func(f *FramedReader) ([]byte, error) { return io.ReadAll(f) },
	"write to": func(f *FramedReader) ([]byte, error) {
		var b bytes.Buffer
		_, err := f.WriteTo(&b)
		return b.Bytes(), err
	},
	"peek and discard": func(f *FramedReader) ([]byte, error) {
		var all []byte
		for {
			if _, err := f.Peek(1); err == io.EOF {
				return all, nil
			} else if err != nil {
				return all, err
			}
			b, err := f.Peek(f.Buffered())
			if err != nil {
				return all, err
			}
			all = append(all, b...)
			if _, err := f.Discard(len(b)); err != nil {
				return all, err
			}
		}
	},
	"nested reader": func(f *FramedReader) ([]byte, error) { return io.ReadAll(NewReader(f)) },
}

func TestFramedDrain(t *testing.T) {
	data := randomBytes(3 * frameSize)
	in := encoded(t, func(w *Writer) error {
		f := w.Framed()
		_, err := f.Write(data)
		return errors.Join(err, f.Close(), w.Uint64(42))
	})
	for _, n := range []int{0, 1, 7, frameSize, frameSize + 1, len(data)} {
		r := NewReader(bytes.NewReader(in))
		f := r.Framed()
		got := make([]byte, n)
		if _, err := io.ReadFull(f, got); err != nil || !bytes.Equal(got, data[:n]) {
			t.Fatalf("read %d: %v", n, err)
		}
		if f.Ended() {
			t.Fatalf("ended after %d of %d bytes", n, len(data))
		}
		if err := errors.Join(f.Drain(), f.Close()); err != nil || !f.Ended() {
			t.Fatalf("drain after %d: %v", n, err)
		}
		if next, err := r.Uint64(); next != 42 || err != nil {
			t.Errorf("behind the stream got %d, %v", next, err)
		}
		if n, err := f.Read(got[:min(1, n)]); n != 0 || err != nil && err != io.EOF {
			t.Errorf("a drained stream gives %d bytes, %v", n, err)
		}
	}
}

func TestFramedPeekStopsAtFrame(t *testing.T) {
	in := unhex(t, "0200000000000000 6162 0100000000000000 63 0000000000000000")
	f := NewReader(bytes.NewReader(in)).Framed()
	if b, err := f.Peek(3); err == nil || string(b) != "ab" {
		t.Errorf("got %q, %v", b, err)
	}
	if n, err := f.Discard(3); n != 3 || err != nil {
		t.Errorf("got %d, %v", n, err)
	}
	if n, err := f.Discard(1); n != 0 || err != io.EOF {
		t.Errorf("got %d, %v", n, err)
	}
}

func TestFramedBroken(t *testing.T) {
	for name, in := range map[string]string{
		"no end":         "0100000000000000 61",
		"inside a frame": "0200000000000000 61",
		"inside length":  "0100000000000000 61 0000",
	} {
		for how, receive := range receivers {
			f := NewReader(bytes.NewReader(unhex(t, in))).Framed()
			if _, err := receive(f); !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("%s, %s: got %v", name, how, err)
			}
			if err := f.Drain(); err != io.ErrUnexpectedEOF {
				t.Errorf("%s, %s: drain: got %v", name, how, err)
			}
		}
	}
}

func TestFramedWriterErrors(t *testing.T) {
	cause := errors.New("cause")
	f := NewWriter(io.Discard).Framed()
	if n, err := f.ReadFrom(io.MultiReader(strings.NewReader("abc"), iotest.ErrReader(cause))); n != 3 || err != cause {
		t.Errorf("got %d, %v", n, err)
	}
	if _, err := f.ReadFrom(&scriptedReader{steps: make([]step, 1000)}); err != io.ErrNoProgress {
		t.Errorf("got %v", err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if _, err := f.Write([]byte("x")); err == nil {
		t.Error("a closed stream accepts a write")
	}
	if _, err := f.ReadFrom(strings.NewReader("x")); err == nil {
		t.Error("a closed stream accepts a read")
	}
	broken := NewWriter(failingWriter{cause}).Framed()
	if _, err := broken.Write(make([]byte, 2*frameSize)); err != cause {
		t.Errorf("got %v", err)
	}
}
