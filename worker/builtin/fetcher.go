package builtin

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"nixdaemon/worker/builtin/builtinjob"
)

const (
	maxRedirects = 10
	// maxHeader bounds the header of a response; libcurl has the same limit.
	maxHeader = 300 << 10
	// maxErrorBody bounds what is kept of the body of a response that is an error.
	maxErrorBody = 256 << 10
	// userAgent is upstream's: servers make exceptions for it.
	userAgent = "curl/8.17.0 Nix/2.34.8"
	// acceptEncoding is libcurl's for what it can decode.
	acceptEncoding = "deflate, gzip, br, zstd"
)

// fetcher makes attempts at downloads.
type fetcher struct {
	set       builtinjob.Transfer
	log       *logger
	netrc     string
	transport *http.Transport
	trusting  bool // there are certificates to trust
	pause     func(ctx context.Context, d time.Duration) error
}

func newFetcher(b *builder) *fetcher {
	f := &fetcher{set: b.transfer(), log: b.log, netrc: b.job.Netrc, pause: b.pause}
	if f.pause == nil {
		f.pause = sleep
	}
	roots := x509.NewCertPool()
	f.trusting = roots.AppendCertsFromPEM([]byte(b.job.CABundle))
	connect := time.Duration(min(f.set.ConnectTimeout, 1<<31)) * time.Second
	f.transport = &http.Transport{
		Proxy:                  func(r *http.Request) (*url.URL, error) { return proxies{b.getenv}.find(r.URL) },
		DialContext:            (&net.Dialer{Timeout: connect}).DialContext,
		TLSClientConfig:        &tls.Config{RootCAs: roots},
		TLSHandshakeTimeout:    connect,
		ForceAttemptHTTP2:      f.set.HTTP2,
		DisableCompression:     true, // encodings are decoded here
		MaxResponseHeaderBytes: maxHeader,
	}
	if !f.set.HTTP2 {
		f.transport.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
	}
	return f
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (f *fetcher) close() { f.transport.CloseIdleConnections() }

// open begins a download. Nothing happens before it is read.
func (f *fetcher) open(ctx context.Context, url string) *download {
	return &download{f: f, ctx: ctx, url: url}
}

// attempt asks for the contents of a URL from an offset on. For an offset, before is the response that is continued.
// began is called as soon as something happens: before a server is looked for, or when a file has been opened.
func (f *fetcher) attempt(ctx context.Context, text string, offset int64, before *response, began func()) (*response, error) {
	u, err := parseURL(text)
	if err != nil {
		return nil, err
	}
	switch u.Scheme {
	case "file":
		r, err := openFile(u)
		if err == nil {
			began()
		}
		return r, err
	case "http", "https":
		began()
		return f.get(ctx, u, offset, before)
	case "s3":
		return nil, failf("unable to %s '%s': S3 is not supported by 'builtin:fetchurl'; use the https URL of the object",
			plain("download"), text)
	}
	return nil, &transferError{code: curlUnsupportedProtocol, detail: `Protocol "` + u.Scheme + `" not supported`}
}

var badEscape = regexp.MustCompile(`%([^0-9A-Fa-f]|.[^0-9A-Fa-f]|.?$)`)

// parseURL takes what libcurl would: a percent sign may also stand for itself.
func parseURL(text string) (*url.URL, error) {
	if !strings.Contains(text, ":") {
		return nil, failf("URL '%s' doesn't have a scheme", text)
	}
	u, err := url.Parse(text)
	if err != nil {
		u, err = url.Parse(badEscape.ReplaceAllString(text, "%25$1"))
	}
	if err != nil {
		return nil, &transferError{code: curlURLMalformat, detail: "URL rejected: Malformed input to a URL function"}
	}
	if (u.Scheme == "http" || u.Scheme == "https") && u.Hostname() == "" {
		return nil, &transferError{code: curlURLMalformat, detail: "URL rejected: No host present"}
	}
	return u, nil
}

// openFile opens a file:// URL.
func openFile(u *url.URL) (*response, error) {
	if u.Host != "" && u.Host != "localhost" && u.Host != "127.0.0.1" {
		return nil, &transferError{code: curlURLMalformat, detail: "URL rejected: Bad file:// URL"}
	}
	unreadable := &transferError{code: curlCouldntReadFile, detail: "Could not open file " + u.Path}
	f, err := os.OpenFile(u.Path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, unreadable
	}
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		f.Close()
		return nil, unreadable
	}
	r := &response{raw: f, expected: info.Size(), end: func() { f.Close() },
		explain: func(err error) *transferError {
			return &transferError{code: curlCouldntReadFile, detail: err.Error()}
		}}
	r.contents = rawBody{r}
	return r, nil
}

