package substitute

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"nixdaemon/worker/settings"
)

func openDirectory(t *testing.T, dir string) *Directory {
	ref, err := settings.ParseStoreReference("file://" + dir)
	if err != nil {
		t.Fatal(err)
	}
	d, err := OpenDirectory(ref)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a b", "cache")
	d := openDirectory(t, strings.ReplaceAll(dir, " ", "%20"))
	if want := "file://" + strings.ReplaceAll(dir, " ", "%20"); d.URI() != want {
		t.Errorf("URI %s, want %s", d.URI(), want)
	}
	ctx := t.Context()
	if ok, err := d.Exists(ctx, Asker{}, "nar/x"); ok || err != nil {
		t.Error(ok, err)
	}
	if _, err := d.Get(ctx, Asker{}, "nar/x"); !errors.Is(err, ErrNoObject) {
		t.Error(err)
	}
	for _, text := range []string{"first", "second"} {
		if err := d.Put(ctx, Asker{}, "deep/nar/x", Text(text, "text/plain")); err != nil {
			t.Fatal(err)
		}
		r, err := d.Get(ctx, Asker{}, "deep/nar/x")
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if r.Close(); err != nil || string(data) != text {
			t.Errorf("read %q, %v", data, err)
		}
	}
	if entries, err := os.ReadDir(filepath.Join(dir, "deep/nar")); err != nil || len(entries) != 1 {
		t.Errorf("left %v, %v", entries, err)
	}
	// Nothing holds on to a directory that was replaced.
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if ok, err := d.Exists(ctx, Asker{}, "deep/nar/x"); ok || err != nil {
		t.Error(ok, err)
	}
}

// TestDirectoryHostile names what is not within the cache, or no file.
func TestDirectoryHostile(t *testing.T) {
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	cache := filepath.Join(dir, "cache")
	d := openDirectory(t, cache)
	for name, target := range map[string]string{"absolute": secret, "relative": "../secret", "nar/up": "../../secret"} {
		if err := os.Symlink(target, filepath.Join(cache, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(dir, filepath.Join(cache, "above")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(cache, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	for _, name := range []string{"", "/etc/passwd", "../secret", "nar/../../secret", ".", "nar/.", "absolute", "relative", "nar/up", "above/secret", "pipe", "nar"} {
		if r, err := d.Get(ctx, Asker{}, name); err == nil {
			data, _ := io.ReadAll(r)
			t.Errorf("%q: read %q", name, data)
		}
	}
	for _, name := range []string{"", "/tmp/x", "../x", "above/x"} {
		if err := d.Put(ctx, Asker{}, name, Text("x", "text/plain")); err == nil {
			t.Errorf("%q: written", name)
		}
	}
	if err := d.Put(ctx, Asker{}, "absolute", Text("x", "text/plain")); err != nil {
		t.Errorf("replace a link: %v", err)
	}
	if data, err := os.ReadFile(secret); err != nil || string(data) != "secret" {
		t.Errorf("the file outside is %q, %v", data, err)
	}
}

// breaking is contents that end with an error.
type breaking struct{}

func (breaking) Read([]byte) (int, error) { return 0, errors.New("cut off") }
func (breaking) Close() error             { return nil }

// TestPutBreaksOff leaves what was there, and nothing else.
func TestPutBreaksOff(t *testing.T) {
	dir := t.TempDir()
	d := openDirectory(t, dir)
	if err := d.Put(t.Context(), Asker{}, "x/y", Text("whole", "")); err != nil {
		t.Fatal(err)
	}
	o := Object{Open: func() (io.ReadCloser, int64, error) { return breaking{}, 5, nil }}
	if err := d.Put(t.Context(), Asker{}, "x/y", o); err == nil || !strings.Contains(err.Error(), "cut off") {
		t.Error(err)
	}
	entries, err := os.ReadDir(filepath.Join(dir, "x"))
	if err != nil || len(entries) != 1 {
		t.Errorf("left %v, %v", entries, err)
	}
	if data, err := os.ReadFile(filepath.Join(dir, "x/y")); err != nil || string(data) != "whole" {
		t.Errorf("contents %q, %v", data, err)
	}
}

func TestDirectoryCannotBeMade(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := OpenDirectory(settings.StoreReference{Scheme: "file", Authority: file + "/cache"})
	if err == nil || err.Error() != `creating directory "`+file+`/cache/nar": Not a directory` {
		t.Errorf("got %v", err)
	}
}
