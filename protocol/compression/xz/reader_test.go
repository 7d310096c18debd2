package xz_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	ulikunitz "github.com/ulikunitz/xz"

	"nixdaemon/protocol/compression/xz"
)

// sample is size bytes in which words come again, near and far, amid noise.
func sample(seed uint64, size int) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	var b []byte
	for len(b) < size {
		switch n := r.IntN(1 << r.IntN(10)); {
		case len(b) > n && r.IntN(3) > 0:
			at := r.IntN(len(b) - n)
			b = append(b, b[at:at+n]...)
		case r.IntN(4) == 0:
			b = append(b, bytes.Repeat([]byte{byte(r.IntN(256))}, n)...)
		default:
			for range n {
				b = append(b, byte(r.IntN(256)))
			}
		}
	}
	return b[:size]
}

// pack compresses with a library.
func pack(t testing.TB, c ulikunitz.WriterConfig, data []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := c.NewWriter(&out)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func unpack(packed []byte) ([]byte, error) { return io.ReadAll(xz.NewReader(bytes.NewReader(packed))) }

func TestReadsLibrary(t *testing.T) {
	data := sample(1, 5<<17)
	for _, size := range []int{0, 1, 2, 300, 1 << 16, 1<<16 + 1, 5 << 17} {
		for _, c := range []ulikunitz.WriterConfig{
			{}, {DictCap: 4096}, {DictCap: 1 << 16, CheckSum: ulikunitz.CRC32}, {CheckSum: ulikunitz.SHA256},
			{NoCheckSum: true, BlockSize: 100_000},
		} {
			got, err := unpack(pack(t, c, data[:size]))
			if err != nil || !bytes.Equal(got, data[:size]) {
				t.Errorf("%d bytes, %+v: %d bytes, %v", size, c, len(got), err)
			}
		}
	}
}

// TestReadsProgram reads what the xz program writes in its many ways.
func TestReadsProgram(t *testing.T) {
	if _, err := exec.LookPath("xz"); err != nil {
		t.Skip("no xz program here")
	}
	data := sample(2, 5<<16)
	for _, args := range []string{
		"-0", "-6", "-9e", "--check=none", "--check=crc32", "--check=sha256", "-T2 --block-size=300000",
		"--lzma2=preset=0,dict=4KiB", "--lzma2=preset=1,lc=0,lp=4,pb=0", "--lzma2=preset=1,lc=4,lp=0,pb=4",
		"--lzma2=preset=1,lc=1,lp=2,pb=3,dict=64KiB", "--lzma2=preset=0,mode=fast,mf=hc3,nice=273",
	} {
		cmd := exec.Command("xz", append(strings.Fields(args), "-c")...)
		cmd.Stdin = bytes.NewReader(data)
		packed, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(xz.NewReader(iotest.HalfReader(bytes.NewReader(packed))))
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("xz %s: %d bytes, %v", args, len(got), err)
		}
	}
}

func TestStreamsOneAfterTheOther(t *testing.T) {
	a, b := sample(3, 5000), sample(4, 70000)
	packed := append(pack(t, ulikunitz.WriterConfig{}, a), make([]byte, 8)...)
	packed = append(packed, pack(t, ulikunitz.WriterConfig{CheckSum: ulikunitz.SHA256}, b)...)
	got, err := unpack(append(packed, 0, 0, 0, 0))
	if err != nil || !bytes.Equal(got, append(a, b...)) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if _, err := unpack(append(packed, 0)); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("padding of one byte: %v", err)
	}
	if _, err := unpack(append(packed, "garbage at the end"...)); !errors.Is(err, xz.ErrFormat) {
		t.Errorf("garbage: %v", err)
	}
}

