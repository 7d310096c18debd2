package wire

import (
	"bytes"
	"io"
	"testing"
)

func BenchmarkUint64(b *testing.B) {
	in := make([]byte, 1<<16)
	src := bytes.NewReader(in)
	r := NewReader(src)
	b.SetBytes(8)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if i%(len(in)/8) == 0 {
			src.Reset(in)
		}
		if _, err := r.Uint64(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkStrings(b *testing.B) {
	list := make([]string, 1000)
	for i := range list {
		list[i] = "/nix/store/00000000000000000000000000000000-some-package-1.2.3"
	}
	in := encoded(b, func(w *Writer) error { return w.Strings(list) })
	src := bytes.NewReader(in)
	r := NewReader(src)
	b.SetBytes(int64(len(in)))
	b.ReportAllocs()
	for b.Loop() {
		src.Reset(in)
		if _, err := r.Strings(1000, 4096); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkWriteStrings(b *testing.B) {
	list := make([]string, 1000)
	for i := range list {
		list[i] = "/nix/store/00000000000000000000000000000000-some-package-1.2.3"
	}
	w := NewWriter(io.Discard)
	b.SetBytes(80 * 1000)
	b.ReportAllocs()
	for b.Loop() {
		if err := w.Strings(list); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkFramed(b *testing.B) {
	data := randomBytes(16 << 20)
	in := encoded(b, func(w *Writer) error {
		f := w.Framed()
		if _, err := f.Write(data); err != nil {
			return err
		}
		return f.Close()
	})
	b.SetBytes(int64(len(data)))
	buf := make([]byte, 128<<10)
	src := bytes.NewReader(in)
	r := NewReader(src)
	b.ReportAllocs()
	for b.Loop() {
		src.Reset(in)
		r.Reset(src)
		if _, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{r.Framed()}, buf); err != nil {
			b.Fatal(err)
		}
	}
}
