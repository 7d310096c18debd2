package wire

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

// golden is the documentation of the format: a value, its bytes, and both ways between them.
var golden = []struct {
	name   string
	hex    string
	write  func(*Writer) error
	read   func(*Reader) (any, error)
	want   any
	oneWay bool // readers accept it, writers never send it
}{
	{"zero", "0000000000000000",
		func(w *Writer) error { return w.Uint64(0) }, readAny((*Reader).Uint64), uint64(0), false},
	{"little endian", "0807060504030201",
		func(w *Writer) error { return w.Uint64(0x0102030405060708) }, readAny((*Reader).Uint64), uint64(0x0102030405060708), false},
	{"largest", "ffffffffffffffff",
		func(w *Writer) error { return w.Int64(-1) }, readAny((*Reader).Uint64), uint64(1<<64 - 1), false},
	{"uint32", "ffffffff00000000",
		func(w *Writer) error { return w.Uint64(1<<32 - 1) }, readAny((*Reader).Uint32), uint32(1<<32 - 1), false},
	{"uint8", "ff00000000000000",
		func(w *Writer) error { return w.Uint64(255) }, readAny((*Reader).Uint8), uint8(255), false},
	{"time", "80a8126800000000",
		func(w *Writer) error { return w.Int64(1746053248) }, readAny((*Reader).Int64), int64(1746053248), false},
	{"true", "0100000000000000",
		func(w *Writer) error { return w.Bool(true) }, readAny((*Reader).Bool), true, false},
	{"false", "0000000000000000",
		func(w *Writer) error { return w.Bool(false) }, readAny((*Reader).Bool), false, false},
	{"any true", "0000000000000080",
		nil, readAny((*Reader).Bool), true, true},
	{"empty string", "0000000000000000",
		func(w *Writer) error { return w.String("") }, readString(0), "", false},
	{"string of 1", "0100000000000000 6100000000000000",
		func(w *Writer) error { return w.String("a") }, readString(1), "a", false},
	{"string of 7", "0700000000000000 6162636465666700",
		func(w *Writer) error { return w.String("abcdefg") }, readString(7), "abcdefg", false},
	{"string of 8", "0800000000000000 6162636465666768",
		func(w *Writer) error { return w.String("abcdefgh") }, readString(8), "abcdefgh", false},
	{"string of 9", "0900000000000000 6162636465666768 6900000000000000",
		func(w *Writer) error { return w.String("abcdefghi") }, readString(9), "abcdefghi", false},
	{"bytes", "0300000000000000 00ff000000000000",
		func(w *Writer) error { return w.Bytes([]byte{0, 0xff, 0}) },
		func(r *Reader) (any, error) { return r.Bytes(3) }, []byte{0, 0xff, 0}, false},
	{"empty list", "0000000000000000",
		func(w *Writer) error { return w.Strings(nil) }, readStrings, []string(nil), false},
	{"list", "0200000000000000 0100000000000000 6200000000000000 0000000000000000",
		func(w *Writer) error { return w.Strings([]string{"b", ""}) }, readStrings, []string{"b", ""}, false},
	{"empty framed stream", "0000000000000000",
		writeFramed(""), readFramed, "", false},
	{"framed stream", "0300000000000000 616263 0000000000000000",
		writeFramed("abc"), readFramed, "abc", false},
	{"framed stream of two", "0100000000000000 61 0200000000000000 6263 0000000000000000",
		nil, readFramed, "abc", true},
}

func readAny[T any](f func(*Reader) (T, error)) func(*Reader) (any, error) {
	return func(r *Reader) (any, error) { return f(r) }
}

func readString(limit int) func(*Reader) (any, error) {
	return func(r *Reader) (any, error) { return r.String(limit) }
}

func readStrings(r *Reader) (any, error) { return r.Strings(10, 10) }

func writeFramed(s string) func(*Writer) error {
	return func(w *Writer) error {
		f := w.Framed()
		if _, err := io.WriteString(f, s); err != nil {
			return err
		}
		return f.Close()
	}
}

