package compression

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"math/rand/v2"
	"os/exec"
	"runtime"
	"strings"
	"testing"
)

// programs write what the methods read, where they are installed.
var programs = map[string][]string{
	"xz": {"xz", "-c"}, "lzma": {"xz", "--format=lzma", "-c"}, "zstd": {"zstd", "-q", "-c"}, "gzip": {"gzip", "-c"},
	"bzip2": {"bzip2", "-c"}, "br": {"brotli", "-c"}, "lzip": {"lzip", "-c"}, "lz4": {"lz4", "-q", "-c"}, "compress": {"compress", "-c"},
}

// sample is contents that compress well in parts.
func sample(size int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, 0, size)
	for len(b) < size {
		if r.IntN(2) == 0 && len(b) > 100 {
			at := r.IntN(len(b) - 50)
			b = append(b, b[at:at+50]...)
		} else {
			b = append(b, byte(r.Uint32()), byte(r.IntN(4)))
		}
	}
	return b[:size]
}

func pack(t testing.TB, method string, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := NewWriter(method, DefaultLevel, false, &b)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func unpack(method string, packed []byte) ([]byte, error) {
	r, err := NewReader(method, bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(r)
	return data, errors.Join(err, r.Close())
}

var written = []string{"none", "xz", "lzma", "lzip", "zstd", "gzip", "bzip2", "br", "lz4"}

func TestRoundTrip(t *testing.T) {
	for _, method := range written {
		for _, size := range []int{0, 1, 1000, 30_000} {
			data := sample(size)
			got, err := unpack(method, pack(t, method, data))
			if err != nil || !bytes.Equal(got, data) {
				t.Errorf("%s of %d bytes: got %d, %v", method, size, len(got), err)
			}
		}
	}
}

// TestEncodersAreKept writes streams with encoders that were used before, some of them given up after an error.
func TestEncodersAreKept(t *testing.T) {
	var e Encoders
	for i := range 20 {
		for _, level := range []int{1, 9} {
			var b bytes.Buffer
			var to io.Writer = &b
			if i%3 == 1 {
				to = brokenWriter{}
			}
			w, err := e.NewWriter("bzip2", level, false, to)
			if err != nil {
				t.Fatal(err)
			}
			data := sample(i * 1000)
			_, writeErr := w.Write(data)
			err = errors.Join(writeErr, w.Close())
			if i%3 == 1 {
				if !errors.Is(err, io.ErrClosedPipe) {
					t.Errorf("a writer that fails: %v", err)
				}
				continue
			}
			if got, unpackErr := unpack("bzip2", b.Bytes()); err != nil || unpackErr != nil || !bytes.Equal(got, data) {
				t.Errorf("%d bytes: got %d, %v, %v", len(data), len(got), err, unpackErr)
			}
			if _, err := w.Write(data); err == nil || w.Close() != nil {
				t.Errorf("after closing: %v", err)
			}
		}
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func TestLevels(t *testing.T) {
	data := sample(20_000)
	for _, method := range written {
		for _, level := range []int{1, 9} {
			var b bytes.Buffer
			w, err := NewWriter(method, level, true, &b)
			if err != nil {
				t.Fatal(method, err)
			}
			w.Write(data)
			if err := w.Close(); err != nil {
				t.Fatal(method, err)
			}
			if got, err := unpack(method, b.Bytes()); err != nil || !bytes.Equal(got, data) {
				t.Errorf("%s at level %d: %d bytes, %v", method, level, len(got), err)
			}
		}
	}
}

func run(t testing.TB, argv []string, in []byte) []byte {
	t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdin = bytes.NewReader(in)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(argv, err)
	}
	return out
}

// What the real programs write is read, and what we write is read by them.
func TestPrograms(t *testing.T) {
	data := sample(50_000)
	for method, argv := range programs {
		t.Run(method, func(t *testing.T) {
			if _, err := exec.LookPath(argv[0]); err != nil {
				t.Skipf("the program %s is not installed", argv[0])
			}
			packed := run(t, argv, data)
			if got, err := unpack(method, packed); err != nil || !bytes.Equal(got, data) {
				t.Errorf("read %d bytes, %v", len(got), err)
			}
			if w, err := NewWriter(method, DefaultLevel, false, io.Discard); err != nil || w.Close() != nil {
				return // not written
			}
			if got := run(t, append(argv[:len(argv):len(argv)], "-d"), pack(t, method, data)); !bytes.Equal(got, data) {
				t.Errorf("%s does not read what we wrote", argv[0])
			}
		})
	}
}

func TestMembersAndTails(t *testing.T) {
	one, two := sample(1000), sample(5000)
	for method, tail := range map[string]bool{"gzip": true, "bzip2": true, "lzip": true, "xz": false, "zstd": false, "lz4": false} {
		first, second := two, one
		var packed []byte
		if method == "lzip" {
			first, second = []byte(lzipText), []byte(lzipText)
			packed = append(unbase64(t, lzipFile), unbase64(t, lzipFile)...)
		} else {
			packed = append(pack(t, method, first), pack(t, method, second)...)
		}
		want := append(bytes.Clone(first), second...)
		if got, err := unpack(method, packed); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: two members: %d bytes of %d, %v", method, len(got), len(want), err)
		}
		got, err := unpack(method, append(packed, "garbage at the end"...))
		if tail && (err != nil || !bytes.Equal(got, want)) || !tail && method != "lz4" && err == nil {
			t.Errorf("%s with a tail: %d bytes, %v", method, len(got), err)
		}
	}
}

func TestTruncated(t *testing.T) {
	data := sample(20_000)
	for _, method := range written[1:] {
		packed := pack(t, method, data)
		for _, n := range []int{len(packed) / 2, len(packed) - 1} {
			if got, err := unpack(method, packed[:n]); !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("%s, %d of %d bytes: got %d, %v", method, n, len(packed), len(got), err)
			}
		}
	}
}

func TestUnrecognized(t *testing.T) {
	for _, method := range []string{"xz", "zstd", "gzip", "bzip2", "lzip", "lz4", "compress"} {
		for _, text := range []string{"", "x", "this is a string that is no compressed data"} {
			if _, err := unpack(method, []byte(text)); err != ErrUnrecognized {
				t.Errorf("%s of %q: %v", method, text, err)
			}
		}
	}
	if _, err := NewReader("foo", nil); err == nil || err.Error() != "failed to get libarchive filter by name: No such filter 'foo'" || Known("foo") {
		t.Errorf("unknown method: %v", err)
	}
	if _, err := NewWriter("foo", DefaultLevel, false, nil); err == nil || err.Error() != "unknown compression method 'foo'" {
		t.Errorf("unknown method: %v", err)
	}
}

// An error of the source is not one of the format.
func TestSourceError(t *testing.T) {
	data := sample(100_000)
	broken := errors.New("broken")
	for _, method := range written {
		packed := pack(t, method, data)
		r, err := NewReader(method, io.MultiReader(bytes.NewReader(packed[:len(packed)/2]), errorReader{broken}))
		if err == nil {
			_, err = io.ReadAll(r)
		}
		if !errors.Is(err, broken) {
			t.Errorf("%s: %v", method, err)
		}
	}
}

type errorReader struct{ err error }

func (r errorReader) Read([]byte) (int, error) { return 0, r.err }

func TestSniff(t *testing.T) {
	data := sample(1000)
	for _, method := range []string{"xz", "zstd", "gzip", "bzip2", "lz4", "none"} {
		r, got, err := new(Decoders).Sniff(bytes.NewReader(pack(t, method, data)))
		if err != nil || got != method {
			t.Errorf("%s: sniffed %s, %v", method, got, err)
			continue
		}
		if text, err := io.ReadAll(r); err != nil || !bytes.Equal(text, data) {
			t.Errorf("%s: %v", method, err)
		}
		r.Close()
	}
}

// Decoders are used again, and the one before does not show.
func TestReuse(t *testing.T) {
	var d Decoders
	for i := range 20 {
		data := sample(1000 * i)
		r, err := d.NewReader("zstd", bytes.NewReader(pack(t, "zstd", data)))
		if err != nil {
			t.Fatal(err)
		}
		if i%3 == 0 { // left in the middle
			r.Read(make([]byte, 10))
		} else if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, data) {
			t.Fatal(i, err)
		}
		r.Close()
		if _, err := r.Read(make([]byte, 1)); err == nil || err == io.EOF {
			t.Fatal("read after close")
		}
		r.Close()
	}
}

