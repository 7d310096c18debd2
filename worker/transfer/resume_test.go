package transfer

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	whole   = "0123456789abcdefghij"
	changed = "ABCDEFGHIJKLMNOPQRST"
	rangeNo = "HTTP error 206 (curl error: Requested range was not delivered by the server)"
)

// breaker is a server whose first answer breaks off after ten bytes.
type breaker struct {
	header map[string]string // of the first answer
	then   http.HandlerFunc  // answers what is asked after that

	mu    sync.Mutex
	asked []string // Range and If-Range of each request
}

func (b *breaker) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	b.asked = append(b.asked, strings.TrimSpace(r.Header.Get("Range")+" "+r.Header.Get("If-Range")))
	first := len(b.asked) == 1
	b.mu.Unlock()
	if !first {
		b.then(w, r)
		return
	}
	for name, value := range b.header {
		w.Header().Set(name, value)
	}
	w.Header().Set("Content-Length", fmt.Sprint(len(whole)))
	io.WriteString(w, whole[:10])
	w.(http.Flusher).Flush()
	panic(http.ErrAbortHandler)
}

// answer sends a status with one field and a body.
func answer(status int, name, value, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set(name, value)
		w.WriteHeader(status)
		io.WriteString(w, body)
	}
}

// TestResume has contents break off. What was read is not read again, unless the reader agrees to begin anew, and no two
// different things are ever joined.
func TestResume(t *testing.T) {
	strong := map[string]string{"Accept-Ranges": "bytes", "ETag": `"one"`}
	for _, c := range []struct {
		name    string
		header  map[string]string
		then    http.HandlerFunc
		restart bool
		want    string // contents, or the end of the error if it has a space
		asked   []string
	}{
		{"the rest", strong, answer(206, "Content-Range", "bytes 10-19/20", whole[10:]), false, whole, []string{"", `bytes=10- "one"`}},
		{"weak tag", map[string]string{"Accept-Ranges": "bytes", "ETag": `W/"one"`},
			answer(206, "Content-Range", "bytes 10-19/20", whole[10:]), false, whole, []string{"", "bytes=10-"}},
		{"another thing", strong, answer(200, "ETag", `"two"`, changed), false,
			"HTTP error 200 (curl error: Requested range was not delivered by the server)", []string{"", `bytes=10- "one"`}},
		{"another thing, anew", strong, answer(200, "ETag", `"two"`, changed), true, changed, []string{"", `bytes=10- "one"`, ""}},
		{"another range", strong, answer(206, "Content-Range", "bytes 5-19/20", whole[5:]), false, rangeNo, []string{"", `bytes=10- "one"`}},
		{"no range told", strong, answer(206, "X", "y", whole[10:]), false, rangeNo, []string{"", `bytes=10- "one"`}},
		{"nothing behind it", strong, answer(416, "Content-Range", "bytes */10", ""), true, "HTTP error 416", []string{"", `bytes=10- "one"`}},
		{"rest is encoded", strong, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			answer(206, "Content-Range", "bytes 10-19/20", whole[10:])(w, nil)
		}, false, rangeNo, []string{"", `bytes=10- "one"`}},
		{"does not resume", nil, answer(200, "X", "y", whole), false, "HTTP error 200 (curl error: Transferred a partial file)", []string{""}},
		{"does not resume, anew", nil, answer(200, "X", "y", whole), true, whole, []string{"", ""}},
		{"gone meanwhile", strong, answer(404, "X", "y", ""), true, "HTTP error 404", []string{"", `bytes=10- "one"`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			b := &breaker{header: c.header, then: c.then}
			u := serve(t, b.ServeHTTP)
			var got strings.Builder
			r := &Request{URL: u}
			if c.restart {
				r.Restart = func() error { got.Reset(); return nil }
			}
			resp, err := w.Do(t.Context(), &w.set, r)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			_, err = io.Copy(&got, resp.Body)
			if fails := strings.Contains(c.want, " "); fails && (err == nil || !strings.HasSuffix(err.Error(), c.want)) || !fails && (err != nil || got.String() != c.want) {
				t.Errorf("got %q, %v, want %q", got.String(), err, c.want)
			}
			if diff := cmp.Diff(c.asked, b.asked); diff != "" {
				t.Errorf("asked for (-want +got):\n%s", diff)
			}
			if w.gate.used != 0 {
				t.Errorf("%d left in the gate", w.gate.used)
			}
		})
	}
}

