package builtin

import (
	"bufio"
	"bytes"
	"compress/flate"
	"compress/zlib"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/andybalholm/brotli"
	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"nixdaemon/protocol/nar"
)

// fetch is a job that downloads url.
func fetch(url string) Job {
	return Job{Env: map[string]string{"url": url}, FixedAlgo: "sha256", FixedHash: "0a"}
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
	job.Transfer = &Transfer{Attempts: 1, UserAgentSuffix: "extra"}
	r := do(t, "fetchurl", job)
	if text := r.contents(t); text != "/a%20b/100%25?q=[%zz]" && text != "/a%20b/100%25?q=[%25zz]" {
		t.Errorf("asked for %q", text)
	}
	want := http.Header{"Accept": {"*/*"}, "Accept-Encoding": {acceptEncoding}, "User-Agent": {userAgent + " extra"}}
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

func TestFetchErrors(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := listener.Addr().String()
	listener.Close()
	missing := filepath.Join(t.TempDir(), "none")
	for _, tt := range []struct{ url, want string }{
		{"nonsense", "URL 'nonsense' doesn't have a scheme"},
		{"foo://bar/x", `unable to download 'foo://bar/x': Unsupported protocol (1) Protocol "foo" not supported`},
		{"http://", "unable to download 'http://': URL using bad/illegal format or missing URL (3) URL rejected: No host present"},
		{"http://a b/", "unable to download 'http://a b/': URL using bad/illegal format or missing URL (3) URL rejected: Malformed input to a URL function"},
		{"file://" + missing, "unable to download 'file://" + missing + "': Could not read a file:// file (37) Could not open file " + missing},
		{"file://host/x", "unable to download 'file://host/x': URL using bad/illegal format or missing URL (3) URL rejected: Bad file:// URL"},
		{"file:///dev/zero", "unable to download 'file:///dev/zero': Could not read a file:// file (37) Could not open file /dev/zero"},
		{"s3://bucket/x", "unable to download 's3://bucket/x': S3 is not supported by 'builtin:fetchurl'; use the https URL of the object"},
		{"https://" + closed, "unable to download 'https://" + closed + "': Problem with the SSL CA cert (path? access rights?) (77) error adding trust anchors from file: ca-certificates.crt"},
	} {
		do(t, "fetchurl", fetch(tt.url)).fails(t, inFile(tt.want))
	}
	job := fetch("http://" + closed + "/")
	job.Transfer = &Transfer{Attempts: 2}
	r := do(t, "fetchurl", job)
	want := "unable to download 'http://" + closed + "/': Could not connect to server (7) Failed to connect to " + closed + " after "
	if r.exit != 1 || !strings.Contains(uncoloured(r.log), want) || len(r.pauses) != 1 {
		t.Errorf("exit status %d, %d pauses, log:\n%s", r.exit, len(r.pauses), r.log)
	}
}

func TestFetchStatuses(t *testing.T) {
	for _, tt := range []struct{ status, tries int }{{400, 1}, {401, 1}, {403, 1}, {404, 1}, {407, 1}, {408, 5}, {410, 1}, {429, 5}, {500, 5},
		{501, 1}, {503, 5}, {505, 1}, {511, 1}, {202, 5}} {
		tries := 0
		u := serve(t, func(w http.ResponseWriter, r *http.Request) { tries++; w.WriteHeader(tt.status) })
		r := do(t, "fetchurl", fetch(u))
		r.fails(t, inFile("unable to download '"+u+"': HTTP error "+strconv.Itoa(tt.status)))
		if tries != tt.tries {
			t.Errorf("status %d: tried %d times, want %d", tt.status, tries, tt.tries)
		}
		base := retryDelay
		if tt.status == 429 {
			base = retryDelayByRate
		}
		for i, pause := range r.pauses {
			if low := base << i; pause < low || pause > low*3/2 {
				t.Errorf("status %d: pause %d is %v, want one of %v to %v", tt.status, i, pause, low, low*3/2)
			}
			want := fmt.Sprintf("warning: unable to download '%s': HTTP error %d; retrying in %d ms (attempt %d/5)", u, tt.status, pause.Milliseconds(), i+1)
			if got := r.warnings()[i]; got != want {
				t.Errorf("warning %q, want %q", got, want)
			}
		}
	}
}

func TestFetchErrorBody(t *testing.T) {
	for _, tt := range []struct{ body, want string }{
		{"", ""},
		{"short \n\n", "\n\n       response body:\n\n       short"},
		{strings.Repeat("x", 1024), ""},
		{strings.Repeat("x", 1024) + "<html>", "\n\n       response body:\n\n       " + strings.Repeat("x", 1024) + "<html>"},
	} {
		u := serve(t, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(403); io.WriteString(w, tt.body) })
		do(t, "fetchurl", fetch(u)).fails(t, inFile("unable to download '"+u+"': HTTP error 403"+tt.want))
	}
	u := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(403)
		w.Write([]byte("<html>"))
		w.Write(make([]byte, 4<<20))
	})
	if r := do(t, "fetchurl", fetch(u)); len(r.log) > 2*maxErrorBody {
		t.Errorf("kept %d bytes of an error", len(r.log))
	}
}

