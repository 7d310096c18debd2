package export

import (
	"bytes"
	"context"
	"io"
	"strings"
	"testing"

	"nixdaemon/protocol/nar"
	"nixdaemon/protocol/nar/nartest"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
	"nixdaemon/protocol/wire"
)

// memory keeps an archive in memory.
type memory struct{ bytes.Buffer }

func (m *memory) Archive() (io.Reader, error) { return &m.Buffer, nil }
func (m *memory) Close() error                { return nil }

func inMemory(context.Context) (Kept, error) { return &memory{}, nil }

// file gives a path that holds a text, and its archive.
func file(t testing.TB, base, text string, refs ...storepath.Path) (*pathinfo.Info, []byte) {
	t.Helper()
	p, err := storepath.ParseBase(base)
	if err != nil {
		t.Fatal(err)
	}
	archive := nartest.File(text)
	return &pathinfo.Info{Path: p, References: refs, NarHash: nixhash.Of(nixhash.SHA256, string(archive)),
		NarSize: uint64(len(archive))}, archive
}

// stream is an export of two paths.
func stream(t testing.TB) []byte {
	var out bytes.Buffer
	w := wire.NewWriter(&out)
	a, archiveA := file(t, "g1w7hy3qg1w7hy3qg1w7hy3qg1w7hy3q-a", "one")
	b, archiveB := file(t, "n5wkd9frr45pa74if5gpz9j7mifg27fh-b", "two", a.Path)
	b.Deriver = a.Path
	for _, p := range []struct {
		info    *pathinfo.Info
		archive []byte
	}{{a, archiveA}, {b, archiveB}} {
		w.Uint64(1)
		w.Flush()
		err := WritePath(&out, storepath.DefaultDir, p.info, func(w io.Writer) error {
			_, err := w.Write(p.archive)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	w.Uint64(0)
	w.Flush()
	return out.Bytes()
}

func TestRoundTrip(t *testing.T) {
	var got []*pathinfo.Info
	paths, err := Read(t.Context(), bytes.NewReader(stream(t)), storepath.DefaultDir, inMemory,
		func(_ context.Context, info *pathinfo.Info, archive io.Reader) error {
			got = append(got, info)
			return nar.Skip(archive)
		})
	if err != nil || len(paths) != 2 || len(got) != 2 {
		t.Fatalf("got %v, %v", paths, err)
	}
	b := got[1]
	if b.Deriver != paths[0] || len(b.References) != 1 || b.References[0] != paths[0] || b.NarSize == 0 || b.NarHash.IsZero() {
		t.Errorf("got %+v", b)
	}
}

func TestChangedContents(t *testing.T) {
	info, archive := file(t, "g1w7hy3qg1w7hy3qg1w7hy3qg1w7hy3q-a", "one")
	info.NarHash = nixhash.Of(nixhash.SHA256, "other")
	err := WritePath(io.Discard, storepath.DefaultDir, info, func(w io.Writer) error {
		_, err := w.Write(archive)
		return err
	})
	if err == nil || !strings.Contains(err.Error(), "has changed from") {
		t.Errorf("got %v", err)
	}
}

// TestMalformed cuts a stream off everywhere and spoils its marks.
func TestMalformed(t *testing.T) {
	whole := stream(t)
	add := func(_ context.Context, _ *pathinfo.Info, archive io.Reader) error { return nar.Skip(archive) }
	for n := range len(whole) {
		if _, err := Read(t.Context(), bytes.NewReader(whole[:n]), storepath.DefaultDir, inMemory, add); err == nil {
			t.Fatalf("a stream of %d of %d bytes was accepted", n, len(whole))
		}
	}
	for _, tt := range []struct{ old, bad, want string }{
		{"\x01\x00\x00\x00\x00\x00\x00\x00", "\x02\x00\x00\x00\x00\x00\x00\x00", "doesn't look like something created by"},
		{"NIXE", "NIXF", "wrong format"},
		{"/nix/store/g1", "/etc/store/g1", "is not in the Nix store"},
	} {
		spoilt := strings.Replace(string(whole), tt.old, tt.bad, 1)
		_, err := Read(t.Context(), strings.NewReader(spoilt), storepath.DefaultDir, inMemory, add)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: got %v, want %s", tt.bad, err, tt.want)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add(stream(f))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		Read(t.Context(), bytes.NewReader(data), storepath.DefaultDir, inMemory,
			func(_ context.Context, info *pathinfo.Info, archive io.Reader) error {
				if info.Path.IsZero() {
					t.Error("a path without a name")
				}
				return nar.Skip(archive)
			})
	})
}
