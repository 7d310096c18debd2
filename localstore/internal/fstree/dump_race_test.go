package fstree

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// swapper exchanges what lies at a place as soon as the archive has come to an earlier entry: the names are listed by
// then, and not yet opened.
type swapper struct {
	bytes.Buffer
	after string
	swap  func()
}

func (s *swapper) Write(p []byte) (int, error) {
	n, err := s.Buffer.Write(p)
	if s.swap != nil && strings.Contains(s.String(), s.after) {
		s.swap()
		s.swap = nil
	}
	return n, err
}

// TestDumpFollowsNoExchangedLink: a file or directory that becomes a link to something outside between the listing and
// the opening is an error, and nothing of what the link points to gets into the archive.
func TestDumpFollowsNoExchangedLink(t *testing.T) {
	for _, kind := range []string{"file", "directory"} {
		t.Run(kind, func(t *testing.T) {
			top := t.TempDir()
			secret := filepath.Join(top, "secret")
			victim := filepath.Join(top, "tree", "b")
			if err := os.MkdirAll(secret, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(secret, "key"), []byte("SECRET"), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(filepath.Join(top, "tree"), 0o755); err != nil {
				t.Fatal(err)
			}
			// Larger than any buffer before the archive.
			if err := os.WriteFile(filepath.Join(top, "tree", "a"), append([]byte("MARK"), make([]byte, 8<<20)...), 0o644); err != nil {
				t.Fatal(err)
			}
			target := secret
			var err error
			if kind == "file" {
				target = filepath.Join(secret, "key")
				err = os.WriteFile(victim, []byte("plain"), 0o644)
			} else {
				err = os.Mkdir(victim, 0o755)
			}
			if err != nil {
				t.Fatal(err)
			}
			out := &swapper{after: "MARK", swap: func() {
				if err := os.RemoveAll(victim); err != nil {
					t.Error(err)
				}
				if err := os.Symlink(target, victim); err != nil {
					t.Error(err)
				}
			}}
			d, err := OpenDir(top)
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			err = d.Dump(context.Background(), "tree", out, DumpOptions{})
			if out.swap != nil {
				t.Fatal("nothing was exchanged")
			}
			if err == nil || bytes.Contains(out.Bytes(), []byte("SECRET")) {
				t.Errorf("error %v; the secret is in the archive: %v", err, bytes.Contains(out.Bytes(), []byte("SECRET")))
			}
		})
	}
}