func TestFetchRecovers(t *testing.T) {
	tries := 0
	u := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if tries++; tries < 5 {
			w.WriteHeader(503)
			return
		}
		io.WriteString(w, "at last")
	})
	if got := do(t, "fetchurl", fetch(u)).contents(t); got != "at last" || tries != 5 {
		t.Errorf("got %q after %d attempts", got, tries)
	}
}

func TestFetchRedirects(t *testing.T) {
	var u string
	u = serve(t, func(w http.ResponseWriter, r *http.Request) {
		n, _ := strconv.Atoi(r.URL.Path[1:])
		switch {
		case n > 0:
			w.Header().Set("Location", strconv.Itoa(n-1))
			w.WriteHeader([]int{301, 302, 303, 307, 308}[n%5])
			io.WriteString(w, "not this")
		case r.URL.Path == "/file":
			w.Header().Set("Location", "file:///etc/passwd")
			w.WriteHeader(302)
		default:
			io.WriteString(w, "this")
		}
	})
	if got := do(t, "fetchurl", fetch(u+"/10")).contents(t); got != "this" {
		t.Errorf("got %q", got)
	}
	r := do(t, "fetchurl", fetch(u+"/11"))
	if want := "HTTP error 30"; r.exit != 1 || !strings.Contains(uncoloured(r.log), want) ||
		!strings.Contains(uncoloured(r.log), "(curl error: Number of redirects hit maximum amount)") || len(r.pauses) != 0 {
		t.Errorf("eleven redirects: exit status %d, log:\n%s", r.exit, r.log)
	}
	do(t, "fetchurl", fetch(u+"/file")).fails(t, inFile("unable to download '"+u+"/file': HTTP error 302 (curl error: Unsupported protocol)"))
}

func TestFetchCredentials(t *testing.T) {
	auth := func(r *http.Request) string {
		user, password, _ := r.BasicAuth()
		return user + ":" + password
	}
	other := serve(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, auth(r)) })
	other = strings.Replace(other, "127.0.0.1", "localhost", 1)
	u := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/other":
			http.Redirect(w, r, other, 302)
		case "/same":
			http.Redirect(w, r, "/", 302)
		default:
			io.WriteString(w, auth(r))
		}
	})
	withUser := strings.Replace(u, "http://", "http://me:pa%3ass@", 1)
	const netrc = "machine 127.0.0.1 login here password secret"
	for _, tt := range []struct{ url, netrc, want string }{
		{u, "", ":"},
		{u, netrc, "here:secret"},
		{u + "/same", netrc, "here:secret"},
		{u + "/other", netrc, ":"},
		{u + "/other", netrc + " default login any password thing", "any:thing"},
		{withUser, netrc, "me:pa:ss"},
		{withUser + "/same", "", "me:pa:ss"},
		{withUser + "/other", "", ":"},
		{strings.Replace(u, "http://", "http://here@", 1), netrc, "here:secret"},
		{strings.Replace(u, "http://", "http://there@", 1), netrc, "there:"},
	} {
		job := fetch(tt.url)
		job.Netrc = tt.netrc
		if got := do(t, "fetchurl", job).contents(t); got != tt.want {
			t.Errorf("%s with %q: sent %q, want %q", tt.url, tt.netrc, got, tt.want)
		}
	}
}

