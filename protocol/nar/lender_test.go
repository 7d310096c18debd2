package nar

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"nixdaemon/protocol/wire"
)

// lender lends a little at a time, and takes note of it.
type lender struct {
	all  bytes.Buffer
	room [10_000]byte
	lent int
	fail error
}

func (l *lender) Write(p []byte) (int, error) { return l.all.Write(p) }
func (l *lender) Space() ([]byte, error)      { return l.room[:], l.fail }
func (l *lender) Advance(n int) error         { l.lent += n; _, err := l.all.Write(l.room[:n]); return err }
func archiveOf(t *testing.T, size int) []byte {
	t.Helper()
	var out bytes.Buffer
	w := NewWriter(&out)
	text := strings.Repeat("some contents", size/13+1)[:size]
	err := errors.Join(w.Directory(""), w.Regular("a", false, uint64(size), strings.NewReader(text)),
		w.Symlink("b", "a"), w.Regular("c", true, uint64(size), strings.NewReader(text)), w.EndDirectory(), w.Close())
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// TestLender: a copy into lent memory is the archive, however it arrives.
func TestLender(t *testing.T) {
	for _, size := range []int{0, 100, 5_000, 50_000, 500_000} {
		want := archiveOf(t, size)
		for name, r := range map[string]io.Reader{
			"plain":    bytes.NewReader(want),
			"buffered": wire.NewReaderSize(bytes.NewReader(want), 4096),
			"halves":   wire.NewReaderSize(iotest.HalfReader(bytes.NewReader(want)), 64<<10),
		} {
			var l lender
			n, err := Copy(&l, r)
			if err != nil || n != int64(len(want)) || !bytes.Equal(l.all.Bytes(), want) {
				t.Errorf("%s, %d bytes: copied %d of %d, %v", name, size, n, len(want), err)
			}
			if size > 100_000 && l.lent < size {
				t.Errorf("%s, %d bytes: only %d were lent memory for", name, size, l.lent)
			}
		}
	}
}

func TestLenderFails(t *testing.T) {
	full := errors.New("no memory to lend")
	archive := archiveOf(t, 500_000)
	if _, err := Copy(&lender{fail: full}, bytes.NewReader(archive)); err != full {
		t.Errorf("got %v", err)
	}
	if _, err := Copy(&lender{}, bytes.NewReader(archive[:100_000])); err != io.ErrUnexpectedEOF {
		t.Errorf("cut short: %v", err)
	}
}
