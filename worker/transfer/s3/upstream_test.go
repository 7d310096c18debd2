package s3

import (
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// nix runs upstream's client, release 2.34.8, with state of its own.
func nix(t *testing.T, dir string, args ...string) string {
	t.Helper()
	bin := os.Getenv("NIXDAEMON_UPSTREAM")
	if bin == "" {
		t.Skip("no upstream nix: set NIXDAEMON_UPSTREAM to the bin directory of release 2.34.8")
	}
	cmd := exec.Command(filepath.Join(bin, "nix"), append([]string{"--extra-experimental-features", "nix-command"}, args...)...)
	cmd.Env = append(os.Environ(), "HOME="+dir, "NIX_STORE_DIR="+dir+"/store", "NIX_STATE_DIR="+dir+"/state", "NIX_LOG_DIR="+dir+"/log",
		"NIX_CONF_DIR="+dir+"/etc", "NIX_REMOTE=local", "NIX_CONFIG=require-sigs = false\nsubstituters =\nbuild-users-group =\nsandbox = false",
		"AWS_ACCESS_KEY_ID="+accessKey, "AWS_SECRET_ACCESS_KEY="+secretKey)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("nix %v: %v\n%s", args, err, stderr.String())
	}
	return strings.TrimSpace(string(out))
}

// What upstream's client copies to a bucket is read by us, and what we put there is read by it. The bucket is public
// since distributions' builds of that client cannot sign (they lack AWS support); its requests are those of S3 all
// the same.
func TestUpstreamClient(t *testing.T) {
	w := newWorld(t)
	w.makePublic(t)
	dir := t.TempDir()
	text := filepath.Join(dir, "text")
	if err := os.WriteFile(text, []byte("some contents\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	path := nix(t, dir, "store", "add", text)
	query := "?scheme=http&endpoint=" + strings.TrimPrefix(w.endpoint, "http://") + "&compression=xz"
	nix(t, dir, "copy", "--to", "s3://cache/theirs"+query, path)

	theirs := w.store(t, "s3://cache/theirs", w.params(), withKeys())
	ours := w.store(t, "s3://cache/ours", w.params(), withKeys())
	var files []string
	top := filepath.Join(w.dir, "theirs")
	if err := filepath.WalkDir(top, func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			files = append(files, strings.TrimPrefix(name, top+"/"))
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	narinfo := filepath.Base(path)[:32] + ".narinfo"
	if len(files) != 3 || !slices.Contains(files, "nix-cache-info") || !slices.Contains(files, narinfo) {
		t.Fatalf("they wrote %q", files)
	}
	for _, name := range files {
		contents, err := read(t.Context(), theirs, name, w.call())
		if err != nil {
			t.Fatal(err)
		}
		if name == narinfo && !strings.Contains(contents, "StorePath: "+path+"\n") {
			t.Errorf("narinfo:\n%s", contents)
		}
		if err := ours.Put(t.Context(), name, func() (io.ReadCloser, int64, error) {
			return io.NopCloser(strings.NewReader(contents)), int64(len(contents)), nil
		}, "application/octet-stream", "", w.call()); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.RemoveAll(top); err != nil {
		t.Fatal(err)
	}

	nix(t, dir, "store", "delete", path)
	nix(t, dir, "copy", "--from", "s3://cache/ours"+query, path)
	if got, err := os.ReadFile(path); err != nil || string(got) != "some contents\n" {
		t.Errorf("copied back: %q, %v", got, err)
	}
}
