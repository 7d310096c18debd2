package localstore

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"

	"nixdaemon/protocol/nixhash"
)

func newSpool(limit int, consume func(io.Reader) error) *spool {
	return &spool{limit: limit, sum: newHashWriter(nixhash.SHA256), consume: consume}
}

// TestSpool: whatever the size, hash and contents are those of what was written, in memory or with the consumer.
func TestSpool(t *testing.T) {
	const limit = 3 << 20
	for _, size := range []int{0, 1, minPiece, limit - 1, limit, limit + 1, limit + maxPiece, 4*limit + 17} {
		data := strings.Repeat("0123456789abcdef7", size/17+1)[:size]
		writes := map[string]func(*spool) error{
			"Write": func(sp *spool) error {
				for rest := []byte(data); len(rest) > 0; {
					n := min(len(rest), 100_000)
					if _, err := sp.Write(rest[:n]); err != nil {
						return err
					}
					rest = rest[n:]
				}
				return nil
			},
			"ReadFrom": func(sp *spool) error { _, err := sp.ReadFrom(strings.NewReader(data)); return err },
		}
		for name, write := range writes {
			var consumed bytes.Buffer
			sp := newSpool(limit, func(r io.Reader) error { _, err := io.Copy(&consumed, r); return err })
			if err := sp.close(write(sp)); err != nil {
				t.Fatalf("%s %d bytes: %v", name, size, err)
			}
			if _, err := sp.reader().WriteTo(&consumed); err != nil {
				t.Fatal(err)
			}
			if consumed.String() != data {
				t.Errorf("%s %d bytes: contents differ", name, size)
			}
			if hash, n := sp.sum.finish(); hash != nixhash.Of(nixhash.SHA256, data) || n != uint64(size) {
				t.Errorf("%s %d bytes: hash %v of %d bytes", name, size, hash, n)
			}
		}
	}
}

// TestSpoolWithoutConsumer: a consumer that gives up, at whatever time, stops the writer.
func TestSpoolWithoutConsumer(t *testing.T) {
	full := errors.New("disk is full")
	for _, after := range []int64{0, 1 << 20, 5 << 20} {
		sp := newSpool(2<<20, func(r io.Reader) error {
			io.CopyN(io.Discard, r, after)
			return full
		})
		_, err := io.Copy(writerOnly{sp}, io.LimitReader(zeros{}, 64<<20))
		if err = sp.close(err); err != full {
			t.Errorf("after %d bytes: %v", after, err)
		}
		sp.sum.stop()
	}
}

// TestSpoolBrokenOff: the consumer learns that the stream ended early.
func TestSpoolBrokenOff(t *testing.T) {
	var got error
	sp := newSpool(1<<20, func(r io.Reader) error { _, got = io.Copy(io.Discard, r); return got })
	if _, err := sp.Write(make([]byte, 3<<20)); err != nil {
		t.Fatal(err)
	}
	if err := sp.close(io.ErrUnexpectedEOF); err != io.ErrUnexpectedEOF || got != io.ErrUnexpectedEOF {
		t.Errorf("got %v, the consumer %v", err, got)
	}
}

// writerOnly hides ReadFrom.
type writerOnly struct{ io.Writer }

// TestSpoolBorrows has one stream after the other use the same memory.
func TestSpoolBorrows(t *testing.T) {
	var pool sync.Pool
	for _, text := range []string{strings.Repeat("long", 2000), "short", strings.Repeat("x", minPiece), ""} {
		sp := newSpool(1<<20, nil)
		sp.pool = &pool
		if _, err := sp.ReadFrom(strings.NewReader(text)); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(sp.reader())
		if string(got) != text || err != nil {
			t.Errorf("%d bytes came back as %d, %v", len(text), len(got), err)
		}
		sp.sum.stop()
		sp.release()
		if len(sp.pieces) != 0 {
			t.Error("lent memory is still in use")
		}
	}
}