// TestResumedProgress counts what came before, too: nobody sees a download begin anew that does not.
func TestResumedProgress(t *testing.T) {
	w := newWorld(t)
	b := &breaker{header: map[string]string{"Accept-Ranges": "bytes"}, then: answer(206, "Content-Range", "bytes 10-19/20", whole[10:])}
	if got, err := w.get(t, &Request{URL: serve(t, b.ServeHTTP), Log: w, IDs: &w.ids}); err != nil || got != whole {
		t.Fatal(got, err)
	}
	done := 0
	for _, text := range w.told[1 : len(w.told)-1] {
		if strings.HasPrefix(text, "message") {
			continue
		}
		var now, all int
		if _, err := fmt.Sscanf(text, "result 105 %d %d 0 0", &now, &all); err != nil || now < done || all != len(whole) {
			t.Errorf("told %q after %d", text, done)
		}
		done = now
	}
	if done != len(whole) || w.told[len(w.told)-1] != "stop" {
		t.Errorf("told %q", w.told)
	}
}

// TestResumeOften has each answer break off after a few bytes more: there are as many attempts as the settings say.
func TestResumeOften(t *testing.T) {
	for attempts, want := range map[uint]string{3: "", 4: whole} {
		w := newWorld(t)
		w.set.Attempts = attempts
		asked := 0
		u := serve(t, func(w http.ResponseWriter, r *http.Request) {
			from := 0
			_, _ = fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from)
			asked++
			w.Header().Set("Accept-Ranges", "bytes")
			w.Header().Set("Content-Length", fmt.Sprint(len(whole)-from))
			if from > 0 {
				w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-19/20", from))
				w.WriteHeader(206)
			}
			io.WriteString(w, whole[from:min(from+6, len(whole))])
			if from+6 < len(whole) {
				w.(http.Flusher).Flush()
				panic(http.ErrAbortHandler)
			}
		})
		got, err := w.get(t, &Request{URL: u})
		if (err == nil) != (want != "") || err == nil && got != want || asked != int(attempts) {
			t.Errorf("%d attempts: got %q, %v, asked %d times", attempts, got, err, asked)
		}
	}
}

// TestRestartFails has the reader refuse to begin anew: that is the error.
func TestRestartFails(t *testing.T) {
	w := newWorld(t)
	b := &breaker{then: answer(200, "X", "y", whole)}
	refused := errors.New("too late to begin anew")
	if _, err := w.get(t, &Request{URL: serve(t, b.ServeHTTP), Restart: func() error { return refused }}); err != refused {
		t.Errorf("got %v", err)
	}
}

// TestEncodedNotResumed has encoded contents break off. What is at an offset of those is not at that of the decoded ones.
func TestEncodedNotResumed(t *testing.T) {
	w := newWorld(t)
	asked := 0
	u := serve(t, func(w http.ResponseWriter, r *http.Request) {
		asked++
		if r.Header.Get("Range") != "" {
			t.Error("asked for a range")
		}
		w.Header().Set("Content-Encoding", "gzip")
		w.Header().Set("Accept-Ranges", "bytes")
		z := gzip.NewWriter(w)
		io.WriteString(z, whole)
		z.Flush()
		if asked == 1 {
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}
		z.Close()
	})
	restarted := 0
	var got strings.Builder
	resp, err := w.Do(t.Context(), &w.set, &Request{URL: u, Restart: func() error { restarted++; got.Reset(); return nil }})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(&got, resp.Body); err != nil || got.String() != whole || asked != 2 || restarted > 1 {
		t.Errorf("got %q, %v, asked %d times, begun anew %d times", got.String(), err, asked, restarted)
	}
}

