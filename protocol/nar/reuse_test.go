package nar

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"nixdaemon/protocol/wire"
)

// TestParserAgain: a Parser that has met other archives, whole, broken and refused, does as a new one.
func TestParserAgain(t *testing.T) {
	var p Parser
	refused := errors.New("refused")
	for _, size := range []int{50_000, 0, 300_000, 100, 5_000} {
		want := archiveOf(t, size)
		var tee bytes.Buffer
		n, err := p.ParseTee(wire.NewReaderSize(bytes.NewReader(want), 4096), &tee, ignore{})
		if err != nil || n != int64(len(want)) || !bytes.Equal(tee.Bytes(), want) {
			t.Errorf("%d bytes: passed on %d of %d, %v", size, n, len(want), err)
		}
		if err := p.Parse(bytes.NewReader(want), ignore{}); err != nil {
			t.Errorf("%d bytes, without a tee: %v", size, err)
		}
		if _, err := p.ParseTee(bytes.NewReader(want[:len(want)-20]), &tee, ignore{}); err != io.ErrUnexpectedEOF {
			t.Errorf("%d bytes, cut short: %v", size, err)
		}
		h := funcs{regular: func(io.Reader) error { return refused }}
		if _, err := p.ParseTee(bytes.NewReader(want), &tee, h); err != refused {
			t.Errorf("%d bytes, refused: %v", size, err)
		}
	}
}

// TestParserAllocates: what moves contents is allocated once for all archives of a Parser.
func TestParserAllocates(t *testing.T) {
	archive := archiveOf(t, 20_000)
	src := bytes.NewReader(archive)
	r := wire.NewReader(src)
	var p Parser
	allocated := testing.AllocsPerRun(100, func() {
		src.Reset(archive)
		r.Reset(src)
		if _, err := p.ParseTee(r, io.Discard, ignore{}); err != nil {
			t.Fatal(err)
		}
	})
	if allocated > 2 {
		t.Errorf("%v allocations for each archive", allocated)
	}
}