// What the programs lzip 1.23 and ncompress 5.0 have written, in base 64.
const (
	lzipText     = "lzip contents, contents and more contents\n"
	lzipFile     = "TFpJUAEMADYeiVaw28DshNYFWIJS7GaYGaz8IBzxxTqV4f/C3qjnH/5HYAC7R7SqKgAAAAAAAABAAAAAAAAAAA=="
	compressText = "compressed contents, contents and contents again\n"
	compressFile = "H52QY960gSOnzJw5ZciACOiGTpmGc1gsfNPwIZ05IMK4UcjQIcSMZ8KkcaMA"
)

func unbase64(t testing.TB, text string) []byte {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestOldFormats(t *testing.T) {
	lz, z := unbase64(t, lzipFile), unbase64(t, compressFile)
	if got, err := unpack("lzip", lz); err != nil || string(got) != lzipText {
		t.Errorf("lzip: %q, %v", got, err)
	}
	if got, err := unpack("compress", z); err != nil || string(got) != compressText {
		t.Errorf("compress: %q, %v", got, err)
	}
	lz[len(lz)-20]++ // the checksum
	if got, err := unpack("lzip", lz); err == nil {
		t.Errorf("wrong checksum: %q", got)
	}
	if got, err := unpack("lzip", lz[:len(lz)-9]); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("no trailer: %q, %v", got, err)
	}
}

