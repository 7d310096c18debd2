package narinfo_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"

	"nixdaemon/protocol/nar"
	"nixdaemon/protocol/narinfo"
)

// archive makes the archive of a tree of each kind of node.
func archive(t testing.TB) []byte {
	t.Helper()
	var b bytes.Buffer
	w := nar.NewWriter(&b)
	file := func(name string, executable bool, text string) error {
		return w.Regular(name, executable, uint64(len(text)), strings.NewReader(text))
	}
	err := errors.Join(
		w.Directory(""),
		w.Directory("d"), w.EndDirectory(),
		file("empty", false, ""),
		file("f", false, "hi\n"),
		w.Symlink("l", "f\"\u00e4"),
		w.Directory("lib"), w.Directory("deep"), file("x", false, "x\n"), w.EndDirectory(), w.EndDirectory(),
		file("x", true, "#!/bin/sh\n"),
		w.EndDirectory(),
		w.Close(),
	)
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func list(t testing.TB, data []byte) (string, error) {
	t.Helper()
	var b strings.Builder
	l := narinfo.NewListing(&b)
	if err := nar.Parse(bytes.NewReader(data), l); err != nil {
		return "", err
	}
	err := l.Finish()
	return b.String(), err
}

func TestListing(t *testing.T) {
	data := archive(t)
	var b strings.Builder
	l := narinfo.NewListing(&b)
	if err := errors.Join(nar.Parse(bytes.NewReader(data), l), l.Finish()); err != nil {
		t.Fatal(err)
	}
	// The order and the spelling are those of upstream's file for such a tree.
	const want = `{"root":{"entries":{"d":{"entries":{},"type":"directory"},"empty":{"narOffset":400,"size":0,"type":"regular"},` +
		`"f":{"narOffset":584,"size":3,"type":"regular"},"l":{"target":"f\"` + "\u00e4" + `","type":"symlink"},` +
		`"lib":{"entries":{"deep":{"entries":{"x":{"narOffset":1240,"size":2,"type":"regular"}},"type":"directory"}},"type":"directory"},` +
		`"x":{"executable":true,"narOffset":1528,"size":10,"type":"regular"}},"type":"directory"},"version":1}`
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
}

// TestListingOffsets looks for the contents where the listing says that they are.
func TestListingOffsets(t *testing.T) {
	data := archive(t)
	text, err := list(t, data)
	if err != nil {
		t.Fatal(err)
	}
	files := 0
	eachFile(t, text, func(offset, size uint64) {
		files++
		want := map[uint64]string{0: "", 3: "hi\n", 2: "x\n", 10: "#!/bin/sh\n"}[size]
		if got := string(data[offset : offset+size]); got != want {
			t.Errorf("at %d: %q, want %q", offset, got, want)
		}
	})
	if files != 4 {
		t.Errorf("%d files, want 4", files)
	}
}

func eachFile(t testing.TB, text string, f func(offset, size uint64)) {
	t.Helper()
	type node struct {
		Type            string
		NarOffset, Size uint64
		Entries         map[string]json.RawMessage
	}
	var walk func(raw json.RawMessage)
	walk = func(raw json.RawMessage) {
		var n node
		if err := json.Unmarshal(raw, &n); err != nil {
			t.Fatalf("%v in %q", err, raw)
		}
		if n.Type == "regular" {
			f(n.NarOffset, n.Size)
		}
		for _, e := range n.Entries {
			walk(e)
		}
	}
	var top struct{ Root json.RawMessage }
	if err := json.Unmarshal([]byte(text), &top); err != nil {
		t.Fatalf("%v in %q", err, text)
	}
	walk(top.Root)
}

// badWriter fails.
type badWriter struct{}

func (badWriter) Write([]byte) (int, error) { return 0, io.ErrShortWrite }

func TestListingErrors(t *testing.T) {
	var b bytes.Buffer
	w := nar.NewWriter(&b)
	if err := errors.Join(w.Directory(""), w.Symlink("\xff", "x"), w.EndDirectory(), w.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := list(t, b.Bytes()); err == nil || !strings.Contains(err.Error(), "UTF-8") {
		t.Errorf("a name that is no text: %v", err)
	}
	l := narinfo.NewListing(badWriter{})
	if err := errors.Join(nar.Parse(bytes.NewReader(archive(t)), l), l.Finish()); !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("writer that fails: %v", err)
	}
}

// FuzzListing holds the offsets against the archive of whatever there is.
func FuzzListing(f *testing.F) {
	f.Add(archive(f))
	f.Fuzz(func(t *testing.T, data []byte) {
		text, err := list(t, data)
		if err != nil {
			return
		}
		eachFile(t, text, func(offset, size uint64) {
			if offset < 8 || offset+size > uint64(len(data)) {
				t.Fatalf("contents of %d bytes at %d of %d", size, offset, len(data))
			}
			if offset%8 != 0 {
				t.Fatalf("contents at %d", offset)
			}
			if got := data[offset-8]; got != byte(size) {
				t.Fatalf("the length before the contents ends in %d, want %d", got, byte(size))
			}
		})
	})
}