// TestReset reads with one reader what others wrote, also after an error.
func TestReset(t *testing.T) {
	z := xz.NewReader(strings.NewReader("no stream at all"))
	if _, err := io.ReadAll(z); !errors.Is(err, xz.ErrFormat) {
		t.Errorf("no stream: %v", err)
	}
	for i, size := range []int{100, 3 << 18, 0, 7000} {
		data := sample(uint64(i), size)
		packed := pack(t, ulikunitz.WriterConfig{}, data)
		z.Reset(bytes.NewReader(packed[:len(packed)/2]))
		if _, err := io.ReadAll(z); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("half of %d bytes: %v", size, err)
		}
		z.Reset(bytes.NewReader(packed))
		if got, err := io.ReadAll(z); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%d bytes: %d bytes, %v", size, len(got), err)
		}
	}
}

// TestCut wants an error for each way to cut a file short.
func TestCut(t *testing.T) {
	packed := pack(t, ulikunitz.WriterConfig{BlockSize: 500}, sample(5, 1500))
	for n := range packed {
		if _, err := unpack(packed[:n]); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%d of %d bytes: %v", n, len(packed), err)
		}
	}
}

// TestDamaged wants an error for each bit that is not as it was.
func TestDamaged(t *testing.T) {
	packed := pack(t, ulikunitz.WriterConfig{BlockSize: 500, CheckSum: ulikunitz.SHA256}, sample(6, 900))
	for i := range packed {
		for b := range 8 {
			damaged := bytes.Clone(packed)
			damaged[i] ^= 1 << b
			if _, err := unpack(damaged); err == nil {
				t.Errorf("bit %d of byte %d: no error", b, i)
			}
		}
	}
}

func TestRefuses(t *testing.T) {
	for _, c := range []struct {
		args string
		want error
	}{
		{"--x86 --lzma2=preset=0", xz.ErrFilter},
		{"--delta --lzma2=preset=0", xz.ErrFilter},
		{"--lzma2=preset=0,dict=1GiB", nil},
		{"--lzma2=preset=0,dict=1100MiB", xz.ErrFilter},
		{"--format=lzma", xz.ErrFormat},
	} {
		t.Run(c.args, func(t *testing.T) {
			cmd := exec.Command("xz", append(strings.Fields(c.args), "-c")...)
			cmd.Stdin = strings.NewReader("small, but with a large dictionary")
			packed, err := cmd.Output()
			if errors.Is(err, exec.ErrNotFound) {
				t.Skip("no xz program here")
			}
			if err != nil {
				t.Fatal(err)
			}
			before := allocated()
			if _, err := unpack(packed); !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
			if n := allocated() - before; n > 1<<20 {
				t.Errorf("%d bytes allocated", n)
			}
		})
	}
}

func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

// FuzzReader wants that everything ends, and that what we read is what a library reads.
func FuzzReader(f *testing.F) {
	for i, c := range []ulikunitz.WriterConfig{{}, {DictCap: 4096, BlockSize: 300}, {CheckSum: ulikunitz.SHA256}, {NoCheckSum: true}} {
		f.Add(pack(f, c, sample(uint64(i), 700)))
	}
	f.Fuzz(func(t *testing.T, packed []byte) {
		got, err := io.ReadAll(io.LimitReader(xz.NewReader(bytes.NewReader(packed)), 1<<24))
		if err != nil {
			return
		}
		z, err := ulikunitz.NewReader(bytes.NewReader(packed))
		if err != nil {
			return
		}
		want, err := io.ReadAll(io.LimitReader(z, 1<<24))
		if err == nil && !bytes.Equal(got, want) {
			t.Errorf("%d bytes, the library has %d", len(got), len(want))
		}
	})
}

func BenchmarkReader(b *testing.B) {
	for _, size := range []int{20_000, 8 << 20} {
		data := sample(7, size)
		packed := pack(b, ulikunitz.WriterConfig{}, data)
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			b.SetBytes(int64(size))
			b.ReportAllocs()
			z := xz.NewReader(nil)
			for b.Loop() {
				z.Reset(bytes.NewReader(packed))
				if _, err := io.Copy(io.Discard, z); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
