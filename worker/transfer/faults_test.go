package transfer

import (
	"bufio"
	"compress/gzip"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// raw serves connections by hand. The request has been read.
func raw(t testing.TB, answer func(c *net.TCPConn, r *http.Request)) string {
	t.Helper()
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
			if r, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
				answer(c.(*net.TCPConn), r)
			}
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return "http://" + l.Addr().String()
}

// reply answers with the same bytes whatever is asked.
func reply(text string) func(t testing.TB) string {
	return func(t testing.TB) string {
		return raw(t, func(c *net.TCPConn, _ *http.Request) { io.WriteString(c, text) })
	}
}

func handler(h http.HandlerFunc) func(t testing.TB) string {
	return func(t testing.TB) string { return serve(t, h) }
}

const large = 256 << 10

// faults are servers that misbehave, and what is said of each: after "unable to download '<URL>': ", or with a URL of
// their own.
var faults = []struct {
	name  string
	serve func(t testing.TB) string
	kind  Kind
	want  string
	own   string // why upstream's text differs, "" if it does not
}{
	{"404", handler(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(404) }), NotFound, "HTTP error 404", "nix store info takes it for an empty cache"},
	{"401", handler(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(401) }), Forbidden, "HTTP error 401", ""},
	{"403 with reason", handler(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(403); io.WriteString(w, "go away\n") }),
		Forbidden, "HTTP error 403\n\nresponse body:\n\ngo away", ""},
	{"500", handler(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }), Transient, "HTTP error 500", ""},
	{"501", handler(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(501) }), Misc, "HTTP error 501", ""},
	{"huge error", handler(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(500)
		w.Write(make([]byte, 4<<20))
	}), Transient, "HTTP error 500", ""},
	{"compressed error", handler(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		w.WriteHeader(500)
		z := gzip.NewWriter(w)
		io.WriteString(z, "unpacked reason")
		z.Close()
	}), Transient, "HTTP error 500\n\nresponse body:\n\nunpacked reason", ""},
	{"truncated", reply("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nfew"), Transient,
		"HTTP error 200 (curl error: Transferred a partial file)", ""},
	{"reset in the body", func(t testing.TB) string {
		return raw(t, func(c *net.TCPConn, _ *http.Request) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"+strings.Repeat("x", large))
			c.SetLinger(0)
		})
	}, Transient, "HTTP error 200 (curl error: Failure when receiving data from the peer)", "how much arrives before the reset differs"},
	{"no answer", reply(""), Transient, "Server returned nothing (no headers, no data) (52) Empty reply from server", ""},
	{"half a header", reply("HTTP/1.1 200 OK\r\nContent-Le"), Transient,
		"Failure when receiving data from the peer (56) malformed MIME header: missing colon: \"Content-Le\"", "libcurl takes it for a response"},
	{"not HTTP", reply("SSH-2.0-OpenSSH_9.2\r\n"), Misc, "Unsupported protocol (1) Received HTTP/0.9 when not allowed", ""},
	{"endless header", func(t testing.TB) string {
		return raw(t, func(c *net.TCPConn, _ *http.Request) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\n")
			for range 100_000 {
				if _, err := io.WriteString(c, "X: "+strings.Repeat("y", 1000)+"\r\n"); err != nil {
					return
				}
			}
		})
	}, Transient, "Failure when receiving data from the peer (56) Too large response headers: more than 307200", "libcurl says how large, and status 200"},
	{"bad chunk", reply("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), Transient,
		"HTTP error 200 (curl error: Failure when receiving data from the peer)", ""},
	{"chunks cut off", reply("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc"), Transient,
		"HTTP error 200 (curl error: Transferred a partial file)", ""},
	{"redirect loop", handler(func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path, http.StatusFound) }), Misc,
		"HTTP error 302 (curl error: Number of redirects hit maximum amount)", ""},
	{"redirect to a file", handler(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", "file:///etc/passwd")
		w.WriteHeader(301)
	}), Misc, "HTTP error 301 (curl error: Unsupported protocol)", ""},
	{"unknown encoding", handler(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "rot13")
		io.WriteString(w, "uryyb")
	}), Misc, "HTTP error 200 (curl error: Unrecognized or bad HTTP Content or Transfer-Encoding)", ""},
	{"wrong encoding", handler(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		io.WriteString(w, "this is not gzip at all")
	}), Misc, "HTTP error 200 (curl error: Unrecognized or bad HTTP Content or Transfer-Encoding)", ""},
	{"nobody there", func(t testing.TB) string {
		s := httptest.NewServer(nil)
		s.Close()
		return s.URL
	}, Transient, "Could not connect to server (7) Failed to connect to ADDRESS after N ms: Could not connect to server", "libcurl 8.14 names host and port in other words"},
	{"no such host", func(testing.TB) string { return "http://nowhere.invalid" }, Transient,
		"Could not resolve hostname (6) Could not resolve host: nowhere.invalid", ""},
	{"no TLS", func(t testing.TB) string {
		return strings.Replace(serve(t, func(http.ResponseWriter, *http.Request) {}), "http:", "https:", 1)
	}, Transient, "SSL connect error (35) ", "the rest is the TLS library's"},
}

