package s3

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nixdaemon/worker/transfer"
)

// names are what a binary cache has; some have characters that signatures treat specially.
var names = []string{"nix-cache-info", "00bgd045z0d4icpbc2yyz4gx48ak44la.narinfo", "nar/1w1fff338fvdw53sqgamddn1b2xgds473pv6y13gizdbqjv4i5p3.nar.xz",
	"log/x=1+2.drv", "realisations/sha256:abc!out.doi", "build-trace-v2/a.drv/out.doi"}

func TestObjects(t *testing.T) {
	w := newWorld(t)
	for _, cache := range []string{"s3://cache", "s3://cache/some/prefix/"} {
		s := w.store(t, cache, w.params(), withKeys())
		for _, name := range names {
			if ok, err := s.Exists(t.Context(), name, w.call()); ok || err != nil {
				t.Fatalf("%s before: %v, %v", name, ok, err)
			}
			_, err := s.Get(t.Context(), name, w.call())
			if want := "file '" + name + "' does not exist in binary cache '" + s.String() + "'"; !errors.Is(err, transfer.ErrNotFound) || err.Error() != want {
				t.Fatalf("got %v, want %s", err, want)
			}
			if err := s.Put(t.Context(), name, text("contents of "+name), "text/x-nix-narinfo", "", w.call()); err != nil {
				t.Fatal(err)
			}
			if ok, err := s.Exists(t.Context(), name, w.call()); !ok || err != nil {
				t.Fatalf("%s after: %v, %v", name, ok, err)
			}
			if got, err := read(t.Context(), s, name, w.call()); got != "contents of "+name || err != nil {
				t.Fatalf("got %q, %v", got, err)
			}
		}
	}
	if _, err := os.Stat(filepath.Join(w.dir, "some/prefix/log/x=1+2.drv")); err != nil {
		t.Error(err)
	}
}

// The server refuses a wrong key, and who has none.
func TestRefused(t *testing.T) {
	noAWS(t)
	w := newWorld(t)
	if err := w.store(t, "s3://cache", w.params(), withKeys()).Put(t.Context(), "x", text("x"), "", "", w.call()); err != nil {
		t.Fatal(err)
	}
	for name, env := range map[string]map[string]string{
		"wrong": {"AWS_ACCESS_KEY_ID": accessKey, "AWS_SECRET_ACCESS_KEY": "not it"}, "none": nil} {
		s := w.store(t, "s3://cache", w.params(), env)
		if _, err := s.Get(t.Context(), "x", w.call()); !errors.Is(err, transfer.ErrNotFound) || !errors.Is(err, transfer.ErrForbidden) {
			t.Errorf("%s key: get: %v", name, err)
		}
		err := s.Put(t.Context(), "y", text("y"), "", "", w.call())
		var traced interface{ Traces() []string }
		if !errors.Is(err, transfer.ErrForbidden) || !errors.As(err, &traced) ||
			traced.Traces()[0] != "while uploading to S3 binary cache at '"+s.String()+"'" ||
			!strings.HasPrefix(err.Error(), "unable to upload '"+w.endpoint+"/cache/y': HTTP error 403") {
			t.Errorf("%s key: put: %v", name, err)
		}
	}
}

func TestMultipart(t *testing.T) {
	w := newWorld(t)
	params := w.params()
	params["multipart-upload"], params["multipart-threshold"] = "true", "1000000"
	s := w.store(t, "s3://cache", params, withKeys())
	data := bytes.Repeat([]byte("0123456789abcdef"), 12<<20/16) // two parts and a bit
	opened := 0
	body := func() (io.ReadCloser, int64, error) {
		opened++
		return io.NopCloser(bytes.NewReader(data)), int64(len(data)), nil
	}
	if err := s.Put(t.Context(), "nar/big", body, "application/x-nix-nar", "", w.call()); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(w.dir, "nar/big")); err != nil || !bytes.Equal(got, data) {
		t.Errorf("got %d bytes, %v", len(got), err)
	}
	if opened != 2 {
		t.Errorf("body opened %d times, want once for the checksum and once to send", opened)
	}
	if got := w.api(t, "GET", "/cache", "uploads", ""); strings.Contains(got, "<UploadId>") {
		t.Errorf("left behind: %s", got)
	}
}

