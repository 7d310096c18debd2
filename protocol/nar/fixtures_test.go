package nar

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nixdaemon/protocol/wire"
)

// fixtures returns upstream's golden archives, or skips the test.
func fixtures(t *testing.T) string {
	t.Helper()
	root := os.Getenv("NIXDAEMON_FIXTURES")
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for root == "" && dir != filepath.Dir(dir) {
		dir = filepath.Dir(dir)
		if candidate := filepath.Join(dir, "shared/fixtures/upstream"); isDir(candidate) {
			root = candidate
		}
	}
	nars := filepath.Join(root, "libutil/nars")
	if root == "" || !isDir(nars) {
		t.Skip("upstream's fixtures are missing: set NIXDAEMON_FIXTURES to the folder that has libutil/nars")
	}
	return nars
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// The texts are those that upstream's own test expects of the same files; where it has none, those of its parser.
func TestUpstreamFixtures(t *testing.T) {
	want := map[string]string{
		"dot":                               "bad archive: NAR contains invalid file name '.'",
		"dotdot":                            "bad archive: NAR contains invalid file name '..'",
		"empty":                             "bad archive: NAR contains invalid file name ''",
		"executable-after-contents":         "bad archive: expected tag ')', got 'executable'",
		"invalid-tag-instead-of-contents":   "bad archive: expected tag 'contents', got 'AAAAAAAA'",
		"name-after-node":                   "bad archive: expected tag 'name', got 'node'",
		"nul-character":                     "bad archive: NAR contains invalid file name 'f\x00o'",
		"regular-one-byte-non-zero-padding": "non-zero padding",
		"regular-one-byte-zero-padding":     "",
		"regular-truncated-large-contents":  "unexpected EOF",
		"regular-truncated-padding":         "unexpected EOF",
		"slash":                             "bad archive: NAR contains invalid file name 'x/y'",
	}
	files, err := filepath.Glob(filepath.Join(fixtures(t), "*.nar"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no archives: %v", err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".nar")
		t.Run(name, func(t *testing.T) {
			text, known := want[name]
			if !known {
				t.Fatal("no expectation for this archive")
			}
			in, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for how, reader := range readers {
				var out bytes.Buffer
				w := NewWriter(&out)
				err := Parse(reader(bytes.NewReader(in)), w)
				if text != "" {
					var malformed *wire.Error
					if err == nil || !strings.HasSuffix(err.Error(), text) || errors.As(err, &malformed) && err.Error() != text {
						t.Errorf("%s: got %v, want %s", how, err, text)
					}
					continue
				}
				if err := errors.Join(err, w.Close()); err != nil || !bytes.Equal(in, out.Bytes()) {
					t.Errorf("%s: got %x, %v, want %x", how, out.Bytes(), err, in)
				}
			}
		})
	}
}