func readFramed(r *Reader) (any, error) {
	b, err := io.ReadAll(r.Framed())
	return string(b), err
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestGoldenRead(t *testing.T) {
	for _, tt := range golden {
		t.Run(tt.name, func(t *testing.T) {
			in := append(unhex(t, tt.hex), "next"...)
			for name, wrap := range map[string]func(io.Reader) io.Reader{
				"whole":      func(r io.Reader) io.Reader { return r },
				"one byte":   iotest.OneByteReader,
				"half":       iotest.HalfReader,
				"data + err": iotest.DataErrReader,
			} {
				r := NewReaderSize(wrap(bytes.NewReader(in)), 0)
				got, err := tt.read(r)
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				if diff := cmp.Diff(tt.want, got); diff != "" {
					t.Errorf("%s: want - got +\n%s", name, diff)
				}
				if rest, err := io.ReadAll(r); string(rest) != "next" || err != nil {
					t.Errorf("%s: behind the value got %q, %v", name, rest, err)
				}
			}
		})
	}
}

func TestGoldenWrite(t *testing.T) {
	for _, tt := range golden {
		if tt.oneWay {
			continue
		}
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			w := NewWriter(&out)
			if err := tt.write(w); err != nil {
				t.Fatal(err)
			}
			if err := w.Flush(); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(hex.Dump(unhex(t, tt.hex)), hex.Dump(out.Bytes())); diff != "" {
				t.Errorf("want - got +\n%s", diff)
			}
		})
	}
}

// Every value cut short anywhere must say so, and only a value that has not begun is a clean end.
func TestTruncated(t *testing.T) {
	for _, tt := range golden {
		t.Run(tt.name, func(t *testing.T) {
			in := unhex(t, tt.hex)
			for n := range in {
				want := io.ErrUnexpectedEOF
				if n == 0 && !strings.Contains(tt.name, "framed") {
					want = io.EOF
				}
				_, err := tt.read(NewReader(bytes.NewReader(in[:n])))
				if !errors.Is(err, want) {
					t.Errorf("first %d of %d bytes: got %v, want %v", n, len(in), err, want)
				}
			}
		})
	}
}

func TestMalformed(t *testing.T) {
	for _, tt := range []struct {
		name, hex string
		read      func(*Reader) (any, error)
		want      string
	}{
		{"uint32", "0000000001000000", readAny((*Reader).Uint32),
			"serialised integer 4294967296 is too large for type 'j'"},
		{"uint8", "0001000000000000", readAny((*Reader).Uint8),
			"serialised integer 256 is too large for type 'h'"},
		{"int64", "ffffffffffffffff", readAny((*Reader).Int64),
			"serialised integer 18446744073709551615 is too large for type 'l'"},
		{"string", "0500000000000000 6162636465000000", readString(4), "string is too long"},
		{"string beyond memory", "ffffffffffffffff", readString(MaxString), "string is too long"},
		{"negative limit", "0000000000000000", readString(-1), "string is too long"},
		{"first padding byte", "0700000000000000 6162636465666701", readString(9), "non-zero padding"},
		{"last padding byte", "0100000000000000 6100000000000080", readString(9), "non-zero padding"},
		{"padding of bytes", "0100000000000000 6100000001000000",
			func(r *Reader) (any, error) { return r.Bytes(9) }, "non-zero padding"},
		{"count", "0b00000000000000", readStrings, "list of 11 elements exceeds the limit of 10"},
		{"count beyond int", "ffffffffffffffff", readStrings,
			"list of 18446744073709551615 elements exceeds the limit of 10"},
		{"element", "0100000000000000 0b00000000000000", readStrings, "string is too long"},
		{"frame", "0000000001000000", readFramed,
			"serialised integer 4294967296 is too large for type 'j'"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := tt.read(NewReader(bytes.NewReader(unhex(t, tt.hex))))
			var malformed *Error
			if !errors.As(err, &malformed) || err.Error() != tt.want {
				t.Errorf("got %#v, want %q", err, tt.want)
			}
		})
	}
}
