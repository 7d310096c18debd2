package transfer

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func contextWithCause(t testing.TB) (context.Context, context.CancelCauseFunc) {
	ctx, cancel := context.WithCancelCause(t.Context())
	t.Cleanup(func() { cancel(nil) })
	return ctx, cancel
}

func serveTLS(t testing.TB, config *tls.Config, states func(net.Conn, http.ConnState), h http.HandlerFunc) (s *httptest.Server, bundle string) {
	t.Helper()
	s = httptest.NewUnstartedServer(h)
	s.EnableHTTP2, s.TLS, s.Config.ConnState = true, config, states
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	return s, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
}

// Requests that begin at the same moment share one connection of HTTP/2.
func TestHTTP2(t *testing.T) {
	var connections, now, most atomic.Int64
	release := make(chan struct{})
	s, bundle := serveTLS(t, nil, func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			connections.Add(1)
		}
	}, func(w http.ResponseWriter, r *http.Request) {
		most.Store(max(most.Load(), now.Add(1)))
		<-release
		now.Add(-1)
		io.WriteString(w, r.Proto)
	})
	w := newWorld(t)
	w.set.CABundle, w.set.Connections = bundle, 2
	var all sync.WaitGroup
	for range 40 {
		all.Go(func() {
			if got, err := w.get(t, &Request{URL: s.URL}); got != "HTTP/2.0" || err != nil {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
	for range 40 {
		release <- struct{}{}
	}
	all.Wait()
	close(release)
	if connections.Load() > 1 {
		t.Errorf("%d connections", connections.Load())
	}
	if most.Load() > 2*weightConnection {
		t.Errorf("%d requests at once, want at most five times the limit", most.Load())
	}
	w.set.HTTP2 = false
	if got, err := w.get(t, &Request{URL: s.URL}); got != "HTTP/1.1" || err != nil {
		t.Errorf("without HTTP/2 got %q, %v", got, err)
	}
}

// pair makes a certificate for itself, and writes it and its key into a file.
func pair(t testing.TB) (file string, pool *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "client"}, NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	text := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})...)
	file = filepath.Join(t.TempDir(), "pair.pem")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	pool = x509.NewCertPool()
	pool.AppendCertsFromPEM(text)
	return file, pool
}

func TestClientCertificate(t *testing.T) {
	file, pool := pair(t)
	s, bundle := serveTLS(t, &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}, nil, func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, r.TLS.PeerCertificates[0].Subject.CommonName)
	})
	w := newWorld(t)
	w.set.CABundle, w.set.Attempts = bundle, 1
	cache, err := NewHTTP(w.Engine, s.URL, file, "")
	if err != nil {
		t.Fatal(err)
	}
	read := func(name string) (string, error) {
		resp, err := cache.Get(t.Context(), name, Call{Settings: &w.set})
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		return string(text), err
	}
	if got, err := read("x"); got != "client" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	// It is not for others, who are not shown it either.
	if _, err := read(strings.Replace(s.URL, "127.0.0.1", "localhost", 1) + "/x"); err == nil {
		t.Error("the certificate was used elsewhere")
	}
	if _, err := w.get(t, &Request{URL: s.URL}); err == nil || !strings.Contains(err.Error(), "(35)") && !strings.Contains(err.Error(), "(56)") {
		t.Errorf("without certificate: %v", err)
	}
	_, err = w.get(t, &Request{URL: s.URL, TLSCertificate: "/nonexistent/pem"})
	want := "unable to download '" + s.URL + "': Problem with the local SSL certificate (58) could not load PEM client certificate from /nonexistent/pem, "
	if err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("got %v, want %s", err, want)
	}
}

