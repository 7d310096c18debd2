package transfer

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"nixdaemon/protocol/activity"
)

// progressInterval is how often progress is told at most.
const progressInterval = 200 * time.Millisecond

// maxRetryAfter bounds what a server can make us wait.
const maxRetryAfter = 5 * time.Minute

// Response is what a server sent. The caller closes Body.
type Response struct {
	// Status is HTTP's, 0 for a file.
	Status int
	// Cached says that the contents are those of the ETag that was expected; then Body is empty.
	Cached bool
	// ETag names the contents, "" if the server does not.
	ETag string
	// Size is how many bytes Body has, -1 if that is unknown.
	Size int64
	// URL is where the contents were in the end, after redirections, without user and password.
	URL string
	// Header is that of the first answer; nil for a file.
	Header http.Header
	// Body is the contents, decoded. Its errors are of type [*Error], or io.EOF.
	Body io.ReadCloser
}

// transfer is one request being carried out. Where an attempt breaks off, the next one goes on, so that its reader sees
// one stream.
type transfer struct {
	e        *Engine
	ctx      context.Context // of the whole request, which goes on in Body
	settings *Settings
	request  *Request
	agent    []string

	id       activity.ID // 0 before the start
	told     atomic.Int64
	attempts uint
	now      *response // nil between attempts
	given    int64     // bytes that the reader has got
	last     *response // the one that given came from
	broken   *fault    // to be dealt with before more is read
	err      error     // what ended the transfer
}

// Do carries out a request on behalf of a client with settings. It returns when the server has accepted it, and the
// contents are then in the response's Body. The context is that of reading them, too. Errors are of type [*Error], or
// those of the request's own functions.
func (e *Engine) Do(ctx context.Context, s *Settings, r *Request) (*Response, error) {
	if !strings.Contains(r.URL, ":") {
		return nil, failf("URL '%s' doesn't have a scheme", r.URL)
	}
	t := &transfer{e: e, ctx: ctx, settings: s, request: r, agent: agentOf(s)}
	for t.now == nil {
		if err := t.connect(); err != nil {
			t.stop()
			return nil, err
		}
	}
	return t.response(), nil
}

// connect makes an attempt. No error and no response means that another is due.
func (t *transfer) connect() error {
	now, f := t.begin(t.given, t.last)
	if f != nil {
		return t.retry(f)
	}
	t.now, t.last = now, now
	return nil
}

func (t *transfer) response() *Response {
	now := t.now
	resp := &Response{Status: now.status, Size: now.expected, URL: now.url, Header: now.header, Body: t}
	if now.header != nil {
		resp.ETag = now.header.Get("ETag")
	}
	if len(now.closers) > 0 {
		resp.Size = -1
	}
	// Some servers know the ETag and send the contents nevertheless.
	if e := t.request.ExpectedETag; now.status == http.StatusNotModified || e != "" && resp.ETag == e && now.status == http.StatusOK {
		resp.Cached, resp.Size = true, 0
		if resp.ETag == "" {
			resp.ETag = e
		}
		t.finish()
	}
	return resp
}

// Read gives the contents.
func (t *transfer) Read(p []byte) (int, error) {
	for t.err == nil {
		if t.now == nil {
			if t.err = t.connect(); t.now == nil {
				continue
			}
		}
		if t.broken != nil {
			f := t.broken
			t.broken = nil
			t.err = t.retry(f)
			continue
		}
		n, err := t.now.Read(p)
		t.given += int64(n)
		switch f, broken := err.(*fault); {
		case err == io.EOF:
			t.finish()
		case broken:
			t.broken = f
		case n > 0 && t.now.expected >= 0:
			t.progress(uint64(t.now.offset+t.now.received), uint64(t.now.offset+t.now.expected), false)
		case n > 0:
			t.progress(uint64(t.now.offset+t.now.received), 0, false)
		}
		if n > 0 || len(p) == 0 {
			return n, nil
		}
	}
	return 0, t.err
}

// finish ends the transfer well.
func (t *transfer) finish() {
	done := uint64(t.now.offset + t.now.received)
	t.progress(done, done, true)
	t.err = io.EOF
	t.stop()
}

// Close ends the transfer wherever it is.
func (t *transfer) Close() error {
	if t.err == nil {
		t.err = errors.New("read contents of '" + Shown(t.request.URL) + "': closed already")
	}
	t.stop()
	return nil
}

// retry waits until the next attempt is due, or says that there is none.
func (t *transfer) retry(f *fault) error {
	if t.now != nil {
		t.now.close()
		t.now = nil
	}
	if t.ctx.Err() != nil {
		return interrupted(t.request, context.Cause(t.ctx))
	}
	if f.cause != nil {
		return f.cause
	}
	failure := f.failure(t.request)
	attempts := max(t.settings.Attempts, 1)
	if t.request.Attempts > 0 {
		attempts = t.request.Attempts
	}
	t.attempts++
	resume := t.given > 0 && t.last.resumable() && !f.noRange
	if failure.Kind != Transient || t.attempts >= attempts || t.given > 0 && !resume && t.request.Restart == nil {
		return failure
	}
	if t.given > 0 && !resume {
		if err := t.request.Restart(); err != nil {
			return err
		}
		t.given = 0
	}
	delay := t.delay(f)
	t.warn(failure, delay, attempts)
	if t.e.pause(t.ctx, delay) != nil {
		return interrupted(t.request, context.Cause(t.ctx))
	}
	return nil
}

// delay is how long to wait: what the server asked for at least, and up to twice as long with each attempt, at random
// so that many who failed together do not come back together. This is the rule of upstream's 2.35
// (computeRetryDelayMs); 2.34.8 would wait a minute and more where a server is too busy, and not listen to it.
func (t *transfer) delay(f *fault) time.Duration {
	s := t.settings
	base := s.RetryDelay
	if f.status == http.StatusTooManyRequests || f.status == http.StatusServiceUnavailable {
		base = s.RateLimitDelay
	}
	backoff := max(min(base<<min(t.attempts-1, 20), s.MaxRetryDelay), 0)
	least := min(time.Duration(f.after)*time.Millisecond, maxRetryAfter)
	if !s.Jitter {
		return max(least, backoff)
	}
	return (least + rand.N(backoff+1)).Truncate(time.Millisecond)
}
