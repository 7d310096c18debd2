package nar

import (
	"bytes"
	"errors"
	"testing"
)

// FuzzParse: what is accepted is written back as it was, and all ways of reading agree.
func FuzzParse(f *testing.F) {
	for _, tt := range accepted {
		f.Add([]byte(tt.archive))
	}
	for _, tt := range rejected {
		f.Add([]byte(tt.archive))
	}
	f.Add([]byte(deep(MaxDepth)))
	f.Fuzz(func(t *testing.T, in []byte) {
		var out bytes.Buffer
		w := NewWriter(&out)
		err := Parse(bytes.NewReader(in), w)
		if err == nil {
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			if !bytes.HasPrefix(in, out.Bytes()) {
				t.Fatalf("read %x\nwrote %x", in, out.Bytes())
			}
		}
		for how, reader := range readers {
			var copied bytes.Buffer
			n, copyErr := Copy(&copied, reader(bytes.NewReader(in)))
			if (copyErr == nil) != (err == nil) || err == nil && n != int64(out.Len()) {
				t.Fatalf("%s: copy of %d bytes says %v; parse of %d bytes %v", how, n, copyErr, out.Len(), err)
			}
			if err == nil && !bytes.Equal(copied.Bytes(), out.Bytes()) {
				t.Fatalf("%s: copied %x, want %x", how, copied.Bytes(), out.Bytes())
			}
			if w := NewWriter(&copied); err != nil && errors.Join(Parse(reader(bytes.NewReader(in)), w), w.Close()) == nil {
				t.Fatalf("%s: accepted what was rejected with %v", how, err)
			}
		}
	})
}