// Files of settings are looked at again when they change.
func TestFilesChange(t *testing.T) {
	s, bundle := serveTLS(t, nil, nil, func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		io.WriteString(w, user+":"+password)
	})
	dir := t.TempDir()
	w := newWorld(t)
	w.set.Attempts, w.set.CAFile, w.set.NetrcFile = 1, dir+"/ca", dir+"/netrc"
	_, err := w.get(t, &Request{URL: s.URL})
	if want := "unable to download '" + s.URL + "': Problem with the SSL CA cert (path? access rights?) (77) error adding trust anchors from file: " + dir + "/ca"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	age := func() {
		for _, f := range w.files {
			f.looked = f.looked.Add(-2 * fileTime)
		}
	}
	for _, tt := range []struct{ netrc, want string }{{"", ":"}, {"machine 127.0.0.1 login me password secret", "me:secret"}, {"default login you password it", "you:it"}} {
		if err := os.WriteFile(dir+"/ca", []byte(bundle), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(dir+"/netrc", []byte(tt.netrc), 0o600); err != nil {
			t.Fatal(err)
		}
		age()
		if got, err := w.get(t, &Request{URL: s.URL}); got != tt.want || err != nil {
			t.Errorf("got %q, %v, want %s", got, err, tt.want)
		}
	}
	if len(w.pools) != 1 {
		t.Errorf("%d pools", len(w.pools))
	}
}

// Kinds of connections are bounded, whatever clients ask for.
func TestPoolsAreBounded(t *testing.T) {
	u := serve(t, func(w http.ResponseWriter, r *http.Request) {})
	w := newWorld(t)
	for i := range 3 * maxPools {
		w.set.ConnectTimeout = time.Duration(i+1) * time.Second
		if _, err := w.get(t, &Request{URL: u}); err != nil {
			t.Fatal(err)
		}
	}
	if len(w.pools) > maxPools {
		t.Errorf("%d pools", len(w.pools))
	}
}

// Credentials go to the host that they are for.
func TestCredentials(t *testing.T) {
	show := func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		io.WriteString(w, user+":"+password+" "+r.Header.Get("X-Own"))
	}
	other := strings.Replace(serve(t, show), "127.0.0.1", "localhost", 1)
	u := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/other":
			http.Redirect(w, r, other, http.StatusFound)
		case "/same":
			http.Redirect(w, r, "/", http.StatusFound)
		default:
			show(w, r)
		}
	})
	for _, tt := range []struct {
		path, netrc, want string
	}{
		{"/", "", "user:password own"},
		{"/same", "", "user:password own"},
		{"/other", "", ": "},
		{"/other", "machine localhost login l password p", "l:p "},
	} {
		w := newWorld(t)
		w.set.Netrc = tt.netrc
		signed := 0
		r := &Request{URL: u + tt.path, Username: "user", Password: "password", Header: http.Header{"X-Own": {"own"}},
			Sign: func(*http.Request) error { signed++; return nil }}
		if got, err := w.get(t, r); got != tt.want || err != nil {
			t.Errorf("%s: got %q, %v, want %q", tt.path, got, err, tt.want)
		}
		if tt.path == "/other" && signed != 1 {
			t.Errorf("signed %d requests", signed)
		}
	}
	for in, want := range map[string]string{"http://u:p@h/x@y": "http://h/x@y", "http://h/x@y": "http://h/x@y", "http://u@h": "http://h",
		"https://a:b@c@h/": "https://h/", "file:///a@b": "file:///a@b", "s3://k:s@b/o": "s3://b/o"} {
		if got := Shown(in); got != want {
			t.Errorf("%s is shown as %s, want %s", in, got, want)
		}
	}
	w := newWorld(t)
	_, err := w.get(t, &Request{URL: strings.Replace(u, "//", "//me:secret@", 1) + "/%zz", Log: w, IDs: &w.ids})
	for _, text := range append(w.told, "") {
		if err != nil {
			text += err.Error()
		}
		if strings.Contains(text, "secret") {
			t.Errorf("shown: %s", text)
		}
	}
}