// What fails in the middle is taken back.
func TestMultipartAborted(t *testing.T) {
	w := newWorld(t)
	params := w.params()
	params["multipart-upload"], params["multipart-threshold"] = "true", "1"
	s := w.store(t, "s3://cache", params, withKeys())
	broken := errors.New("broken")
	opened := 0
	body := func() (io.ReadCloser, int64, error) {
		r := io.Reader(bytes.NewReader(make([]byte, 12<<20)))
		if opened++; opened > 1 {
			r = io.MultiReader(io.LimitReader(r, 7<<20), failing{broken})
		}
		return io.NopCloser(r), 12 << 20, nil
	}
	if err := s.Put(t.Context(), "nar/big", body, "", "", w.call()); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	if got := w.api(t, "GET", "/cache", "uploads", ""); strings.Contains(got, "<UploadId>") {
		t.Errorf("left behind: %s", got)
	}
	if ok, err := s.Exists(t.Context(), "nar/big", w.call()); ok || err != nil {
		t.Errorf("exists: %v, %v", ok, err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// Keys of a profile, from the files that the AWS tools have.
func TestProfile(t *testing.T) {
	noAWS(t)
	w := newWorld(t)
	file := filepath.Join(t.TempDir(), "credentials")
	if err := os.WriteFile(file, []byte("[default]\naws_access_key_id = X\naws_secret_access_key = Y\n[cache]\naws_access_key_id = "+
		accessKey+"\naws_secret_access_key = "+secretKey+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", file)
	params := w.params()
	params["profile"] = "cache"
	s := w.store(t, "s3://cache", params, nil)
	if err := s.Put(t.Context(), "x", text("x"), "", "", w.call()); err != nil {
		t.Error(err)
	}
	params["profile"] = "other"
	if err := w.store(t, "s3://cache", params, nil).Put(t.Context(), "x", text("x"), "", "", w.call()); !errors.Is(err, transfer.ErrForbidden) {
		t.Errorf("unknown profile: %v", err)
	}
}

// Each server takes what is signed for its own region alone.
func TestRegions(t *testing.T) {
	noAWS(t)
	for _, region := range []string{"us-east-1", "eu-west-1"} {
		w := newWorldIn(t, region)
		for _, asked := range []string{"", "us-east-1", "eu-west-1"} {
			params := w.params()
			if asked != "" {
				params["region"] = asked
			}
			s := w.store(t, "s3://cache", params, withKeys())
			err := s.Put(t.Context(), "x", text("x"), "", "", w.call())
			if right := asked == region || asked == "" && region == "us-east-1"; right != (err == nil) {
				t.Errorf("region %s, asked for %q: %v", region, asked, err)
			}
		}
	}
}

func TestSizes(t *testing.T) {
	for n, want := range map[int64]string{5 << 20: "5.0 MiB", 5 << 30: "5.0 GiB", 1000: "1.0 KiB", 1 << 50: "1.0 PiB"} {
		if got := renderSize(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
	for _, tt := range []struct {
		params map[string]string
		want   string
	}{
		{map[string]string{"multipart-chunk-size": "1000"}, "multipart-chunk-size must be at least 5.0 MiB, got 1.0 KiB"},
		{map[string]string{"buffer-size": "6442450944"}, "multipart-chunk-size must be at most 5.0 GiB, got 6.0 GiB"},
		{map[string]string{"addressing-style": "x"}, "option 'addressing-style' has invalid value 'x', expected 'auto', 'path', or 'virtual'"},
	} {
		if _, err := New(nil, nil, "s3://cache", tt.params); err == nil || err.Error() != tt.want {
			t.Errorf("%v: %v, want %s", tt.params, err, tt.want)
		}
	}
}
