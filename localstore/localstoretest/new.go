package localstoretest

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"nixdaemon/localstore"
	"nixdaemon/protocol/storepath"
)

// Options are those of a store in a temporary directory that goes with the test. Nothing outside is touched.
func Options(t testing.TB) localstore.Options {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	o := localstore.DefaultOptions()
	o.StoreDir = storepath.Dir(filepath.Join(dir, "store"))
	o.StateDir = filepath.Join(dir, "var")
	o.LogDir = filepath.Join(dir, "log")
	o.ReservedSpace = 4096
	t.Cleanup(func() { makeWritable(dir) })
	return o
}

// makeWritable lets a user who is not root remove what a store made.
func makeWritable(dir string) {
	filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			os.Chmod(path, 0o755)
		}
		return nil
	})
}

// New opens an empty store that is closed with the test. change, unless nil, may change its options before.
func New(t testing.TB, change func(*localstore.Options)) *localstore.Store {
	t.Helper()
	o := Options(t)
	if change != nil {
		change(&o)
	}
	s, err := localstore.Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}
