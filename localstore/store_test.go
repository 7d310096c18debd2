package localstore

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
)

// open gives a store in a temporary directory.
func open(t testing.TB, change func(*Options)) *Store {
	t.Helper()
	o := testOptions(t)
	if change != nil {
		change(&o)
	}
	s, err := Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func testOptions(t testing.TB) Options {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	o := DefaultOptions()
	o.StoreDir = storepath.Dir(filepath.Join(dir, "store"))
	o.StateDir = filepath.Join(dir, "var")
	o.LogDir = filepath.Join(dir, "log")
	o.ReservedSpace = 1 << 12
	t.Cleanup(func() { makeDeletable(dir) })
	return o
}

// makeDeletable lets a user who is not root remove what a store made.
func makeDeletable(dir string) {
	filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			os.Chmod(path, 0o755)
		}
		return nil
	})
}

func addText(t testing.TB, s *Store, name, text string, refs ...storepath.Path) *pathinfo.Info {
	t.Helper()
	spec := DumpSpec{Name: name, Method: storepath.MethodText, Algo: nixhash.SHA256, References: storepath.SortUnique(refs)}
	info, err := s.AddDump(context.Background(), spec, strings.NewReader(text), AddOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return info
}

func TestAddTextAndQuery(t *testing.T) {
	ctx := context.Background()
	s := open(t, nil)
	a := addText(t, s, "a", "hello")
	b := addText(t, s, "b", "world "+s.Dir().Print(a.Path), a.Path)
	if valid, err := s.IsValid(ctx, a.Path); !valid || err != nil {
		t.Fatal(valid, err)
	}
	got, err := s.PathInfo(ctx, b.Path)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.References) != 1 || got.References[0] != a.Path || got.NarHash != b.NarHash || got.CA != b.CA {
		t.Fatalf("%+v", got)
	}
	refs, err := s.Referrers(ctx, a.Path)
	if err != nil || len(refs) != 1 || refs[0] != b.Path {
		t.Fatal(refs, err)
	}
	var nar bytes.Buffer
	if err := s.Dump(ctx, b.Path, &nar); err != nil {
		t.Fatal(err)
	}
	if nixhash.Of(nixhash.SHA256, nar.String()) != b.NarHash || uint64(nar.Len()) != b.NarSize {
		t.Fatal("archive does not match its metadata")
	}
	if err := s.Dump(ctx, mustPath(t, "x"), io.Discard); !errors.As(err, new(*NotValidError)) {
		t.Fatal(err)
	}
}

func mustPath(t testing.TB, name string) storepath.Path {
	t.Helper()
	p, err := storepath.New([20]byte([]byte("12345678901234567890")), name)
	if err != nil {
		t.Fatal(err)
	}
	return p
}
