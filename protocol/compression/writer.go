package compression

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"

	"github.com/andybalholm/brotli"
	"github.com/dsnet/compress/bzip2"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/ulikunitz/xz"
	"github.com/ulikunitz/xz/lzma"
)

// DefaultLevel leaves the level to the method.
const DefaultLevel = -1

// NewWriter compresses what is written to w by a method. The level is the method's own, [DefaultLevel] for its usual one;
// parallel allows more than one goroutine where the method can. The result is complete when the writer has been closed,
// which does not close w. "compress", "grzip", "lrzip" and "lzop" are methods of upstream's that are not written.
func NewWriter(method string, level int, parallel bool, w io.Writer) (io.WriteCloser, error) {
	return new(Encoders).NewWriter(method, level, parallel, w)
}

// Encoders compresses streams. It keeps those encoders for the next stream that cost more to make than it costs to
// compress a short one, which are bzip2's. The zero value is ready; methods may be called from any goroutine.
type Encoders struct {
	bzip2 [bzip2.BestCompression + 1]sync.Pool // of *bzip2.Writer, by level
}

// NewWriter is [NewWriter] with an encoder that may have been used before. Closing gives it back.
func (e *Encoders) NewWriter(method string, level int, parallel bool, w io.Writer) (io.WriteCloser, error) {
	z, err := e.newWriter(method, level, parallel, w)
	if err != nil {
		return nil, fmt.Errorf("couldn't initialize compression (%w)", err)
	}
	if z == nil {
		return nil, unknown(method)
	}
	return z, nil
}

func unknown(method string) error {
	switch method {
	case "compress", "grzip", "lrzip", "lzop":
		return fmt.Errorf("compression method '%s' is only read by this daemon, not written", method)
	}
	return fmt.Errorf("unknown compression method '%s'", method)
}

// newWriter gives nil for a method that is not written.
func (e *Encoders) newWriter(method string, level int, parallel bool, w io.Writer) (io.WriteCloser, error) {
	usual := level == DefaultLevel
	switch method {
	case "none":
		return nopWriter{w}, nil
	case "xz":
		return xz.WriterConfig{DictCap: xzDictionary(level)}.NewWriter(w)
	case "lzma":
		return lzma.WriterConfig{DictCap: xzDictionary(level)}.NewWriter(w)
	case "zstd":
		return newZstdWriter(level, parallel, w)
	case "gzip":
		if usual {
			level = gzip.DefaultCompression
		}
		return gzip.NewWriterLevel(w, level)
	case "bzip2":
		if usual {
			level = bzip2.BestCompression
		}
		return e.newBzip2Writer(min(max(level, bzip2.BestSpeed), bzip2.BestCompression), w)
	case "br":
		// Upstream ignores the level, and the encoder's default is its best.
		return brotli.NewWriterLevel(w, brotli.BestCompression), nil
	case "lzip":
		return newLzipWriter(level, w)
	case "lz4":
		return newLz4Writer(level, parallel, w)
	}
	return nil, nil
}

func (e *Encoders) newBzip2Writer(level int, w io.Writer) (io.WriteCloser, error) {
	pool := &e.bzip2[level]
	if z, ok := pool.Get().(*bzip2.Writer); ok {
		return &pooledWriter{z, pool}, z.Reset(w)
	}
	z, err := bzip2.NewWriter(w, &bzip2.WriterConfig{Level: level})
	return &pooledWriter{z, pool}, err
}

// pooledWriter gives its encoder back once.
type pooledWriter struct {
	*bzip2.Writer
	pool *sync.Pool
}

var errWriterClosed = errors.New("write compressed stream: closed already")

// Write compresses.
func (w *pooledWriter) Write(p []byte) (int, error) {
	if w.Writer == nil {
		return 0, errWriterClosed
	}
	return w.Writer.Write(p)
}

// Close ends the stream. It may be called more than once.
func (w *pooledWriter) Close() error {
	if w.Writer == nil {
		return nil
	}
	err := w.Writer.Close()
	w.pool.Put(w.Writer)
	w.Writer = nil
	return err
}

type nopWriter struct{ io.Writer }

func (nopWriter) Close() error { return nil }

// xzDictionary is the dictionary of xz's presets, in bytes.
func xzDictionary(level int) int {
	if level < 0 || level > 9 {
		level = 6
	}
	return []int{256 << 10, 1 << 20, 2 << 20, 4 << 20, 4 << 20, 8 << 20, 8 << 20, 16 << 20, 32 << 20, 64 << 20}[level]
}

// workers is how many goroutines a parallel writer has.
func workers(parallel bool) int {
	if parallel {
		return runtime.GOMAXPROCS(0)
	}
	return 1
}

func newZstdWriter(level int, parallel bool, w io.Writer) (io.WriteCloser, error) {
	if level == DefaultLevel {
		level = 3
	}
	return zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.EncoderLevelFromZstd(level)), zstd.WithEncoderConcurrency(workers(parallel)))
}

func newLz4Writer(level int, parallel bool, w io.Writer) (io.WriteCloser, error) {
	z := lz4.NewWriter(w)
	strength := lz4.Fast
	if level >= 3 { // below it is the fast compressor, as in the program lz4
		strength = lz4.CompressionLevel(1 << (7 + min(level, 9)))
	}
	return z, z.Apply(lz4.CompressionLevelOption(strength), lz4.ConcurrencyOption(workers(parallel)))
}