var (
	milliseconds = regexp.MustCompile(`after \d+ ms`)
	address      = regexp.MustCompile(`127\.0\.0\.1:\d+ after`)
)

// settle takes out of a text what differs from run to run.
func settle(text string) string {
	return milliseconds.ReplaceAllString(address.ReplaceAllString(text, "ADDRESS after"), "after N ms")
}

func TestFaults(t *testing.T) {
	for _, tt := range faults {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.set.Attempts, w.set.CABundle = 1, otherCA
			u := tt.serve(t) + "/nix-cache-info"
			_, err := w.get(t, &Request{URL: u})
			e, ok := errors.AsType[*Error](err)
			if !ok {
				t.Fatalf("got %v", err)
			}
			got, begins := strings.CutPrefix(settle(e.Error()), "unable to download '"+u+"': ")
			if !begins || got != tt.want && !(strings.HasSuffix(tt.want, " ") && strings.HasPrefix(got, tt.want)) || e.Kind != tt.kind {
				t.Errorf("got kind %d, %q\nwant %d, %q", e.Kind, got, tt.kind, tt.want)
			}
			if len(e.Body) > maxErrorBody {
				t.Errorf("kept %d bytes", len(e.Body))
			}
		})
	}
}

// The texts are those that upstream's client prints of the same servers.
func TestFaultsUpstream(t *testing.T) {
	bin := os.Getenv("NIXDAEMON_UPSTREAM")
	if bin == "" {
		t.Skip("no upstream nix: set NIXDAEMON_UPSTREAM to the bin directory of release 2.34.8")
	}
	for _, tt := range faults {
		if tt.own != "" {
			continue
		}
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir, u := t.TempDir(), tt.serve(t)
			cmd := exec.Command(filepath.Join(bin, "nix"), "--extra-experimental-features", "nix-command", "store", "info", "--store", u)
			cmd.Env = append(os.Environ(), "HOME="+dir, "NIX_STORE_DIR="+dir+"/store", "NIX_STATE_DIR="+dir+"/state", "NIX_CONF_DIR="+dir,
				"NIX_CONFIG=download-attempts = 1")
			var stderr strings.Builder
			cmd.Stderr = &stderr
			if err := cmd.Run(); err == nil {
				t.Fatal("upstream's client has no complaint")
			}
			got := settle(plain(stderr.String()))
			if want := "unable to download '" + u + "/nix-cache-info': " + tt.want; got != want {
				t.Errorf("upstream says\n%q\nwe say\n%q", got, want)
			}
		})
	}
}

// plain takes the error out of what a client prints.
func plain(stderr string) string {
	_, text, _ := strings.Cut(regexp.MustCompile("\x1b\\[[0-9;]*m").ReplaceAllString(stderr, ""), "error: ")
	lines := strings.Split(strings.TrimSpace(text), "\n")
	for i := range lines {
		lines[i] = strings.TrimPrefix(lines[i], "       ")
	}
	return strings.Join(lines, "\n")
}

