package transfer

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"

	"nixdaemon/protocol/activity"
)

// Objects are the files of one binary cache by their names: nix-cache-info, <hash>.narinfo, nar/..., log/... and so on.
// A name may also be a URL, or have a query, as in a narinfo's URL field. Methods may be called from any goroutine.
type Objects interface {
	// Get opens a file. The error is [ErrNotFound] if the cache does not have it, or does not let us know.
	Get(ctx context.Context, name string, c Call) (*Response, error)
	// Exists tells whether the cache has a file.
	Exists(ctx context.Context, name string, c Call) (bool, error)
	// Put makes or replaces a file. The body is opened for each attempt; it tells the size in bytes. The encoding is that
	// of HTTP, "" for none: whoever gets the file gets what is in the encoding.
	Put(ctx context.Context, name string, body func() (io.ReadCloser, int64, error), contentType, contentEncoding string, c Call) error
}

// Call is on whose behalf an object is asked for.
type Call struct {
	// Settings are the client's.
	Settings *Settings
	// ExpectedETag, Log, IDs and Parent are as in a [Request].
	ExpectedETag string
	Log          activity.Sink
	IDs          *activity.IDs
	Parent       activity.ID
}

func (c *Call) request(method, url string) *Request {
	return &Request{Method: method, URL: url, ExpectedETag: c.ExpectedETag, Log: c.Log, IDs: c.IDs, Parent: c.Parent}
}

// HTTP is a binary cache on a web server. It is [Objects].
type HTTP struct {
	engine           *Engine
	base             *url.URL // its path ends in a slash
	shown            string
	certificate, key string
}

var _ Objects = (*HTTP)(nil)

// NewHTTP names the cache at a URL, without store parameters. The certificate and key are files by which this side
// proves who it is, "" for none (tls-certificate, tls-private-key).
func NewHTTP(e *Engine, cache, certificate, key string) (*HTTP, error) {
	u, f := parseURL(cache)
	if f != nil {
		return nil, f.failure(&Request{URL: cache})
	}
	u.RawQuery, u.Fragment = "", ""
	shown := strings.TrimRight(Shown(u.String()), "/")
	u.Path, u.RawPath = strings.TrimRight(u.Path, "/")+"/", strings.TrimRight(u.RawPath, "/")
	if u.RawPath != "" {
		u.RawPath += "/"
	}
	return &HTTP{engine: e, base: u, shown: shown, certificate: certificate, key: key}, nil
}

// request resolves a name. The certificate is for the cache's own server.
func (h *HTTP) request(method, name string, c *Call) (*Request, error) {
	u, err := h.base.Parse(name)
	if err != nil {
		return nil, failf("'%s' is not a valid URL", name)
	}
	r := c.request(method, u.String())
	if serverOf(u) == serverOf(h.base) {
		r.TLSCertificate, r.TLSKey = h.certificate, h.key
	}
	return r, nil
}

// Get opens a file.
func (h *HTTP) Get(ctx context.Context, name string, c Call) (*Response, error) {
	r, err := h.request(http.MethodGet, name, &c)
	if err != nil {
		return nil, err
	}
	resp, err := h.engine.Do(ctx, c.Settings, r)
	if err != nil {
		return nil, Missing(err, name, h.shown)
	}
	return resp, nil
}

// Missing turns the error of a request into that for a file which a cache does not have, if it means this. Buckets of S3 that may not be listed answer with
// Forbidden, so that means the same (libstore/http-binary-cache-store.cc).
func Missing(err error, name, cache string) error {
	if !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrForbidden) {
		return err
	}
	e := failf("file '%s' does not exist in binary cache '%s'", name, cache)
	e.Kind, e.cause = NotFound, err
	return e
}

// Exists tells whether there is a file.
func (h *HTTP) Exists(ctx context.Context, name string, c Call) (bool, error) {
	r, err := h.request(http.MethodHead, name, &c)
	if err != nil {
		return false, err
	}
	return exists(h.engine.Do(ctx, c.Settings, r))
}

func exists(resp *Response, err error) (bool, error) {
	if errors.Is(err, ErrNotFound) || errors.Is(err, ErrForbidden) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, resp.Body.Close()
}

// Put makes or replaces a file. Its error has the context line of upstream's.
func (h *HTTP) Put(ctx context.Context, name string, body func() (io.ReadCloser, int64, error), contentType, contentEncoding string, c Call) error {
	r, err := h.request(http.MethodPut, name, &c)
	if err != nil {
		return err
	}
	r.Body, r.ContentType = body, contentType
	if contentEncoding != "" {
		r.Header = http.Header{"Content-Encoding": {contentEncoding}}
	}
	resp, err := h.engine.Do(ctx, c.Settings, r)
	if err != nil {
		return Trace(err, "while uploading to HTTP binary cache at '"+h.shown+"'")
	}
	_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, maxErrorBody))
	return errors.Join(err, resp.Body.Close())
}

// Trace adds to an error what was going on, as a context line for clients.
func Trace(err error, line string) error { return &traced{err, line} }

type traced struct {
	error
	line string
}

func (t *traced) Unwrap() error { return t.error }

// Traces gives what was going on, the outermost first.
func (t *traced) Traces() []string {
	lines := []string{t.line}
	if inner, ok := errors.AsType[*traced](t.error); ok {
		lines = append(lines, inner.Traces()...)
	}
	return lines
}