// get makes one request and those that it is redirected to.
func (f *fetcher) get(ctx context.Context, u *url.URL, offset int64, before *response) (*response, error) {
	began := time.Now()
	ctx, cancel := context.WithCancelCause(ctx)
	timer := newStallTimer(time.Duration(min(f.set.StalledTimeout, 1<<31))*time.Second, cancel)
	end := func() { timer.stop(); cancel(nil) }
	resp, last, err := f.follow(ctx, u, offset, before)
	if err != nil {
		t, ok := errors.AsType[*transferError](err)
		if !ok {
			t = classify(ctx, err, last, f.set, began)
		}
		end()
		return nil, t
	}
	r := newResponse(resp, offset, f.set.Speed)
	r.moved = timer.reset
	r.end = func() { resp.Body.Close(); end() }
	r.explain = func(err error) *transferError {
		t := classify(ctx, err, last, f.set, began)
		if t.code == curlGotNothing {
			t.code, t.detail = curlPartialFile, "transfer closed with outstanding read data remaining"
		}
		t.status = resp.StatusCode
		return t
	}
	if err := r.check(resp, offset); err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

// follow returns the first response that is no redirection, and the URL that it is from.
func (f *fetcher) follow(ctx context.Context, u *url.URL, offset int64, before *response) (*http.Response, *url.URL, error) {
	origin, user := hostPort(u), u.User
	for hops := 0; ; hops++ {
		if u.Scheme == "https" && !f.trusting {
			return nil, u, &transferError{code: curlCACertBadFile, detail: "error adding trust anchors from file: ca-certificates.crt"}
		}
		if u.User == nil && hostPort(u) == origin {
			u.User = user
		}
		resp, err := f.transport.RoundTrip(f.request(ctx, u, offset, before))
		if err != nil {
			return nil, u, err
		}
		location := resp.Header.Get("Location")
		if resp.StatusCode < 300 || resp.StatusCode > 399 || location == "" {
			return resp, u, nil
		}
		// So that the connection can be used again, unless that is more trouble.
		_, _ = io.CopyN(io.Discard, resp.Body, 4<<10)
		resp.Body.Close()
		if hops == maxRedirects {
			return nil, u, &transferError{status: resp.StatusCode, code: curlTooManyRedirects, detail: "Maximum (10) redirects followed"}
		}
		next, err := u.Parse(location)
		if err != nil {
			return nil, u, &transferError{status: resp.StatusCode, code: curlURLMalformat, detail: "The redirect target URL could not be parsed"}
		}
		// Nobody else's server may make a file of this machine the contents.
		if next.Scheme != "http" && next.Scheme != "https" {
			return nil, u, &transferError{status: resp.StatusCode, code: curlUnsupportedProtocol,
				detail: `Protocol "` + next.Scheme + `" not supported`}
		}
		if next.Hostname() == "" {
			return nil, u, &transferError{status: resp.StatusCode, code: curlURLMalformat, detail: "URL rejected: No host present"}
		}
		u = next
	}
}

func (f *fetcher) request(ctx context.Context, u *url.URL, offset int64, before *response) *http.Request {
	r := &http.Request{Method: http.MethodGet, URL: u, Host: u.Host, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Accept": {"*/*"}, "User-Agent": {strings.TrimSpace(userAgent + " " + f.set.UserAgentSuffix)}}}
	if offset == 0 {
		r.Header.Set("Accept-Encoding", acceptEncoding)
	} else {
		before.askForRest(r.Header, offset)
	}
	if user, password, ok := f.credentials(u); ok {
		r.Header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(user+":"+password)))
	}
	return r.WithContext(ctx)
}

// credentials are those in the URL, completed from the netrc file.
func (f *fetcher) credentials(u *url.URL) (user, password string, ok bool) {
	user = u.User.Username()
	if password, ok = u.User.Password(); ok {
		return user, password, true
	}
	c, found := lookupNetrc(f.netrc, u.Hostname(), user)
	if !found {
		return user, "", u.User != nil
	}
	if user == "" {
		user = c.user
	}
	return user, c.password, true
}