// Streams that ask for more memory than they may have.
func TestHostile(t *testing.T) {
	for name, packed := range map[string]string{
		"zstd": "\x28\xb5\x2f\xfd\x00\xf8" + strings.Repeat("\x00", 20),
		"lzip": "LZIP\x01\x1d" + strings.Repeat("\x00", 40),
		"lzma": "\x5d\xff\xff\xff\xff" + strings.Repeat("\xff", 8) + strings.Repeat("\x00", 20),
	} {
		if got, err := unpack(name, []byte(packed)); err == nil {
			t.Errorf("%s: accepted %d bytes", name, len(got))
		}
	}
}

func FuzzReader(f *testing.F) {
	methods := []string{"xz", "lzma", "zstd", "gzip", "bzip2", "br", "lz4", "lzip", "compress"}
	for i, method := range methods[:7] {
		f.Add(uint8(i), pack(f, method, []byte("some contents contents contents")))
	}
	f.Add(uint8(7), unbase64(f, lzipFile))
	f.Add(uint8(8), unbase64(f, compressFile))
	var d Decoders
	f.Fuzz(func(t *testing.T, which uint8, packed []byte) {
		r, err := d.NewReader(methods[int(which)%len(methods)], bytes.NewReader(packed))
		if err != nil {
			return
		}
		defer r.Close()
		_, _ = io.Copy(io.Discard, io.LimitReader(r, 1<<20))
	})
}

// What has filters that the fast decoder does not know is read all the same.
func TestFilters(t *testing.T) {
	if _, err := exec.LookPath("xz"); err != nil {
		t.Skip("the program xz is not installed")
	}
	data := sample(100_000)
	for _, filter := range []string{"--delta", "--x86"} {
		if got, err := unpack("xz", run(t, []string{"xz", "-c", filter, "--lzma2"}, data)); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s: %d bytes, %v", filter, len(got), err)
		}
	}
}

// Short streams are what there is most of: opening a decoder costs little, once there is one.
func TestReuseIsCheap(t *testing.T) {
	var d Decoders
	for _, method := range []string{"xz", "zstd"} {
		packed := pack(t, method, sample(20_000))
		once := func() {
			r, err := d.NewReader(method, bytes.NewReader(packed))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, r); err != nil {
				t.Fatal(err)
			}
			r.Close()
		}
		once()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range 50 {
			once()
		}
		runtime.ReadMemStats(&after)
		if each := (after.TotalAlloc - before.TotalAlloc) / 50; each > 200_000 {
			t.Errorf("%s: %d bytes allocated for a short stream", method, each)
		}
	}
}

func BenchmarkShort(b *testing.B) {
	var d Decoders
	for _, method := range []string{"xz", "zstd", "gzip", "bzip2"} {
		packed := pack(b, method, sample(20_000))
		b.Run(method, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(20_000)
			for b.Loop() {
				r, err := d.NewReader(method, bytes.NewReader(packed))
				if err != nil {
					b.Fatal(err)
				}
				if _, err := io.Copy(io.Discard, r); err != nil {
					b.Fatal(err)
				}
				r.Close()
			}
		})
	}
}