// GHSA-6fjr-mq49-mm2c: who serves https must prove who they are, to those in the bundle and nobody else.
func TestFetchTLS(t *testing.T) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Proto) }))
	s.EnableHTTP2 = true
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	defer s.Close()
	trusted := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))

	job := fetch(s.URL)
	job.CABundle = trusted
	if got := do(t, "fetchurl", job).contents(t); got != "HTTP/2.0" {
		t.Errorf("got %q", got)
	}
	job.Transfer = &Transfer{Attempts: 1}
	if got := do(t, "fetchurl", job).contents(t); got != "HTTP/1.1" {
		t.Errorf("without HTTP/2 got %q", got)
	}

	job.CABundle = otherCA
	r := do(t, "fetchurl", job)
	if r.exit != 1 || !strings.Contains(uncoloured(r.log), "SSL peer certificate or SSH remote key was not OK (60) SSL certificate problem: ") {
		t.Errorf("somebody else's certificate: exit status %d, log:\n%s", r.exit, r.log)
	}
	job.CABundle = trusted
	job.Env["url"] = strings.Replace(s.URL, "127.0.0.1", "localhost", 1)
	do(t, "fetchurl", job).fails(t, inFile("unable to download '"+job.Env["url"]+"': SSL peer certificate or SSH remote key was not OK (60) "+
		"SSL: no alternative certificate subject name matches target host name 'localhost'"))
	job.CABundle = ""
	if r := do(t, "fetchurl", job); r.exit != 1 || !strings.Contains(uncoloured(r.log), "(77)") {
		t.Errorf("no bundle: exit status %d, log:\n%s", r.exit, r.log)
	}

	// Nor does a redirection lead around it.
	job.Env["url"] = serve(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, s.URL, 302) })
	job.CABundle = otherCA
	if r := do(t, "fetchurl", job); r.exit != 1 || !strings.Contains(uncoloured(r.log), "(60)") {
		t.Errorf("redirected: exit status %d, log:\n%s", r.exit, r.log)
	}

	job.CABundle = trusted
	job.Env["url"] = strings.Replace(serve(t, http.NotFound), "http:", "https:", 1)
	if r := do(t, "fetchurl", job); r.exit != 1 || !strings.Contains(uncoloured(r.log), "SSL connect error (35)") {
		t.Errorf("no TLS: exit status %d, log:\n%s", r.exit, r.log)
	}
}

// cut serves data but breaks off in the middle of every whole answer.
func cut(data []byte, header http.Header, ranges bool, asked *[]string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		*asked = append(*asked, r.Header.Get("Range"))
		for name, values := range header {
			w.Header()[name] = values
		}
		if ranges && r.Header.Get("Range") != "" {
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
			return
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(data)))
		if n := len(*asked); n < 3 {
			data = slices.Clone(data)
			w.Write(data[:len(data)/2])
			panic(http.ErrAbortHandler)
		}
		w.Write(data)
	}
}

