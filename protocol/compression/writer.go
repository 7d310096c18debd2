package compression

import (
	"fmt"
	"io"
	"runtime"

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
// which does not close w. "compress", "grzip", "lrzip", "lzip" and "lzop" are methods of upstream's that are not written.
func NewWriter(method string, level int, parallel bool, w io.Writer) (io.WriteCloser, error) {
	z, err := newWriter(method, level, parallel, w)
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
	case "compress", "grzip", "lrzip", "lzip", "lzop":
		return fmt.Errorf("compression method '%s' is only read by this daemon, not written", method)
	}
	return fmt.Errorf("unknown compression method '%s'", method)
}

// newWriter gives nil for a method that is not written.
func newWriter(method string, level int, parallel bool, w io.Writer) (io.WriteCloser, error) {
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
		return bzip2.NewWriter(w, &bzip2.WriterConfig{Level: min(max(level, 1), 9)})
	case "br":
		// Upstream ignores the level, and the encoder's default is its best.
		return brotli.NewWriterLevel(w, brotli.BestCompression), nil
	case "lz4":
		return newLz4Writer(level, parallel, w)
	}
	return nil, nil
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