func TestRetryAfter(t *testing.T) {
	for _, tt := range []struct {
		status    int
		header    string
		low, high time.Duration
	}{
		{429, "7", 7 * time.Second, 12 * time.Second},
		{503, time.Now().Add(30 * time.Second).UTC().Format(http.TimeFormat), 28 * time.Second, 36 * time.Second},
		{503, "", 0, 5 * time.Second},
		{503, "soon", 0, 5 * time.Second},
		{500, "7", 0, 100 * time.Millisecond},
		{429, "999999999", maxRetryAfter, maxRetryAfter + 5*time.Second},
		{429, "-5", 0, 5 * time.Second},
	} {
		w := newWorld(t)
		w.set.RetryDelay, w.set.RateLimitDelay, w.set.MaxRetryDelay, w.set.Jitter = 100*time.Millisecond, 5*time.Second, time.Minute, true
		tries := 0
		u := serve(t, func(rw http.ResponseWriter, r *http.Request) {
			if tries++; tries == 1 {
				rw.Header().Set("Retry-After", tt.header)
				rw.WriteHeader(tt.status)
			}
		})
		if _, err := w.get(t, &Request{URL: u}); err != nil {
			t.Fatal(err)
		}
		if len(w.pauses) != 1 || w.pauses[0] < tt.low || w.pauses[0] > tt.high {
			t.Errorf("%d with %q: waited %v, want %v to %v", tt.status, tt.header, w.pauses, tt.low, tt.high)
		}
	}
}

func TestDelaysDouble(t *testing.T) {
	u := serve(t, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(500) })
	w := newWorld(t)
	w.set.Attempts, w.set.RetryDelay, w.set.MaxRetryDelay = 7, 100*time.Millisecond, time.Second
	if _, err := w.get(t, &Request{URL: u, Log: w, IDs: &w.ids}); err == nil {
		t.Fatal("no error")
	}
	for i, want := range []time.Duration{100, 200, 400, 800, 1000, 1000} {
		if w.pauses[i] != want*time.Millisecond {
			t.Errorf("waits %v", w.pauses)
			break
		}
	}
	if want := "message 1 \x1b[35;1mwarning:\x1b[0m unable to download '\x1b[35;1m" + u +
		"\x1b[0m': HTTP error \x1b[35;1m500\x1b[0m\x1b[35;1m\x1b[0m; retrying in 100 ms (attempt 1/7)"; w.told[1] != want {
		t.Errorf("told %q\nwant %q", w.told[1], want)
	}
}

// A stall counts while the server is waited for, not while the reader has other things to do.
func TestStall(t *testing.T) {
	u := raw(t, func(c *net.TCPConn, _ *http.Request) {
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nfew")
		io.Copy(io.Discard, c) // until the client gives up
	})
	w := newWorld(t)
	w.set.Attempts, w.set.StalledTimeout = 1, 300*time.Millisecond
	resp, err := w.Do(t.Context(), &w.set, &Request{URL: u})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	dog := resp.Body.(*transfer).now.a.dog
	dog.check() // nobody waits: nothing happens
	began := time.Now()
	_, err = io.ReadAll(resp.Body)
	if want := "unable to download '" + u + "': HTTP error 200 (curl error: Timeout was reached)"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if took := time.Since(began); took < 250*time.Millisecond {
		t.Errorf("gave up after %v", took)
	}
	w.set.StalledTimeout = 100 * time.Millisecond
	silent := raw(t, func(c *net.TCPConn, _ *http.Request) { io.Copy(io.Discard, c) })
	_, err = w.Do(t.Context(), &w.set, &Request{URL: silent})
	if want := "unable to download '" + silent + "': Timeout was reached (28) Operation too slow. Less than 1 bytes/sec transferred the last 0 seconds"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// Encoded contents are as long as their reader wants them, and no more is decoded.
func TestBomb(t *testing.T) {
	u := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		z, _ := gzip.NewWriterLevel(w, gzip.BestSpeed)
		chunk := make([]byte, 1<<20)
		for range 4096 {
			if _, err := z.Write(chunk); err != nil {
				return
			}
		}
	})
	w := newWorld(t)
	resp, err := w.Do(t.Context(), &w.set, &Request{URL: u})
	if err != nil {
		t.Fatal(err)
	}
	if n, err := io.CopyN(io.Discard, resp.Body, 1<<20); n != 1<<20 || err != nil || resp.Size != -1 {
		t.Errorf("%d of %d bytes, %v", n, resp.Size, err)
	}
	resp.Body.Close()
	if _, err := resp.Body.Read(make([]byte, 1)); err == nil || err == io.EOF {
		t.Errorf("read after close: %v", err)
	}
}

