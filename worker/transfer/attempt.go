package transfer

import (
	"context"
	"encoding/base64"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"time"
)

const (
	maxRedirects = 10
	// maxErrorBody bounds what is kept of the body of a response that is an error.
	maxErrorBody = 256 << 10
	// maxRedirectBody is how much of a redirection's body is read so that the connection can be used again.
	maxRedirectBody = 4 << 10
	// expectAbove is the size of a body in bytes from which on the server is asked first; libcurl's.
	expectAbove = 1 << 20
	// userAgent is upstream's: servers make exceptions for it.
	userAgent = "curl/8.17.0 Nix/2.34.8"
	// acceptEncoding is libcurl's for what it can decode.
	acceptEncoding = "deflate, gzip, br, zstd"
)

// attempt is one try to carry out a request.
type attempt struct {
	t      *transfer
	ctx    context.Context
	cancel context.CancelCauseFunc
	dog    *watchdog
	began  time.Time
	weight uint64      // in the gate, 0 if not in
	sent   []*sentBody // one for each exchange
	at     *url.URL    // what is asked for now, without user and password
}

// begin makes an attempt: the result is what the server sends from offset on. before is the response that is continued.
func (t *transfer) begin(offset int64, before *response) (*response, *fault) {
	u, f := parseURL(t.request.URL)
	if f != nil {
		return nil, f
	}
	switch {
	case u.Scheme == "file" && t.request.Files:
		return t.beginFile(u, offset)
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, &fault{code: curlUnsupportedProtocol, detail: `Protocol "` + u.Scheme + `" not supported`}
	}
	a := &attempt{t: t, at: u}
	if f := a.enter(); f != nil {
		return nil, f
	}
	t.start()
	a.ctx, a.cancel = context.WithCancelCause(t.ctx)
	a.began = time.Now()
	a.dog = newWatchdog(t.settings.StalledTimeout, a.cancel)
	resp, f := a.follow(offset, before)
	if f != nil {
		a.end()
		return nil, f
	}
	r := newResponse(a, resp, offset)
	if f := r.check(resp, offset); f != nil {
		r.close()
		return nil, f
	}
	a.dog.rest()
	return r, nil
}

func (t *transfer) beginFile(u *url.URL, offset int64) (*response, *fault) {
	file, size, f := openFile(u)
	if f != nil {
		return nil, f
	}
	if offset > 0 {
		file.Close()
		return nil, rangeFault(0)
	}
	t.start()
	r := &response{t: t, raw: file, expected: size, began: time.Now(), url: u.String()}
	r.contents = (*rawBody)(r)
	return r, nil
}

// enter waits for a place among the requests under way.
func (a *attempt) enter() *fault {
	s := a.t.settings
	if s.Connections == 0 {
		return nil
	}
	weight := uint64(weightConnection)
	if a.t.e.speaksHTTP2(a.at) {
		weight = weightStream
	}
	if err := a.t.e.gate.enter(a.t.ctx, weight, min(s.Connections, 1<<32)*weightConnection); err != nil {
		return &fault{cause: err}
	}
	a.weight = weight
	return nil
}

// end releases everything that the attempt has.
func (a *attempt) end() {
	a.dog.stop()
	a.cancel(nil)
	for _, sent := range a.sent {
		<-sent.closed // the transport may still be reading what is the caller's
	}
	if a.weight > 0 {
		a.t.e.gate.leave(a.weight)
		a.weight = 0
	}
}

// follow gives the first response that is no redirection.
func (a *attempt) follow(offset int64, before *response) (*http.Response, *fault) {
	origin, user, method := serverOf(a.at), a.at.User, a.t.request.Method
	a.at.User = nil
	for hops := 0; ; hops++ {
		own := serverOf(a.at) == origin
		if !own && user == a.at.User {
			user = nil
		}
		req, f := a.build(method, own, user, offset, before)
		if f != nil {
			return nil, f
		}
		resp, f := a.send(req)
		if f != nil {
			return nil, f
		}
		location := resp.Header.Get("Location")
		if resp.StatusCode < 300 || resp.StatusCode > 399 || location == "" {
			return resp, nil
		}
		// So that the connection can be used again, unless that is more trouble.
		_, _ = io.CopyN(io.Discard, resp.Body, maxRedirectBody)
		resp.Body.Close()
		next, f := redirected(a.at, resp.StatusCode, location, hops)
		if f != nil {
			return nil, f
		}
		if resp.StatusCode == http.StatusSeeOther && method != http.MethodHead {
			method = http.MethodGet
		}
		a.at = next
		if serverOf(next) == origin {
			if next.User != nil {
				user = next.User
			}
		} else {
			user = next.User
		}
		a.at.User = nil
	}
}

