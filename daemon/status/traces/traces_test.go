package traces

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestDocument(t *testing.T) {
	begin := time.Unix(10, 5)
	text, err := json.Marshal(document("1", []Span{
		{Trace: TraceID{1}, ID: SpanID{2}, Name: "connection", Server: true, Start: begin, End: begin.Add(time.Second),
			Attributes: []Attribute{{"user", "a\"b"}, {"requests", int64(3)}, {"trusted", true}, {"seconds", 0.5}}},
		{Trace: TraceID{1}, ID: SpanID{3}, Parent: SpanID{2}, Name: "build", Start: begin, End: begin, Failed: true, Error: "no"},
	}))
	if err != nil {
		t.Fatal(err)
	}
	want := `{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"nix-daemon"}},{"key":"service.version","value":{"stringValue":"1"}}]},` +
		`"scopeSpans":[{"scope":{"name":"nixdaemon"},"spans":[` +
		`{"traceId":"01000000000000000000000000000000","spanId":"0200000000000000","name":"connection","kind":2,"startTimeUnixNano":"10000000005","endTimeUnixNano":"11000000005",` +
		`"attributes":[{"key":"user","value":{"stringValue":"a\"b"}},{"key":"requests","value":{"intValue":"3"}},{"key":"trusted","value":{"boolValue":true}},{"key":"seconds","value":{"doubleValue":0.5}}]},` +
		`{"traceId":"01000000000000000000000000000000","spanId":"0300000000000000","parentSpanId":"0200000000000000","name":"build","kind":1,"startTimeUnixNano":"10000000005","endTimeUnixNano":"10000000005","status":{"code":2,"message":"no"}}]}]}]}`
	if diff := cmp.Diff(want, string(text)); diff != "" {
		t.Error(diff)
	}
}

// collector is an HTTP server that counts spans; it waits for gate if that is set.
func collector(t *testing.T, status int, gate chan struct{}) (url string, got chan string) {
	got = make(chan string, 100)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if gate != nil {
			<-gate
		}
		w.WriteHeader(status)
		got <- r.URL.Path + " " + r.Header.Get("Content-Type") + " " + string(body)
	}))
	t.Cleanup(s.Close)
	return s.URL, got
}

func TestSends(t *testing.T) {
	url, got := collector(t, 200, nil)
	e, err := Start(Options{Endpoint: url, Every: time.Millisecond, Log: func(err error) { t.Error(err) }})
	if err != nil {
		t.Fatal(err)
	}
	e.End(Span{Name: "first"})
	if text := <-got; !strings.HasPrefix(text, "/v1/traces application/json {") || !strings.Contains(text, `"first"`) {
		t.Error(text)
	}
	e.End(Span{Name: "last"})
	e.Close()
	if text := <-got; !strings.Contains(text, `"last"`) {
		t.Error(text)
	}
}

// TestNobodyWaits: a collector that takes nothing costs spans, no time.
func TestNobodyWaits(t *testing.T) {
	gate := make(chan struct{})
	url, got := collector(t, 503, gate)
	told := make(chan error, 10)
	e, err := Start(Options{Endpoint: url + "/here", Every: time.Hour, Log: func(err error) { told <- err }})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 * mostWaiting {
		e.End(Span{})
	}
	if e.dropped.Load() == 0 {
		t.Error("nothing was dropped")
	}
	close(gate)
	if err := <-told; !strings.Contains(err.Error(), "503") {
		t.Error(err)
	}
	if text := <-got; !strings.HasPrefix(text, "/here ") {
		t.Error(text[:20])
	}
	go func() {
		for range got {
		}
	}()
	e.Close()
}

// TestCloseIsBounded: nobody waits for a collector that hangs, be it with what was under way or with what is left.
func TestCloseIsBounded(t *testing.T) {
	asked, over := make(chan struct{}, 10), make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body) // or the server does not notice that we hang up
		asked <- struct{}{}
		select {
		case <-r.Context().Done():
		case <-over:
		}
	}))
	defer s.Close()
	defer close(over)
	e, err := Start(Options{Endpoint: s.URL, Every: time.Millisecond, Last: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	e.client.Timeout = 0 // so that nothing else ends it
	e.End(Span{Name: "under way"})
	<-asked
	e.End(Span{Name: "left"})
	e.Close()
}

func TestEndpoints(t *testing.T) {
	for endpoint, ok := range map[string]bool{"http://h:4318": true, "https://h/x": true, "h:4318": false, "ftp://h": false, "http://": false, "": false} {
		if err := CheckEndpoint(endpoint); (err == nil) != ok {
			t.Errorf("%q: %v", endpoint, err)
		}
	}
}