// Interrupted requests end at once, wherever they are.
func TestInterrupted(t *testing.T) {
	cause := errors.New("the client hung up")
	for name, u := range map[string]string{
		"no answer": raw(t, func(c *net.TCPConn, _ *http.Request) { io.Copy(io.Discard, c) }),
		"no body": raw(t, func(c *net.TCPConn, _ *http.Request) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")
			io.Copy(io.Discard, c)
		}),
	} {
		w := newWorld(t)
		ctx, cancel := contextWithCause(t)
		time.AfterFunc(30*time.Millisecond, func() { cancel(cause) })
		resp, err := w.Do(ctx, &w.set, &Request{URL: u})
		if err == nil {
			_, err = io.ReadAll(resp.Body)
			resp.Body.Close()
		}
		if want := "download of '" + u + "' was interrupted"; !errors.Is(err, cause) || err.Error() != want {
			t.Errorf("%s: got %v, want %s", name, err, want)
		}
		if used := w.gate.used; used != 0 {
			t.Errorf("%s: %d left in the gate", name, used)
		}
	}
}

// Errors of what is sent are the caller's own.
func TestBodyFails(t *testing.T) {
	u := serve(t, func(w http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) })
	w := newWorld(t)
	broken := errors.New("broken")
	r := &Request{Method: "PUT", URL: u, Body: func() (io.ReadCloser, int64, error) {
		return io.NopCloser(io.MultiReader(strings.NewReader("some"), failingReader{broken})), 100, nil
	}}
	if _, err := w.Do(t.Context(), &w.set, r); err != broken {
		t.Errorf("got %v", err)
	}
	r.Body = func() (io.ReadCloser, int64, error) { return nil, 0, broken }
	if _, err := w.Do(t.Context(), &w.set, r); err != broken {
		t.Errorf("got %v", err)
	}
	r.Body = func() (io.ReadCloser, int64, error) { return io.NopCloser(strings.NewReader("short")), 100, nil }
	if _, err := w.Do(t.Context(), &w.set, r); err == nil || !strings.HasSuffix(err.Error(), "5 bytes instead of 100") {
		t.Errorf("got %v", err)
	}
	if len(w.pauses) != 0 {
		t.Error("tried again")
	}
}

type failingReader struct{ err error }

func (f failingReader) Read([]byte) (int, error) { return 0, f.err }

// An upload is sent anew with each attempt, and after a redirection.
func TestUploadAgain(t *testing.T) {
	var got []string
	u := serve(t, func(w http.ResponseWriter, r *http.Request) {
		text, _ := io.ReadAll(r.Body)
		got = append(got, r.Method+" "+r.URL.Path+" "+string(text))
		switch {
		case len(got) == 1:
			w.WriteHeader(500)
		case r.URL.Path == "/a":
			http.Redirect(w, r, "/b", http.StatusTemporaryRedirect)
		default:
			w.WriteHeader(201)
		}
	})
	w := newWorld(t)
	opened := 0
	r := &Request{Method: "PUT", URL: u + "/a", Body: func() (io.ReadCloser, int64, error) {
		opened++
		return io.NopCloser(strings.NewReader("text" + strconv.Itoa(opened))), 5, nil
	}}
	if _, err := w.get(t, r); err != nil {
		t.Fatal(err)
	}
	if want := "PUT /a text1, PUT /a text2, PUT /b text3"; strings.Join(got, ", ") != want {
		t.Errorf("got %q, want %s", got, want)
	}
	_, err := w.get(t, &Request{Method: "PUT", URL: "ftp://h/x", Body: r.Body})
	if want := `unable to upload 'ftp://h/x': Unsupported protocol (1) Protocol "ftp" not supported`; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}