func TestETag(t *testing.T) {
	for _, honest := range []bool{true, false} {
		u := serve(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("ETag", `"1"`)
			if honest && r.Header.Get("If-None-Match") == `"1"` {
				w.WriteHeader(304)
				return
			}
			io.WriteString(w, "contents")
		})
		w := newWorld(t)
		for _, tt := range []struct {
			expected, want string
			cached         bool
		}{{"", "contents", false}, {`"2"`, "contents", false}, {`"1"`, "", true}} {
			resp, err := w.Do(t.Context(), &w.set, &Request{URL: u, ExpectedETag: tt.expected})
			if err != nil {
				t.Fatal(err)
			}
			text, err := io.ReadAll(resp.Body)
			if string(text) != tt.want || resp.Cached != tt.cached || resp.ETag != `"1"` || err != nil {
				t.Errorf("honest %v, expected %s: %q, cached %v, ETag %s, %v", honest, tt.expected, text, resp.Cached, resp.ETag, err)
			}
			resp.Body.Close()
		}
	}
}

// The limit is on all that is under way, whoever asks.
func TestConnectionsAreLimited(t *testing.T) {
	var now, most atomic.Int64
	release := make(chan struct{})
	u := serve(t, func(w http.ResponseWriter, r *http.Request) {
		most.Store(max(most.Load(), now.Add(1)))
		<-release
		now.Add(-1)
	})
	w := newWorld(t)
	w.set.Connections = 3
	var all sync.WaitGroup
	for range 30 {
		all.Go(func() {
			if _, err := w.get(t, &Request{URL: u}); err != nil {
				t.Error(err)
			}
		})
	}
	for range 30 {
		release <- struct{}{}
	}
	all.Wait()
	if most.Load() > 3 || w.gate.used != 0 || w.gate.waiting.Len() != 0 {
		t.Errorf("%d at once, %d in the gate", most.Load(), w.gate.used)
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

// What is to be sent is let go of when not even a connection can be tried.
func TestUploadWithoutCertificates(t *testing.T) {
	w := newWorld(t)
	w.set.CAFile, w.set.Attempts = filepath.Join(t.TempDir(), "none"), 1
	closed := 0
	body := func() (io.ReadCloser, int64, error) { return closeCounter{strings.NewReader("text"), &closed}, 4, nil }
	_, err := w.get(t, &Request{Method: http.MethodPut, URL: "https://localhost/x", Body: body})
	if err == nil || closed != 1 {
		t.Errorf("closed %d times, %v", closed, err)
	}
}

type closeCounter struct {
	io.Reader
	closed *int
}

func (c closeCounter) Close() error {
	*c.closed++
	return nil
}

// Until there is a connection the limit for silence does not count, but that for connecting, as with libcurl.
func TestSlowHandshake(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() // nobody takes the connection, so that nothing is ever said on it
	_, bundle := serveTLS(t, nil, nil, func(http.ResponseWriter, *http.Request) {})
	for _, http2 := range []bool{false, true} {
		w := newWorld(t)
		w.set.CABundle, w.set.Attempts, w.set.HTTP2 = bundle, 1, http2
		w.set.StalledTimeout, w.set.ConnectTimeout = time.Millisecond, 100*time.Millisecond
		_, err = w.get(t, &Request{URL: "https://" + l.Addr().String()})
		if err == nil || !strings.Contains(err.Error(), "Timeout was reached (28) Connection timed out after") {
			t.Errorf("with HTTP/2 %v: %v, want that the connection took too long", http2, err)
		}
		w.set.StalledTimeout, w.set.ConnectTimeout = 100*time.Millisecond, 0
		_, err = w.get(t, &Request{URL: "https://" + l.Addr().String()})
		if err == nil || !strings.Contains(err.Error(), "Operation too slow") {
			t.Errorf("with HTTP/2 %v and no limit for connecting: %v, want that nothing came", http2, err)
		}
	}
}