func TestFetchBrokenOff(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<14)
	half := len(data) / 2
	for _, tt := range []struct {
		name   string
		header http.Header
		ranges bool
		asked  []string
		first  string // the end of the first warning
	}{
		{"goes on", http.Header{"Accept-Ranges": {"bytes"}, "Etag": {`"1"`}}, true, []string{"", fmt.Sprintf("bytes=%d-", half)},
			fmt.Sprintf("retrying from offset %d in ", half)},
		{"begins again", nil, false, []string{"", "", ""}, "retrying in "},
		{"lies about ranges", http.Header{"Accept-Ranges": {"bytes"}}, false, []string{"", fmt.Sprintf("bytes=%d-", half), ""},
			fmt.Sprintf("retrying from offset %d in ", half)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var asked []string
			u := serve(t, cut(data, tt.header, tt.ranges, &asked))
			r := do(t, "fetchurl", fetch(u))
			if r.contents(t) != string(data) {
				t.Error("wrong contents")
			}
			if diff := cmp.Diff(tt.asked, asked); diff != "" {
				t.Errorf("ranges (-want +got):\n%s", diff)
			}
			want := "warning: unable to download '" + u + "': HTTP error 200 (curl error: Transferred a partial file); " + tt.first
			if got := r.warnings(); len(got) == 0 || !strings.HasPrefix(got[0], want) {
				t.Errorf("warnings %q, want first %q", got, want)
			}
		})
	}
}

// A tree cannot be begun again while it is restored, only gone on with.
func TestFetchUnpackBrokenOff(t *testing.T) {
	archive := narOf(t, string(bytes.Repeat([]byte("0123456789abcdef"), 1<<16)))
	var asked []string
	u := serve(t, cut(archive, http.Header{"Accept-Ranges": {"bytes"}, "Etag": {`"1"`}}, true, &asked))
	job := fetch(u)
	job.Env["unpack"] = "1"
	if r := do(t, "fetchurl", job); len(r.contents(t)) != 1<<20 || len(asked) != 2 {
		t.Errorf("asked %q", asked)
	}
	asked = nil
	job.Env["url"] = serve(t, cut(archive, nil, false, &asked))
	if r := do(t, "fetchurl", job); r.exit != 1 || !strings.Contains(uncoloured(r.log), "HTTP error 200 (curl error: Transferred a partial file)") || len(asked) != 1 {
		t.Errorf("exit status %d, asked %q, log:\n%s", r.exit, asked, r.log)
	}
}

func TestFetchStalled(t *testing.T) {
	release := make(chan struct{})
	u := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "100")
		io.WriteString(w, "a few")
		w.(http.Flusher).Flush()
		<-release
	})
	defer close(release)
	job := fetch(u)
	job.Transfer = &Transfer{Attempts: 1, StalledTimeout: 1}
	do(t, "fetchurl", job).fails(t, inFile("unable to download '"+u+"': HTTP error 200 (curl error: Timeout was reached)"))
}

func TestFetchSpeed(t *testing.T) {
	u := serve(t, func(w http.ResponseWriter, r *http.Request) { w.Write(make([]byte, 32<<10)) })
	job := fetch(u)
	job.Transfer = &Transfer{Attempts: 1, Speed: 128}
	began := time.Now()
	if size, took := len(do(t, "fetchurl", job).contents(t)), time.Since(began); size != 32<<10 || took < 200*time.Millisecond {
		t.Errorf("got %d bytes in %v, want 32 KiB in a quarter of a second", size, took)
	}
}

func TestFetchGarbledReply(t *testing.T) {
	for reply, want := range map[string]string{"": "Server returned nothing (no headers, no data) (52) Empty reply from server",
		"hello, who is there?\r\n\r\n": `Unsupported protocol (1) Received HTTP/0.9 when not allowed`} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				// The request is read whole, so that closing does not reset the connection.
				http.ReadRequest(bufio.NewReader(c))
				io.WriteString(c, reply)
				c.Close()
			}
		}()
		job := fetch("http://" + l.Addr().String() + "/")
		job.Transfer = &Transfer{Attempts: 1}
		do(t, "fetchurl", job).fails(t, inFile("unable to download '"+job.Env["url"]+"': "+want))
		l.Close()
		<-done
	}
}

