package transfer

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxEncodings bounds how often contents may be compressed over; libcurl has the same limit.
const maxEncodings = 5

// response is the contents that one attempt gets, decoded.
type response struct {
	t        *transfer
	a        *attempt // nil for files
	raw      io.ReadCloser
	contents io.Reader
	closers  []io.Closer // of decoders
	expected int64       // bytes before decoding, -1 if unknown
	received int64       // bytes before decoding
	offset   int64       // bytes that came before this attempt
	status   int         // of HTTP
	rawErr   error       // what ended raw
	began    time.Time
	url      string      // where it came from in the end, without user and password
	header   http.Header // nil if not from HTTP
	ranges   bool        // the server can send the rest
}

func newResponse(a *attempt, resp *http.Response, offset int64) *response {
	r := &response{t: a.t, a: a, raw: resp.Body, expected: resp.ContentLength, offset: offset, status: resp.StatusCode,
		header: resp.Header, began: a.began, url: a.at.String()}
	r.contents = (*rawBody)(r)
	return r
}

// close releases the attempt. A body that was not read to its end costs the connection.
func (r *response) close() {
	for _, c := range slices.Backward(r.closers) {
		_ = c.Close() // decoders only
	}
	r.closers = nil
	_ = r.raw.Close()
	if r.a != nil {
		r.a.end()
	}
}

// Read gives decoded contents. Its errors are of type *[fault], or io.EOF.
func (r *response) Read(p []byte) (int, error) {
	n, err := r.contents.Read(p)
	if err == nil || err == io.EOF {
		return n, err
	}
	return n, r.broken(err)
}

// broken tells an error of the network from one of the encoding.
func (r *response) broken(err error) *fault {
	if r.rawErr != nil && r.rawErr != io.EOF {
		return r.explain(r.rawErr)
	}
	return &fault{status: r.status, code: curlBadContentEncoding,
		detail: "Error while processing content unencoding: " + err.Error()}
}

// explain finds out why the body broke off.
func (r *response) explain(err error) *fault {
	if r.a == nil {
		return &fault{code: curlCouldntReadFile, detail: err.Error()}
	}
	f := classify(r.a.ctx, err, r.a.at, r.t.settings.StalledTimeout, r.began)
	if f.code == curlGotNothing {
		f.code, f.detail = curlPartialFile, "transfer closed with outstanding read data remaining"
	}
	f.status = r.status
	return f
}

// rawBody reads what arrives and keeps account of it.
type rawBody response

func (r *rawBody) Read(p []byte) (int, error) {
	speed := int64(min(r.t.settings.Speed, 1<<40))
	if speed > 0 {
		// Small steps keep the waits short.
		p = p[:min(int64(len(p)), max(speed/10, 1))]
	}
	if r.a != nil {
		r.a.dog.wait()
	}
	n, err := r.raw.Read(p)
	if r.a != nil {
		r.a.dog.rest()
	}
	r.received += int64(n)
	if err != nil {
		r.rawErr = err
	}
	if speed > 0 && n > 0 {
		// Whoever reads too fast waits until it is not.
		due := time.Duration(float64(r.received) / float64(speed) * float64(time.Second))
		if wait := due - time.Since(r.began); wait > 0 {
			_ = sleep(r.t.ctx, wait) // the next read says that the context has ended
		}
	}
	return n, err
}

// check looks at the status and sets up decoding.
func (r *response) check(resp *http.Response, offset int64) *fault {
	switch resp.StatusCode {
	case http.StatusPartialContent:
		if offset > 0 && !strings.HasPrefix(resp.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-", offset)) {
			return rangeFault(resp.StatusCode)
		}
	case http.StatusOK, http.StatusCreated, http.StatusNoContent, http.StatusNotModified:
		if offset > 0 {
			return rangeFault(resp.StatusCode)
		}
	default:
		return r.refused(resp)
	}
	if r.header.Get("Content-Encoding") != "" {
		if offset > 0 && len(r.encodings()) > 0 {
			return rangeFault(resp.StatusCode)
		}
		return r.decode()
	}
	r.ranges = strings.EqualFold(strings.TrimSpace(r.header.Get("Accept-Ranges")), "bytes")
	return nil
}

// refused is the fault of a status that is an error, with as much of the server's reasons as there is.
func (r *response) refused(resp *http.Response) *fault {
	f := &fault{status: resp.StatusCode, noRange: resp.StatusCode == http.StatusRequestedRangeNotSatisfiable}
	switch resp.StatusCode {
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		f.after = retryAfter(resp.Header.Get("Retry-After"))
	}
	if r.decode() == nil {
		body, _ := io.ReadAll(io.LimitReader(r.contents, maxErrorBody))
		f.body = string(body)
	}
	return f
}

// retryAfter is how many milliseconds a server wants us to wait: a number of seconds, or a time.
func retryAfter(value string) int64 {
	value = strings.TrimSpace(value)
	if n, err := strconv.ParseUint(value, 10, 32); err == nil {
		return int64(n) * 1000
	}
	if at, err := http.ParseTime(value); err == nil {
		return max(time.Until(at).Milliseconds(), 0)
	}
	return 0
}

func rangeFault(status int) *fault {
	return &fault{status: status, code: curlRangeError, noRange: true,
		detail: "HTTP server does not seem to support byte ranges. Cannot resume."}
}

func (r *response) encodings() []string {
	var names []string
	for _, value := range r.header.Values("Content-Encoding") {
		for name := range strings.SplitSeq(value, ",") {
			if name = strings.ToLower(strings.TrimSpace(name)); name != "" && name != "identity" && name != "none" {
				names = append(names, name)
			}
		}
	}
	return names
}

// decode sets up the decoders that the header asks for. The one that was applied last is undone first.
func (r *response) decode() *fault {
	names := r.encodings()
	bad := func(detail string) *fault {
		return &fault{status: r.status, code: curlBadContentEncoding, detail: detail}
	}
	if len(names) > maxEncodings {
		return bad("Reject response due to more than 5 content encodings")
	}
	for _, name := range slices.Backward(names) {
		var first [1]byte
		if _, err := io.ReadFull(r.contents, first[:]); err == io.EOF {
			return nil // nothing is not encoded
		} else if err != nil {
			return r.broken(err)
		}
		decoded, err := r.t.e.decoders.Encoding(name, io.MultiReader(bytes.NewReader(first[:]), r.contents))
		if err != nil {
			return r.broken(err)
		}
		if decoded == nil {
			return bad("Unrecognized content encoding type. libcurl understands " + acceptEncoding + " content encodings.")
		}
		r.closers = append(r.closers, decoded)
		r.contents = decoded
	}
	return nil
}

// resumable tells whether the server can go on where this response broke off.
func (r *response) resumable() bool { return r.ranges && len(r.closers) == 0 }

// askForRest asks for what comes from offset on, provided that it is the rest of the same thing.
func (r *response) askForRest(h http.Header, offset int64) {
	h.Set("Range", fmt.Sprintf("bytes=%d-", offset))
	if etag := r.header.Get("ETag"); strings.HasPrefix(etag, `"`) {
		h.Set("If-Range", etag)
	}
}