// TestRedirects follows what may be followed.
func TestRedirects(t *testing.T) {
	elsewhere := serve(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "elsewhere "+r.Method) })
	to := func(status int, location string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/a" {
				io.WriteString(w, r.URL.Path+" "+r.Method)
				return
			}
			w.Header().Set("Location", location)
			w.WriteHeader(status)
			io.WriteString(w, strings.Repeat("a page that says so ", 1000))
		}
	}
	for _, c := range []struct {
		name, method, location string
		status                 int
		want                   string // contents, or the end of the error if that is an error's
	}{
		{"relative", "GET", "b/c?d#e", 301, "/b/c GET"},
		{"absolute", "GET", elsewhere + "/x", 302, "elsewhere GET"},
		{"same scheme", "GET", strings.TrimPrefix(elsewhere, "http:"), 307, "elsewhere GET"},
		{"see other", "POST", "/b", 303, "/b GET"},
		{"permanently", "PUT", "/b", 308, "/b PUT"},
		{"nowhere", "GET", "", 302, "HTTP error 302"},
		{"no URL", "GET", "http://[::1", 302, "HTTP error 302 (curl error: URL using bad/illegal format or missing URL)"},
		{"no host", "GET", "http:///x", 302, "HTTP error 302 (curl error: URL using bad/illegal format or missing URL)"},
		{"another scheme", "GET", "gopher://h/x", 302, "HTTP error 302 (curl error: Unsupported protocol)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			r := &Request{Method: c.method, URL: serve(t, to(c.status, c.location)) + "/a"}
			if c.method != "GET" {
				r.Body = func() (io.ReadCloser, int64, error) { return io.NopCloser(strings.NewReader("text")), 4, nil }
			}
			w.set.Attempts = 1
			got, err := w.get(t, r)
			if err != nil {
				got = err.Error()[max(0, len(err.Error())-len(c.want)):]
			}
			if got != c.want {
				t.Errorf("got %q, %v, want %q", got, err, c.want)
			}
		})
	}
}

// TestRedirectChain follows ten redirections, and not eleven.
func TestRedirectChain(t *testing.T) {
	u := serve(t, func(w http.ResponseWriter, r *http.Request) {
		left := len(r.URL.Path) - 1
		if left == 0 {
			io.WriteString(w, "there")
			return
		}
		http.Redirect(w, r, r.URL.Path[:left], http.StatusFound)
	})
	w := newWorld(t)
	if got, err := w.get(t, &Request{URL: u + "/" + strings.Repeat("x", maxRedirects)}); err != nil || got != "there" {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := w.get(t, &Request{URL: u + "/" + strings.Repeat("x", maxRedirects+1)}); err == nil {
		t.Error("followed more than ten")
	}
}

// TestLengthLies has servers say another length than they send.
func TestLengthLies(t *testing.T) {
	for _, c := range []struct{ name, answer, want string }{
		{"more than told", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n" + whole, whole[:5]},
		{"nothing told", "HTTP/1.1 200 OK\r\n\r\n" + whole, whole},
		{"told twice", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 7\r\n\r\n" + whole, ""},
		{"negative", "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n" + whole, ""},
		{"not a number", "HTTP/1.1 200 OK\r\nContent-Length: five\r\n\r\n" + whole, ""},
		{"chunks and a length", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n5\r\n01234\r\n0\r\n\r\n", "01234"},
		{"huge", "HTTP/1.1 200 OK\r\nContent-Length: 9223372036854775807\r\n\r\n" + whole, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.set.Attempts = 1
			got, err := w.get(t, &Request{URL: reply(c.answer)(t)})
			if (err == nil) != (c.want != "") || err == nil && got != c.want {
				t.Errorf("got %q, %v, want %q", got, err, c.want)
			}
		})
	}
}