// redirected is where a response sends us.
func redirected(at *url.URL, status int, location string, hops int) (*url.URL, *fault) {
	if hops == maxRedirects {
		return nil, &fault{status: status, code: curlTooManyRedirects, detail: "Maximum (10) redirects followed"}
	}
	next, err := at.Parse(location)
	if err != nil {
		return nil, &fault{status: status, code: curlURLMalformat, detail: "The redirect target URL could not be parsed"}
	}
	// Nobody else's server may make a file of this machine the contents.
	if next.Scheme != "http" && next.Scheme != "https" {
		return nil, &fault{status: status, code: curlUnsupportedProtocol, detail: `Protocol "` + next.Scheme + `" not supported`}
	}
	if next.Hostname() == "" {
		return nil, &fault{status: status, code: curlURLMalformat, detail: "URL rejected: No host present"}
	}
	return next, nil
}

// serverOf tells servers apart: credentials for one are not for another.
func serverOf(u *url.URL) string { return u.Scheme + "://" + hostPort(u) }

// build makes the request for where the attempt is now. own says that this is the server that was asked for.
func (a *attempt) build(method string, own bool, user *url.Userinfo, offset int64, before *response) (*http.Request, *fault) {
	r := a.t.request
	if method == "" {
		method = http.MethodGet
	}
	h := make(http.Header, 8)
	if own {
		for name, values := range r.Header {
			h[name] = values
		}
	}
	h["Accept"] = []string{"*/*"}
	h["User-Agent"] = a.t.agent
	if r.ExpectedETag != "" && offset == 0 {
		h.Set("If-None-Match", r.ExpectedETag)
	}
	if offset > 0 {
		before.askForRest(h, offset)
	} else if r.Body == nil {
		h["Accept-Encoding"] = []string{acceptEncoding}
	}
	if name, password, ok := a.credentials(own, user); ok {
		h["Authorization"] = []string{"Basic " + base64.StdEncoding.EncodeToString([]byte(name+":"+password))}
	}
	req := (&http.Request{Method: method, URL: a.at, Host: a.at.Host, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: h}).WithContext(a.ctx)
	if r.Body != nil && method != http.MethodGet && method != http.MethodHead {
		if f := a.attach(req); f != nil {
			return nil, f
		}
	}
	if own && r.Sign != nil {
		if err := r.Sign(req); err != nil {
			if req.Body != nil {
				req.Body.Close()
			}
			return nil, &fault{cause: err}
		}
	}
	return req, nil
}

// attach opens the body of a request.
func (a *attempt) attach(req *http.Request) *fault {
	r := a.t.request
	body, size, err := r.Body()
	if err != nil {
		return &fault{cause: err}
	}
	req.ContentLength = size
	if size == 0 {
		body.Close()
		req.Body = http.NoBody
	} else {
		sent := &sentBody{body: body, a: a, size: size, closed: make(chan struct{})}
		req.Body = sent
		a.sent = append(a.sent, sent)
	}
	if r.ContentType != "" {
		req.Header.Set("Content-Type", r.ContentType)
	}
	if size > expectAbove {
		req.Header.Set("Expect", "100-continue")
	}
	return nil
}

// credentials are the request's own, or those in the URL, completed from the netrc file.
func (a *attempt) credentials(own bool, user *url.Userinfo) (name, password string, ok bool) {
	r, s := a.t.request, a.t.settings
	if own && r.Username != "" {
		return r.Username, r.Password, true
	}
	name = user.Username()
	if password, ok = user.Password(); ok {
		return name, password, true
	}
	netrc := s.Netrc
	if netrc == "" {
		netrc = a.t.e.contents(s.NetrcFile)
	}
	c, found := lookupNetrc(netrc, a.at.Hostname(), name)
	if !found {
		return name, "", user != nil
	}
	if name == "" {
		name = c.user
	}
	return name, c.password, true
}

// send makes one exchange.
func (a *attempt) send(req *http.Request) (*http.Response, *fault) {
	e := a.t.e
	p, f := e.pool(a.at.Scheme, a.t.settings, a.t.request)
	if f != nil {
		if req.Body != nil {
			req.Body.Close() // as a transport does
		}
		return nil, f
	}
	// Until there is a connection its own limit counts, if there is one, as with libcurl.
	got := func(httptrace.GotConnInfo) { a.dog.wait() }
	if a.t.settings.ConnectTimeout > 0 {
		a.dog.rest()
	} else {
		a.dog.wait()
	}
	if a.at.Scheme == "https" && a.t.settings.HTTP2 {
		probe, first := e.probe(a.at.Host)
		if first {
			defer e.abandon(a.at.Host, probe)
			got = func(info httptrace.GotConnInfo) {
				probe.learn(info)
				a.dog.wait()
			}
		} else {
			select {
			case <-probe.known:
			case <-a.ctx.Done():
			}
		}
	}
	resp, err := p.transport.RoundTrip(req.WithContext(httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{GotConn: got})))
	return resp, a.fault(err)
}

// fault finds out why an exchange failed.
func (a *attempt) fault(err error) *fault {
	if err == nil {
		return nil
	}
	for _, sent := range a.sent {
		if cause := sent.failed(); cause != nil {
			return &fault{cause: cause}
		}
	}
	return classify(a.ctx, err, a.at, a.t.settings.StalledTimeout, a.began)
}

// agentOf is the field that says who asks.
func agentOf(s *Settings) []string {
	return []string{strings.TrimSpace(userAgent + " " + s.UserAgentSuffix)}
}
