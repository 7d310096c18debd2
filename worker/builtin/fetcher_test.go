package builtin

import (
	"bufio"
	"compress/flate"
	"compress/zlib"
	"encoding/pem"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"nixdaemon/worker/builtin/builtinjob"
)

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
		{"https://" + closed, "unable to download 'https://" + closed + "': Problem with the SSL CA cert (path? access rights?) (77) error adding trust anchors from file: ca-certificates.crt"},
	} {
		do(t, "fetchurl", fetch(tt.url)).fails(t, inFile(tt.want))
	}
	// A line of context stands between those of the output and the error.
	const style = "s3://bucket/k?addressing-style=x"
	do(t, "fetchurl", fetch(style)).fails(t, strings.Replace(inFile("unknown S3 addressing style 'x', expected 'auto', 'path', or 'virtual'"),
		"\n\n", "\n\n       … while parsing S3 URI: '"+style+"'\n\n", 1))
	do(t, "fetchurl", fetch("s3://bucket/k?endpoint=file:///x")).fails(t,
		inFile(`unable to download 'file:///x/bucket/k': Unsupported protocol (1) Protocol "file" not supported`))
	job := fetch("http://" + closed + "/")
	job.Transfer = &builtinjob.Transfer{Attempts: 2}
	r := do(t, "fetchurl", job)
	want := "unable to download 'http://" + closed + "/': Could not connect to server (7) Failed to connect to " + closed + " after "
	if r.exit != 1 || !strings.Contains(uncoloured(r.log), want) || len(r.pauses) != 1 {
		t.Errorf("exit status %d, %d pauses, log:\n%s", r.exit, len(r.pauses), r.log)
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
	if r := do(t, "fetchurl", fetch(u)); len(r.log) > 512<<10 {
		t.Errorf("kept %d bytes of an error", len(r.log))
	}
}

func TestFetchRedirects(t *testing.T) {
	u := serve(t, func(w http.ResponseWriter, r *http.Request) {
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
			http.Redirect(w, r, other, http.StatusFound)
		case "/same":
			http.Redirect(w, r, "/", http.StatusFound)
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

// GHSA-6fjr-mq49-mm2c (CVE-2024-47174): who serves https must prove who they are, to those in the bundle and nobody else.
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
	job.Transfer = &builtinjob.Transfer{Attempts: 1}
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
	job.Env["url"] = serve(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, s.URL, http.StatusFound) })
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
		job.Transfer = &builtinjob.Transfer{Attempts: 1}
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