func TestFetchEncodings(t *testing.T) {
	type compressor = func(io.Writer) (io.WriteCloser, error)
	gz := func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil }
	br := func(w io.Writer) (io.WriteCloser, error) { return brotli.NewWriter(w), nil }
	text := strings.Repeat("contents ", 1000)
	for _, tt := range []struct {
		encoding string
		apply    []compressor
	}{
		{"gzip", []compressor{gz}}, {"X-GZip", []compressor{gz}}, {"br", []compressor{br}}, {"identity", nil}, {"", nil},
		{"zstd", []compressor{func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) }}},
		{"xz", []compressor{func(w io.Writer) (io.WriteCloser, error) { return xz.NewWriter(w) }}},
		{"deflate", []compressor{func(w io.Writer) (io.WriteCloser, error) { return zlib.NewWriter(w), nil }}},
		{"deflate", []compressor{func(w io.Writer) (io.WriteCloser, error) { return flate.NewWriter(w, 9) }}},
		{"gzip, br", []compressor{gz, br}},
	} {
		data := []byte(text)
		for _, c := range tt.apply {
			data = compressed(t, c, data)
		}
		u := serve(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", tt.encoding)
			w.Header().Set("Content-Type", "text/plain")
			w.Write(data)
		})
		if got := do(t, "fetchurl", fetch(u)).contents(t); got != text {
			t.Errorf("%q: got %.50q", tt.encoding, got)
		}
		if len(tt.apply) == 0 {
			continue
		}
		data = append(slices.Clone(data[:len(data)/2]), "and now something else"...)
		r := do(t, "fetchurl", fetch(u))
		r.fails(t, inFile("unable to download '"+u+"': HTTP error 200 (curl error: Unrecognized or bad HTTP Content or Transfer-Encoding)"))
	}
	for _, encoding := range []string{"compress", "gzip,gzip,gzip,gzip,gzip,gzip"} {
		u := serve(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", encoding)
			io.WriteString(w, "x")
		})
		do(t, "fetchurl", fetch(u)).fails(t, inFile("unable to download '"+u+"': HTTP error 200 (curl error: Unrecognized or bad HTTP Content or Transfer-Encoding)"))
	}
}

// narOf is the archive of a file.
func narOf(t testing.TB, contents string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := nar.NewWriter(&b)
	if err := w.Regular("", false, uint64(len(contents)), strings.NewReader(contents)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
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

// An output that is a link is not written through.
func TestFetchOutputIsLink(t *testing.T) {
	top := plant(t, map[string]string{"victim": "safe", "out": "->TOP/victim", "src": "evil"})
	job := fetch("file://" + top + "/src")
	job.Outputs = map[string]string{"out": top + "/out"}
	if r := do(t, "fetchurl", job); r.exit != 1 || tree(t, top)["victim"] != "safe" {
		t.Errorf("exit status %d, log:\n%s", r.exit, r.log)
	}
}

func TestFetchInterrupted(t *testing.T) {
	u := serve(t, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(503) })
	b := &builder{job: &Job{}, getenv: func(string) string { return "" }, log: &logger{w: io.Discard}}
	f := newFetcher(b)
	defer f.close()
	// The default pause: what ends is the context.
	ctx, cancel := contextWithin(t, 50*time.Millisecond)
	defer cancel()
	d := f.open(ctx, u)
	defer d.stop()
	_, err := io.ReadAll(d)
	if want := "download of '" + u + "' was interrupted"; err == nil || uncoloured(err.Error()) != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

func TestFetchProxy(t *testing.T) {
	proxy := serve(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "proxy for "+r.RequestURI) })
	host := strings.TrimPrefix(proxy, "http://")
	const u = "http://nowhere.invalid/x"
	for _, env := range []string{"http_proxy=" + proxy, "http_proxy=" + host, "all_proxy=" + proxy, "ALL_PROXY=" + proxy} {
		if got := do(t, "fetchurl", fetch(u), env).contents(t); got != "proxy for "+u {
			t.Errorf("%s: got %q", env, got)
		}
	}
}

