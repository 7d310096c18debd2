package nar

import (
	"bytes"
	"crypto/sha256"
	"io"
	"testing"

	"nixdaemon/protocol/wire"
)

// zeros is an endless stream for contents; clearing costs about what copying out of a socket does.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

const largeFile = 1 << 30

func largeArchive() io.Reader {
	return io.MultiReader(
		bytes.NewReader([]byte(archive("( type regular contents")+"\x00\x00\x00\x40\x00\x00\x00\x00")),
		io.LimitReader(zeros{}, largeFile),
		bytes.NewReader([]byte(tokens(")"))))
}

func BenchmarkParseLargeFile(b *testing.B) {
	b.SetBytes(largeFile)
	b.ReportAllocs()
	h := funcs{regular: func(r io.Reader) error { _, err := io.Copy(io.Discard, struct{ io.Reader }{r}); return err }}
	for b.Loop() {
		if err := Parse(wire.NewReader(largeArchive()), h); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkWriteLargeFile(b *testing.B) {
	b.SetBytes(largeFile)
	b.ReportAllocs()
	for b.Loop() {
		if err := NewWriter(io.Discard).Regular("", false, largeFile, zeros{}); err != nil {
			b.Fatal(err)
		}
	}
}

// Each iteration is 1000 small files.
func BenchmarkParseSmallFiles(b *testing.B) {
	benchmarkSmall(b, func(r io.Reader) error { return Skip(r) })
}
func BenchmarkCopySmallFiles(b *testing.B) {
	benchmarkSmall(b, func(r io.Reader) error { _, err := Copy(io.Discard, r); return err })
}
func BenchmarkHashSmallFiles(b *testing.B) {
	benchmarkSmall(b, func(r io.Reader) error { _, err := Copy(sha256.New(), r); return err })
}
func BenchmarkRewriteSmallFiles(b *testing.B) {
	w := NewWriter(io.Discard)
	benchmarkSmall(b, func(r io.Reader) error {
		w.Reset(io.Discard)
		return Parse(r, w)
	})
}

func benchmarkSmall(b *testing.B, f func(io.Reader) error) {
	in := smallFiles(b, 1000)
	src := bytes.NewReader(in)
	r := wire.NewReader(src)
	b.SetBytes(int64(len(in)))
	b.ReportAllocs()
	for b.Loop() {
		src.Reset(in)
		r.Reset(src)
		if err := f(r); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)*1010/b.Elapsed().Seconds(), "entries/s")
}
