package wire

import (
	"bytes"
	"io"
	"testing"
)

// fuzzLimit is far below the sizes that inputs can claim.
const fuzzLimit = 1 << 16

// FuzzReaderValues decodes what follows by the kinds that a leading string names;
// what was accepted must encode to the bytes that were consumed.
func FuzzReaderValues(f *testing.F) {
	for _, tt := range golden {
		f.Add("ijhlsbS", unhex(f, tt.hex))
	}
	f.Add("Ss", unhex(f, "0200000000000000 0100000000000000 6200000000000000 0000000000000000 0100000000000000 6100000000000001"))
	f.Fuzz(func(t *testing.T, kinds string, in []byte) {
		r := NewReaderSize(bytes.NewReader(in), 64)
		r.SetBudget(fuzzLimit)
		var out bytes.Buffer
		w := NewWriter(&out)
		for _, kind := range kinds {
			if !copyValue(t, r, w, kind) {
				break
			}
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		if !bytes.HasPrefix(in, out.Bytes()) {
			t.Errorf("read %x\nwrote %x", in, out.Bytes())
		}
	})
}

// copyValue moves one value from r to w, and reports whether there was one.
func copyValue(t *testing.T, r *Reader, w *Writer, kind rune) bool {
	var err, writeErr error
	switch kind {
	case 'i':
		var n uint64
		if n, err = r.Uint64(); err == nil {
			writeErr = w.Uint64(n)
		}
	case 'j':
		var n uint32
		if n, err = r.Uint32(); err == nil {
			writeErr = w.Uint64(uint64(n))
		}
	case 'h':
		var n uint8
		if n, err = r.Uint8(); err == nil {
			writeErr = w.Uint64(uint64(n))
		}
	case 'l':
		var n int64
		if n, err = r.Int64(); err == nil {
			writeErr = w.Int64(n)
		}
	case 's':
		var s string
		if s, err = r.String(fuzzLimit); err == nil {
			writeErr = w.String(s)
		}
	case 'b':
		var b []byte
		if b, err = r.Bytes(fuzzLimit); err == nil {
			writeErr = w.Bytes(b)
		}
	case 'S':
		var list []string
		if list, err = r.Strings(fuzzLimit, fuzzLimit); err == nil {
			writeErr = w.Strings(list)
		}
	default:
		return true
	}
	if writeErr != nil {
		t.Fatal(writeErr)
	}
	return err == nil
}

// FuzzReaderFramed reads a framed stream in three ways that must agree on its contents and on where it ends.
func FuzzReaderFramed(f *testing.F) {
	for _, tt := range golden {
		f.Add(unhex(f, tt.hex))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		type result struct {
			data []byte
			rest []byte
			ok   bool
		}
		read := func(receive func(*FramedReader) ([]byte, error)) result {
			r := NewReaderSize(bytes.NewReader(in), 64)
			data, err := receive(r.Framed())
			if err != nil {
				return result{data: data}
			}
			rest, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			return result{data, rest, true}
		}
		want := read(receivers["read"])
		for name, receive := range receivers {
			got := read(receive)
			if got.ok != want.ok || want.ok && !bytes.Equal(got.data, want.data) || !bytes.Equal(got.rest, want.rest) {
				t.Errorf("%s: got %v, want %v", name, got, want)
			}
		}
		if !want.ok {
			return
		}
		if drained := read(func(f *FramedReader) ([]byte, error) { return nil, f.Drain() }); !bytes.Equal(drained.rest, want.rest) {
			t.Errorf("drain leaves %x, want %x", drained.rest, want.rest)
		}
	})
}
