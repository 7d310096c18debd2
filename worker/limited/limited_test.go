package limited_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"nixdaemon/localstore"
	"nixdaemon/protocol"
	"nixdaemon/protocol/nar"
	"nixdaemon/protocol/storepath"
	"nixdaemon/protocol/wire"
	"nixdaemon/worker"
	"nixdaemon/worker/limited"
)

var (
	_ worker.Collector = limited.Store{}
	_ worker.TempRoots = limited.Roots(nil)
)

// TestRefusals checks the texts, which clients show.
func TestRefusals(t *testing.T) {
	s := limited.New(func() string { return "dummy://" })
	ctx := context.Background()
	_, perm := s.AddPermRoot(ctx, storepath.Path{}, "/x")
	_, roots := s.FindRoots(ctx, nil, false)
	_, collect := s.Collect(ctx, nil, protocol.GCRequest{})
	for want, err := range map[string]error{
		"operation 'x' is not supported by store 'dummy://'":               s.Unsupported("x"),
		"Indirect GC roots registration not supported by store 'dummy://'": s.AddIndirectRoot(ctx, "/x"),
		"Local Filesystem Store not supported by store 'dummy://'":         perm,
		"Garbage collection not supported by store 'dummy://'":             errors.Join(roots),
	} {
		if err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	if collect == nil || collect.Error() != roots.Error() {
		t.Errorf("collect: %v", collect)
	}
	if bad, err := s.Verify(ctx, localstore.VerifyOptions{}); bad || err != nil {
		t.Errorf("verify: %v, %v", bad, err)
	}
}

func TestRootsClose(t *testing.T) {
	closed := 0
	r := limited.Roots(func() error { closed++; return io.ErrClosedPipe })
	if err := r.Add(context.Background(), storepath.Path{}); err != nil || closed != 0 {
		t.Errorf("add: %v, closed %d times", err, closed)
	}
	if err := r.Close(); err != io.ErrClosedPipe || closed != 1 {
		t.Errorf("close: %v, %d times", err, closed)
	}
}

// TestEntriesEnd breaks the stream off before the number, before an entry and within one.
func TestEntriesEnd(t *testing.T) {
	for _, data := range []string{"", "\x01\x00\x00\x00\x00\x00\x00\x00", "\x01\x00\x00\x00\x00\x00\x00\x00\x05"} {
		next := limited.Entries(protocol.NewReader(wire.NewReader(strings.NewReader(data)), storepath.DefaultDir, protocol.ClientVersion()))
		if _, _, err := next(); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%q: %v", data, err)
		}
	}
	next := limited.Entries(protocol.NewReader(wire.NewReader(strings.NewReader(strings.Repeat("\x00", 8))), storepath.DefaultDir, protocol.ClientVersion()))
	for range 2 {
		if _, _, err := next(); err != io.EOF {
			t.Errorf("none: %v", err)
		}
	}
}

func TestOneFile(t *testing.T) {
	var dir, file bytes.Buffer
	w := nar.NewWriter(&dir)
	if err := errors.Join(w.Directory(""), w.EndDirectory(), w.Close()); err != nil {
		t.Fatal(err)
	}
	w = nar.NewWriter(&file)
	if err := errors.Join(w.Regular("", true, 2, strings.NewReader("hi")), w.Close()); err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	use := limited.OneFile(func(r io.Reader) error { _, err := got.ReadFrom(r); return err })
	if err := nar.Parse(&dir, use); !errors.Is(err, limited.ErrNotFlat) {
		t.Errorf("directory: %v", err)
	}
	if err := nar.Parse(&file, use); err != nil || got.String() != "hi" {
		t.Errorf("file: %q, %v", got.String(), err)
	}
}
