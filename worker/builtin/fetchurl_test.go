package builtin

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/ulikunitz/xz"

	"nixdaemon/protocol/nar"
	"nixdaemon/worker/builtin/builtinjob"
)

// fetch is a job that downloads url.
func fetch(url string) builtinjob.Job {
	return builtinjob.Job{Env: map[string]string{"url": url}, FixedAlgo: "sha256", FixedHash: "0a"}
}

func serve(t testing.TB, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

func TestFetch(t *testing.T) {
	var got http.Header
	u := serve(t, func(w http.ResponseWriter, r *http.Request) {
		got = r.Header
		io.WriteString(w, r.RequestURI)
	})
	job := fetch(u + "/a%20b/100%?q=[%zz]")
	job.Transfer = &builtinjob.Transfer{Attempts: 1, UserAgentSuffix: "extra"}
	r := do(t, "fetchurl", job)
	if text := r.contents(t); text != "/a%20b/100%25?q=[%zz]" && text != "/a%20b/100%25?q=[%25zz]" {
		t.Errorf("asked for %q", text)
	}
	want := http.Header{"Accept": {"*/*"}, "Accept-Encoding": {"deflate, gzip, br, zstd"}, "User-Agent": {"curl/8.17.0 Nix/2.34.8 extra"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("header (-want +got):\n%s", diff)
	}
	var kinds []string
	for _, e := range r.events {
		kinds = append(kinds, fmt.Sprint(e.Action, " ", e.Type, " ", e.Level))
	}
	if first, last := kinds[0], kinds[len(kinds)-2:]; first != "start 101 4" || !slices.Equal(last, []string{"result 105 0", "stop 0 0"}) {
		t.Errorf("events %q", kinds)
	}
	if size := float64(len(r.contents(t))); !slices.Equal(r.events[len(r.events)-2].Fields, []any{size, size, 0.0, 0.0}) {
		t.Errorf("last progress %v", r.events[len(r.events)-2].Fields)
	}
	if info, _ := os.Stat(r.out); info.Mode()&0o111 != 0 {
		t.Errorf("mode %v", info.Mode())
	}
}

func TestFetchExecutable(t *testing.T) {
	job := fetch(serve(t, func(w http.ResponseWriter, r *http.Request) {}))
	job.Env["executable"] = "1"
	r := do(t, "fetchurl", job)
	if info, err := os.Stat(r.out); err != nil || info.Mode() != 0o755 || r.contents(t) != "" {
		t.Errorf("%v, %v", info, err)
	}
}

// The texts are those of release 2.34.8, colours and all.
func TestFetchErrorBytes(t *testing.T) {
	u := serve(t, http.NotFound)
	r := do(t, "fetchurl", fetch(u+"/x"))
	m := func(s string) string { return ansiMagenta + s + ansiNormal }
	want := "\x1b[31;1merror:\x1b[0m\n       … writing file " + m(`"`+r.out+`"`) + "\n\n       \x1b[31;1merror:\x1b[0m unable to download '" +
		m(u+"/x") + "': HTTP error " + m("404") + m("") + "\n\n       response body:\n\n       " + m("404 page not found") + "\n"
	if r.exit != 1 || r.log != want {
		t.Errorf("exit status %d\ngot  %q\nwant %q", r.exit, r.log, want)
	}
	if len(r.pauses) != 0 {
		t.Error("tried again although the file is not there")
	}
}

// inFile is the log of an error while the output is written.
func inFile(text string) string {
	return "error:\n       … writing file \"OUT\"\n\n       error: " + text
}

func TestFetchUnpack(t *testing.T) {
	var b bytes.Buffer
	w := nar.NewWriter(&b)
	for _, err := range []error{w.Directory(""), w.Regular("a", true, 1, strings.NewReader("x")), w.Directory("d"), w.Symlink("l", "../../etc"),
		w.EndDirectory(), w.EndDirectory(), w.Close()} {
		if err != nil {
			t.Fatal(err)
		}
	}
	data := map[string][]byte{"/t.nar": b.Bytes(), "/bad": []byte("nothing like it, but long enough"), "/half.nar": b.Bytes()[:b.Len()/2],
		"/t.nar.xz": compressed(t, func(w io.Writer) (io.WriteCloser, error) { return xz.NewWriter(w) }, b.Bytes()), "/bad.xz": []byte("no xz")}
	u := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, ok := data[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
		}
		w.Write(body)
	})
	unpack := func(path string, mirrors ...string) *result {
		job := fetch(u + path)
		job.Env["unpack"] = "1"
		job.HashedMirrors = mirrors
		return do(t, "fetchurl", job)
	}
	want := map[string]string{"a": "x", "d": "/", "d/l": "->../../etc"}
	// A mirror that has half of it does not spoil the rest.
	for _, r := range []*result{unpack("/t.nar"), unpack("/t.nar.xz"), unpack("/t.nar", "file://"+filepath.Join(mirror(t, "sha256/0a", data["/half.nar"])))} {
		if r.exit != 0 {
			t.Fatalf("exit status %d:\n%s", r.exit, r.log)
		}
		if diff := cmp.Diff(want, tree(t, r.out)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if info, _ := os.Stat(r.out + "/a"); info.Mode()&0o100 == 0 {
			t.Errorf("mode %v", info.Mode())
		}
	}
	unpack("/bad").fails(t, "error: bad archive: input doesn't look like a Nix archive")
	if r := unpack("/none"); r.exit != 1 || !strings.HasPrefix(uncoloured(r.log), "error: unable to download '"+u+"/none': HTTP error 404") {
		t.Errorf("log:\n%s", r.log)
	}
	if r := unpack("/none.xz"); r.exit != 1 || !strings.HasPrefix(uncoloured(r.log), "error: unable to download '"+u+"/none.xz': HTTP error 404") {
		t.Errorf("log:\n%s", r.log)
	}
	for _, path := range []string{"/half.nar", "/bad.xz"} {
		if r := unpack(path); r.exit != 1 {
			t.Errorf("%s is accepted", path)
		}
	}
}

func mirror(t testing.TB, name string, data []byte) string {
	t.Helper()
	top := t.TempDir()
	path := filepath.Join(top, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return top
}

func TestFetchMirrors(t *testing.T) {
	var asked []string
	handler := func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.Path)
		if r.URL.Path != "/main" && r.URL.Path != "/m2/sha256/0a" {
			http.NotFound(w, r)
			return
		}
		io.WriteString(w, r.URL.Path)
	}
	u := serve(t, handler)
	for _, tt := range []struct {
		algo    string
		mirrors []string
		asked   []string
	}{
		{"sha256", []string{"/m1", "/m2/", "/m3"}, []string{"/m1/sha256/0a", "/m2/sha256/0a"}},
		{"text:sha256", []string{"/m2"}, []string{"/m2/sha256/0a"}},
		{"sha256", []string{"/m1"}, []string{"/m1/sha256/0a", "/main"}},
		{"r:sha256", []string{"/m2"}, []string{"/main"}},
		{"git:sha1", []string{"/m2"}, []string{"/main"}},
		{"", []string{"/m2"}, []string{"/main"}},
	} {
		asked = nil
		job := fetch(u + "/main")
		job.FixedAlgo, job.Impure = tt.algo, tt.algo == ""
		for _, m := range tt.mirrors {
			job.HashedMirrors = append(job.HashedMirrors, u+m)
		}
		got := do(t, "fetchurl", job).contents(t)
		if diff := cmp.Diff(tt.asked, asked); diff != "" || got != asked[len(asked)-1] {
			t.Errorf("%s %v: got %q (-want +got):\n%s", tt.algo, tt.mirrors, got, diff)
		}
	}
}

func TestFetchFile(t *testing.T) {
	top := plant(t, map[string]string{"a b": "contents"})
	if got := do(t, "fetchurl", fetch("file://"+top+"/a%20b")).contents(t); got != "contents" {
		t.Errorf("got %q", got)
	}
}

// TestFetchNothingBegins: of a file that cannot be opened, or of what no request is made for, no download is told.
func TestFetchNothingBegins(t *testing.T) {
	for _, u := range []string{"file:///no/such/file", "gopher://h/", "http:///"} {
		if r := do(t, "fetchurl", fetch(u)); r.exit != 1 || len(r.events) != 0 {
			t.Errorf("%s: exit %d, events %+v", u, r.exit, r.events)
		}
	}
}

// An output that is a link is not written through.
func TestFetchOutputIsLink(t *testing.T) {
	top := plant(t, map[string]string{"victim": "safe", "out": "->TOP/victim", "src": "evil"})
	job := fetch("file://" + top + "/src")
	job.Outputs = map[string]string{"out": top + "/out"}
	if r := do(t, "fetchurl", job); r.exit != 1 || tree(t, top)["victim"] != "safe" {
		t.Errorf("exit status %d, log:\n%s", r.exit, r.log)
	}
}
