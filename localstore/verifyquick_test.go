package localstore

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"nixdaemon/protocol/nar"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/storepath"
)

// addSmallTree adds a directory with one of everything.
func addSmallTree(t *testing.T, s *Store, name string) storepath.Path {
	t.Helper()
	var buf bytes.Buffer
	w := nar.NewWriter(&buf)
	w.Directory("")
	w.Regular("file", false, 8, strings.NewReader("contents"))
	w.Symlink("link", "file")
	w.Regular("program", true, 4, strings.NewReader("text"))
	w.EndDirectory()
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	spec := DumpSpec{Name: name, IsNAR: true, Method: storepath.MethodNAR, Algo: nixhash.SHA256}
	info, err := s.AddDump(ctx, spec, &buf, AddOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return info.Path
}

// restamp makes times canonical again, which only damage can do that nobody meant.
func restamp(t *testing.T, paths ...string) {
	t.Helper()
	for _, p := range paths {
		if err := os.Chtimes(p, time.Time{}, time.Unix(1, 0)); err != nil {
			t.Fatal(err)
		}
	}
}

// TestQuickVerify damages a path in each way: what changes a size, a type, a mode or a time is found, and told as full
// verification tells it.
func TestQuickVerify(t *testing.T) {
	writable := func(dir string, change func() error) error {
		return errors.Join(os.Chmod(dir, 0o755), change(), os.Chmod(dir, 0o555))
	}
	for _, tt := range []struct {
		name   string
		damage func(path string) error
		found  bool
		full   bool // found by hashing
	}{
		{"none", func(string) error { return nil }, false, false},
		{"longer file", func(p string) error {
			return errors.Join(os.Chmod(p+"/file", 0o644), os.WriteFile(p+"/file", []byte("contents, and more"), 0), os.Chmod(p+"/file", 0o444))
		}, true, true},
		{"empty file", func(p string) error {
			return errors.Join(os.Chmod(p+"/file", 0o644), os.Truncate(p+"/file", 0), os.Chmod(p+"/file", 0o444), os.Chtimes(p+"/file", time.Time{}, time.Unix(1, 0)))
		}, true, true},
		{"other contents", func(p string) error {
			return errors.Join(os.Chmod(p+"/file", 0o644), os.WriteFile(p+"/file", []byte("CONTENTS"), 0), os.Chmod(p+"/file", 0o444))
		}, true, true},
		{"other contents that nothing shows", func(p string) error {
			return errors.Join(os.Chmod(p+"/file", 0o644), os.WriteFile(p+"/file", []byte("CONTENTS"), 0), os.Chmod(p+"/file", 0o444), os.Chtimes(p+"/file", time.Time{}, time.Unix(1, 0)))
		}, false, true},
		{"executable", func(p string) error { return os.Chmod(p+"/file", 0o555) }, true, true},
		{"not executable", func(p string) error { return os.Chmod(p+"/program", 0o444) }, true, true},
		{"file for a directory", func(p string) error {
			return errors.Join(os.Chmod(p, 0o755), os.RemoveAll(p), os.WriteFile(p, []byte("x"), 0o444))
		}, true, true},
		{"file is gone", func(p string) error { return writable(p, func() error { return os.Remove(p + "/file") }) }, true, true},
		{"file more", func(p string) error {
			return writable(p, func() error { return os.WriteFile(p+"/more", nil, 0o444) })
		}, true, true},
		{"another name", func(p string) error {
			return writable(p, func() error { return os.Rename(p+"/file", p+"/elif") })
		}, true, true},
		{"another target", func(p string) error {
			return writable(p, func() error { return errors.Join(os.Remove(p+"/link"), os.Symlink("elif", p+"/link")) })
		}, true, true},
		{"a file for a link", func(p string) error {
			return writable(p, func() error { return errors.Join(os.Remove(p+"/link"), os.WriteFile(p+"/link", []byte("file"), 0o444)) })
		}, true, true},
		// Somebody copied the store, or changed modes back and forth: nothing is wrong, and hashing says so.
		{"times", func(p string) error { return os.Chtimes(p+"/file", time.Time{}, time.Now()) }, false, false},
		{"modes", func(p string) error { return os.Chmod(p+"/file", 0o644) }, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := open(t, nil)
			addSmallTree(t, s, "fine")
			p := addSmallTree(t, s, "damaged")
			if err := tt.damage(s.RealPath(p)); err != nil {
				t.Fatal(err)
			}
			var quickly, fully collectedLog
			if bad, err := s.Verify(ctx, VerifyOptions{CheckContents: true, Quick: true, Log: &quickly}); bad != tt.found || err != nil {
				t.Errorf("quick: %t, %v, %q", bad, err, quickly.texts)
			}
			if bad, err := s.Verify(ctx, VerifyOptions{CheckContents: true, Log: &fully}); bad != tt.full || err != nil {
				t.Errorf("full: %t, %v, %q", bad, err, fully.texts)
			}
			if tt.found && !slices.Contains(quickly.texts, fully.texts[len(fully.texts)-1]) {
				t.Errorf("said %q, full verification %q", quickly.texts, fully.texts)
			}
		})
	}
}

// TestQuickVerifyRepairs repairs what was found, as full verification does.
func TestQuickVerifyRepairs(t *testing.T) {
	s := open(t, nil)
	changed := addText(t, s, "changed", "changed")
	damage(t, s.RealPath(changed.Path))
	repaired := s.repairing(t, map[storepath.Path]string{changed.Path: "changed"})
	if bad, err := s.Verify(ctx, VerifyOptions{CheckContents: true, Quick: true, Repair: true, RepairPath: repaired}); bad || err != nil {
		t.Error(bad, err)
	}
	checkPath(t, s, changed)
}

// TestQuickVerifyLinks hashes links that were touched, and leaves the others alone.
func TestQuickVerifyLinks(t *testing.T) {
	s := open(t, nil)
	link := func(digit string) string {
		path := filepath.Join(s.RealDir(), linksName, strings.Repeat(digit, 52))
		if err := os.WriteFile(path, []byte(digit), 0o444); err != nil {
			t.Fatal(err)
		}
		return path
	}
	touched, still := link("0"), link("1")
	restamp(t, still)
	var log collectedLog
	if bad, err := s.Verify(ctx, VerifyOptions{CheckContents: true, Quick: true, Repair: true, Log: &log}); bad || err != nil {
		t.Error(bad, err)
	}
	if !slices.Contains(log.texts, fmt.Sprintf("removed link \"%s\"", touched)) {
		t.Errorf("said %q", log.texts)
	}
	if _, err := os.Lstat(still); err != nil {
		t.Error(err)
	}
}
