package builtin

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"
)

// maxEncodings bounds how often contents may be compressed over; libcurl has the same limit.
const maxEncodings = 5

// response is the contents that one attempt gets, decoded.
type response struct {
	raw      io.Reader
	contents io.Reader
	expected int64 // bytes before decoding, -1 if unknown
	received int64 // bytes before decoding
	offset   int64 // bytes that came before this attempt
	status   int   // of HTTP
	rawErr   error // what ended raw
	speed    int64 // bytes per second, 0 for no limit
	began    time.Time

	moved   func()                         // called when bytes arrive; nil for nobody
	end     func()                         // releases everything
	explain func(err error) *transferError // tells why raw ended

	header http.Header // nil if not from HTTP
}

func newResponse(resp *http.Response, offset int64, speed uint64) *response {
	r := &response{raw: resp.Body, expected: resp.ContentLength, offset: offset, status: resp.StatusCode,
		header: resp.Header, began: time.Now(), speed: int64(min(speed, 1<<40)) << 10}
	r.contents = rawBody{r}
	return r
}

func (r *response) close() { r.end() }

// Read gives decoded contents. Its errors are of type *[transferError], or io.EOF.
func (r *response) Read(p []byte) (int, error) {
	n, err := r.contents.Read(p)
	if err == nil || err == io.EOF {
		return n, err
	}
	return n, r.broken(err)
}

// broken tells an error of the network from one of the encoding.
func (r *response) broken(err error) error {
	if r.rawErr != nil && r.rawErr != io.EOF {
		return r.explain(r.rawErr)
	}
	return &transferError{status: r.status, code: curlBadContentEncoding,
		detail: "Error while processing content unencoding: " + err.Error()}
}

// rawBody reads what arrives and keeps account of it.
type rawBody struct{ r *response }

func (b rawBody) Read(p []byte) (int, error) {
	r := b.r
	if r.speed > 0 {
		// Small steps keep the waits short.
		p = p[:min(int64(len(p)), r.speed/10)]
	}
	n, err := r.raw.Read(p)
	r.received += int64(n)
	if n > 0 && r.moved != nil {
		r.moved()
	}
	if err != nil {
		r.rawErr = err
	}
	if r.speed > 0 && n > 0 {
		// Whoever reads too fast waits until it is not.
		due := time.Duration(float64(r.received) / float64(r.speed) * float64(time.Second))
		time.Sleep(due - time.Since(r.began))
	}
	return n, err
}

// check looks at the status and sets up decoding.
func (r *response) check(resp *http.Response, offset int64) error {
	switch resp.StatusCode {
	case http.StatusPartialContent:
		if offset > 0 && !strings.HasPrefix(resp.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-", offset)) {
			return rangeError(resp.StatusCode)
		}
	case http.StatusOK, http.StatusCreated, http.StatusNoContent, http.StatusNotModified:
		if offset > 0 {
			return rangeError(resp.StatusCode)
		}
	default:
		t := &transferError{status: resp.StatusCode, noRange: resp.StatusCode == http.StatusRequestedRangeNotSatisfiable}
		if r.decode() == nil {
			body, _ := io.ReadAll(io.LimitReader(r.contents, maxErrorBody)) // as much as there is
			t.body, t.hasBody = string(body), len(body) > 0
		}
		return t
	}
	if offset > 0 && r.encoded() {
		return rangeError(resp.StatusCode)
	}
	return r.decode()
}

func rangeError(status int) error {
	return &transferError{status: status, code: curlRangeError, noRange: true,
		detail: "HTTP server does not seem to support byte ranges. Cannot resume."}
}

func (r *response) encodings() []string {
	var list []string
	for _, value := range r.header.Values("Content-Encoding") {
		for name := range strings.SplitSeq(value, ",") {
			if name = strings.ToLower(strings.TrimSpace(name)); name != "" && name != "identity" && name != "none" {
				list = append(list, name)
			}
		}
	}
	return list
}

func (r *response) encoded() bool { return len(r.encodings()) > 0 }

// decode sets up the decoders that the header asks for. The one that was applied last is undone first.
func (r *response) decode() error {
	names := r.encodings()
	if len(names) == 0 {
		return nil
	}
	bad := func(detail string) error {
		return &transferError{status: r.status, code: curlBadContentEncoding, detail: detail}
	}
	if len(names) > maxEncodings {
		return bad("Reject response due to more than 5 content encodings")
	}
	slices.Reverse(names)
	for _, name := range names {
		decode := map[string]decoder{"gzip": newGzip, "x-gzip": newGzip, "deflate": newDeflate, "br": newBrotli,
			"zstd": newZstd, "xz": newXz}[name]
		if decode == nil {
			return bad("Unrecognized content encoding type. libcurl understands " + acceptEncoding + " content encodings.")
		}
		buffered := bufio.NewReaderSize(r.contents, 64<<10)
		if _, err := buffered.Peek(1); err == io.EOF {
			r.contents = buffered // of nothing
			return nil
		}
		decoded, err := decode(buffered)
		if err != nil {
			return r.broken(err)
		}
		r.contents = decoded
	}
	return nil
}

// resumable tells whether the server can go on where this response broke off.
func (r *response) resumable() bool {
	return r.header != nil && strings.EqualFold(strings.TrimSpace(r.header.Get("Accept-Ranges")), "bytes") && !r.encoded()
}

// askForRest asks for what comes from offset on, provided that it is the rest of the same thing.
func (r *response) askForRest(h http.Header, offset int64) {
	h.Set("Range", fmt.Sprintf("bytes=%d-", offset))
	if etag := r.header.Get("ETag"); strings.HasPrefix(etag, `"`) {
		h.Set("If-Range", etag)
	}
}

// stallTimer ends an attempt when nothing has arrived for some time.
type stallTimer struct {
	timer *time.Timer // nil for no limit
	limit time.Duration
}

func newStallTimer(limit time.Duration, cancel context.CancelCauseFunc) *stallTimer {
	t := &stallTimer{limit: limit}
	if limit > 0 {
		t.timer = time.AfterFunc(limit, func() { cancel(errStalled) })
	}
	return t
}

func (t *stallTimer) reset() {
	if t.timer != nil {
		t.timer.Reset(t.limit)
	}
}

func (t *stallTimer) stop() {
	if t.timer != nil {
		t.timer.Stop()
	}
}
