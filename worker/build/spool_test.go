package build

import (
	"errors"
	"io"
	"os"
	"strings"
	"testing"
)

// TestSpoolIsBounded: what a builder prints and nobody reads takes so much and no more, and all of it is given back.
func TestSpoolIsBounded(t *testing.T) {
	s := newSpool(t.TempDir())
	long := []byte(strings.Repeat("x", 2*transcriptHead))
	first, second := &transcript{spool: s}, &transcript{spool: s}
	r := second.open()
	for _, tr := range []*transcript{first, second} {
		if _, err := tr.Write(long); err != nil || tr.err != nil {
			t.Fatal(err, tr.err)
		}
	}
	s.taken += mostSpooled - 3*transcriptHead // by others: there is room for one more
	for range 2 {
		second.Write(long[:transcriptHead])
	}
	got, err := readAll(t.Context(), r)
	if !errors.Is(err, ErrLogLost) || len(got) != 3*transcriptHead {
		t.Errorf("read %d bytes, %v", len(got), err)
	}
	s.taken -= mostSpooled - 3*transcriptHead
	first.taken += mostEach - transcriptHead - 1
	s.taken += mostEach - transcriptHead - 1
	if first.Write(long[:2]); !errors.Is(first.err, ErrLogLost) {
		t.Errorf("one has more than its share: %v", first.err)
	}
	first.end()
	second.end()
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if s.taken != 0 || len(s.lingering) != 0 {
		t.Errorf("%d bytes are not given back, %d linger", s.taken, len(s.lingering))
	}
}

// stall gives a reader of a log that has ended, which takes so many bytes more than it has.
func stall(s *spool, text string, more int64) *LogReader {
	tr := &transcript{spool: s}
	r := tr.open()
	io.WriteString(tr, text)
	tr.taken += more
	s.taken += more
	tr.end()
	tr.end()
	return r
}

// TestLongLogsThatStall leave room for the logs of what runs.
func TestLongLogsThatStall(t *testing.T) {
	s := newSpool(t.TempDir())
	for range 10 {
		r := stall(s, strings.Repeat("x", 2*transcriptHead), mostEach-transcriptHead)
		defer r.Close()
	}
	if s.taken != mostSpooled/2 || len(s.lingering) != mostSpooled/2/mostEach {
		t.Errorf("%d linger, with %d bytes", len(s.lingering), s.taken)
	}
}

// TestReadersThatStall: logs that nobody reads on are dropped, the oldest first, when other builds end.
func TestReadersThatStall(t *testing.T) {
	s := newSpool(t.TempDir())
	text := strings.Repeat("x", 2*transcriptHead)
	var readers []*LogReader
	const tooMany = 3
	for range mostLingering + tooMany {
		readers = append(readers, stall(s, text, 0))
	}
	if n := len(s.lingering); n != mostLingering || s.taken != mostLingering*transcriptHead {
		t.Errorf("%d linger, with %d bytes", n, s.taken)
	}
	for i, r := range readers {
		got, err := readAll(t.Context(), r)
		if i < tooMany {
			if !errors.Is(err, ErrLogLost) || got != text[:transcriptHead] {
				t.Errorf("%d: read %d bytes, %v", i, len(got), err)
			}
			r.Close()
		} else if err != nil || got != text {
			t.Errorf("%d: read %d bytes, %v", i, len(got), err)
		}
	}
	if len(s.lingering) != 0 || s.taken != 0 {
		t.Errorf("at last %d linger, with %d bytes", len(s.lingering), s.taken)
	}
	if left, err := os.ReadDir(s.dir); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
