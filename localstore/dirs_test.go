package localstore

import (
	"context"
	"os"
	"path/filepath"
	"testing"
)

// TestPerUserDirectories: nobody but their owner makes entries in the directories of users (CVE-2019-17365), whatever
// an old installation left.
func TestPerUserDirectories(t *testing.T) {
	o := testOptions(t)
	dirs := []string{"profiles/per-user", "gcroots/per-user"}
	for _, dir := range dirs {
		dir = filepath.Join(o.StateDir, dir)
		if err := os.MkdirAll(dir, 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	s, err := Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, dir := range dirs {
		st, err := os.Stat(filepath.Join(o.StateDir, dir))
		if err != nil {
			t.Fatal(err)
		}
		if st.Mode().Perm() != 0o755 {
			t.Errorf("%s has mode %v", dir, st.Mode())
		}
	}
}