func TestProxyChoice(t *testing.T) {
	for _, tt := range []struct {
		env  map[string]string
		url  string
		want string
	}{
		{map[string]string{"HTTP_PROXY": "p"}, "http://h/", ""},
		{map[string]string{"HTTPS_PROXY": "p"}, "https://h/", "http://p"},
		{map[string]string{"https_proxy": "socks5://p:1"}, "https://h/", "socks5://p:1"},
		{map[string]string{"http_proxy": "p"}, "https://h/", ""},
		{map[string]string{"all_proxy": "p", "no_proxy": "*"}, "http://h/", ""},
		{map[string]string{"all_proxy": "p", "no_proxy": "a,.example.org b"}, "http://www.Example.org/", ""},
		{map[string]string{"all_proxy": "p", "no_proxy": "example.org"}, "http://notexample.org/", "http://p"},
		{map[string]string{"all_proxy": "p", "NO_PROXY": "10.0.0.0/8"}, "http://10.1.2.3/", ""},
		{map[string]string{"all_proxy": "p", "no_proxy": "[::1]"}, "http://[::1]:80/", ""},
		{map[string]string{"all_proxy": "p", "no_proxy": "0.1"}, "http://127.0.0.1/", "http://p"},
	} {
		u, err := url.Parse(tt.url)
		if err != nil {
			t.Fatal(err)
		}
		got, err := proxies{func(name string) string { return tt.env[name] }}.find(u)
		text := ""
		if got != nil {
			text = got.String()
		}
		if err != nil || text != tt.want {
			t.Errorf("%v %s: got %q, %v, want %q", tt.env, tt.url, text, err, tt.want)
		}
	}
}

// A download is not held in memory, compressed or not.
func TestFetchMemory(t *testing.T) {
	const size = 64 << 20
	var u string
	u = serve(t, func(w http.ResponseWriter, r *http.Request) {
		var out io.Writer = w
		if r.URL.Path == "/gzip" {
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			defer z.Close()
			out = z
		}
		chunk := make([]byte, 1<<20)
		for range size / len(chunk) {
			out.Write(chunk)
		}
	})
	for _, path := range []string{"/", "/gzip"} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		r := do(t, "fetchurl", fetch(u+path))
		runtime.ReadMemStats(&after)
		if info, err := os.Stat(r.out); err != nil || info.Size() != size {
			t.Fatalf("%v, %v, log:\n%s", info, err, r.log)
		}
		// The server's own memory is counted too.
		if grown := after.TotalAlloc - before.TotalAlloc; grown > 16<<20 {
			t.Errorf("%s: allocated %d bytes for a download of %d", path, grown, size)
		}
	}
}

func BenchmarkFetch(b *testing.B) {
	data := make([]byte, 16<<20)
	u := serve(b, func(w http.ResponseWriter, r *http.Request) { w.Write(data) })
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		do(b, "fetchurl", fetch(u))
	}
}

// otherCA is the certificate of an authority that has certified nobody.
const otherCA = `-----BEGIN CERTIFICATE-----
MIIBdzCCAR2gAwIBAgIUYIpgDmQgz7cfUW09cbxneVVoX+IwCgYIKoZIzj0EAwIw
EDEOMAwGA1UEAwwFb3RoZXIwIBcNMjYxMTIxMDIzODA0WhgPMjEyNjEwMjgwMjM4
MDRaMBAxDjAMBgNVBAMMBW90aGVyMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE
OxV6CG7JCijQw3IKm/9Lo1BpX01O/rGUgIpvL9doypuAIvkQ4gykA2nNLkW9aDBg
ZVELGa8sFFpa+zsbQ5UgP6NTMFEwHQYDVR0OBBYEFNXv5TAvcOEouPUSrb7o6VT0
w2TUMB8GA1UdIwQYMBaAFNXv5TAvcOEouPUSrb7o6VT0w2TUMA8GA1UdEwEB/wQF
MAMBAf8wCgYIKoZIzj0EAwIDSAAwRQIhAIGy40/+qpRQNF0TBIyro8U7lZ0Q4sqw
D/2K7Y/l8lWXAiAfoAvIkgoyVWfZqs6Hzi8K9oMhLsje6qI70UQaobDXDg==
-----END CERTIFICATE-----
`
