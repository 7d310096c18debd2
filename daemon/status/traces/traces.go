// Package traces sends spans to a collector as OpenTelemetry's protocol has it,
// in JSON over HTTP (OTLP/HTTP): an [Exporter] takes a [Span] when it has ended,
// gathers, and sends. It never makes anybody wait: what a collector does not take
// in time is dropped, and the administrator told.
//
// OpenTelemetry's own library was weighed: with its exporter it brings protocol
// buffers and their tables, which package metrics does without for the same
// reasons, to send a document of five levels.
package traces

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// TraceID names a trace, SpanID a span in it; zero is none.
type (
	TraceID [16]byte
	SpanID  [8]byte
)

// NewTrace makes the name of a new trace.
func NewTrace() (id TraceID) {
	rand.Read(id[:])
	return id
}

// NewSpan makes the name of a new span.
func NewSpan() (id SpanID) {
	rand.Read(id[:])
	return id
}

// Span is something that took time.
type Span struct {
	Trace      TraceID
	ID, Parent SpanID
	Name       string
	// Server is set for what was done for a client of ours, unset for its parts.
	Server     bool
	Start, End time.Time
	// Attributes are names and values: strings, integers of type int64, floats
	// or booleans.
	Attributes []Attribute
	// Failed says that it went wrong, Error how.
	Failed bool
	Error  string
}

// Attribute is a name and a value.
type Attribute struct {
	Name  string
	Value any
}

// Options say where spans go.
type Options struct {
	// Endpoint is the collector's URL; without a path /v1/traces is meant.
	Endpoint string
	// Version is that of the service.
	Version string
	// Log is told what could not be sent, not more often than once a minute.
	Log func(err error)
	// Every is how often to send; 0 is two seconds.
	Every time.Duration
	// Last is how long Close may take; 0 is two seconds.
	Last time.Duration
}

const (
	mostWaiting = 8192
	mostAtOnce  = 512
	sendEvery   = 2 * time.Second
	sendTime    = 10 * time.Second
	tellEvery   = time.Minute
	// lastTime is for what is under way or left at the end, unless [Options] say otherwise.
	lastTime = 2 * time.Second
)

// Exporter sends spans.
type Exporter struct {
	o       Options
	url     string
	client  *http.Client
	queue   chan Span
	closing chan struct{}
	ctx     context.Context // of what is sent; ends a while after closing
	cancel  context.CancelFunc
	dropped atomic.Uint64
	wait    sync.WaitGroup
	told    time.Time // belongs to the goroutine that sends
}

// CheckEndpoint tells whether a URL can be an endpoint.
func CheckEndpoint(endpoint string) error {
	u, err := url.Parse(endpoint)
	if err == nil && (u.Scheme != "http" && u.Scheme != "https" || u.Host == "") {
		err = fmt.Errorf("trace endpoint %s: not an http:// or https:// URL", u.Redacted())
	}
	return err
}

// Start begins to send. Close it.
func Start(o Options) (*Exporter, error) {
	if err := CheckEndpoint(o.Endpoint); err != nil {
		return nil, err
	}
	u, err := url.Parse(o.Endpoint)
	if err != nil {
		return nil, err
	}
	if strings.Trim(u.Path, "/") == "" {
		u.Path = "/v1/traces"
	}
	if o.Every == 0 {
		o.Every = sendEvery
	}
	if o.Last == 0 {
		o.Last = lastTime
	}
	e := &Exporter{o: o, url: u.String(), client: &http.Client{Timeout: sendTime}, queue: make(chan Span, mostWaiting), closing: make(chan struct{})}
	e.ctx, e.cancel = context.WithCancel(context.Background())
	e.wait.Go(e.run)
	return e, nil
}

// End takes a span that has ended.
func (e *Exporter) End(s Span) {
	select {
	case e.queue <- s:
	default:
		e.dropped.Add(1)
	}
}

// Close sends what is left, if that does not take long, whatever the collector does.
func (e *Exporter) Close() {
	defer time.AfterFunc(e.o.Last, e.cancel).Stop()
	defer e.cancel()
	close(e.closing)
	e.wait.Wait()
	e.client.CloseIdleConnections()
}

func (e *Exporter) run() {
	tick := time.NewTicker(e.o.Every)
	defer tick.Stop()
	var batch []Span
	for {
		select {
		case s := <-e.queue:
			if batch = append(batch, s); len(batch) < mostAtOnce {
				continue
			}
		case <-tick.C:
		case <-e.closing:
			e.last(batch)
			return
		}
		e.send(batch)
		batch = batch[:0]
	}
}

// last sends what has come until now.
func (e *Exporter) last(batch []Span) {
	for {
		select {
		case s := <-e.queue:
			batch = append(batch, s)
		default:
			e.send(batch)
			return
		}
	}
}

func (e *Exporter) send(batch []Span) {
	if len(batch) == 0 {
		return
	}
	err := e.post(e.ctx, batch)
	if n := e.dropped.Swap(0); err == nil && n > 0 {
		err = fmt.Errorf("%d spans were dropped: the collector is too slow", n)
	}
	if err != nil && e.o.Log != nil && time.Since(e.told) > tellEvery {
		e.told = time.Now()
		e.o.Log(err)
	}
}

func (e *Exporter) post(ctx context.Context, batch []Span) error {
	body, err := json.Marshal(document(e.o.Version, batch))
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, e.url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := e.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10))
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("the collector of traces answers %s", resp.Status)
	}
	return nil
}

// The document of OTLP/HTTP (opentelemetry-proto, trace/v1/trace.proto), as far
// as it is used: names in lowerCamelCase, identifiers in hexadecimal digits,
// 64-bit numbers as strings.
type (
	request struct {
		ResourceSpans []resourceSpans `json:"resourceSpans"`
	}
	resourceSpans struct {
		Resource   resource     `json:"resource"`
		ScopeSpans []scopeSpans `json:"scopeSpans"`
	}
	resource struct {
		Attributes []keyValue `json:"attributes"`
	}
	scopeSpans struct {
		Scope scope  `json:"scope"`
		Spans []span `json:"spans"`
	}
	scope struct {
		Name string `json:"name"`
	}
	span struct {
		TraceID    string     `json:"traceId"`
		SpanID     string     `json:"spanId"`
		Parent     string     `json:"parentSpanId,omitempty"`
		Name       string     `json:"name"`
		Kind       int        `json:"kind"`
		Start      string     `json:"startTimeUnixNano"`
		End        string     `json:"endTimeUnixNano"`
		Attributes []keyValue `json:"attributes,omitempty"`
		Status     *result    `json:"status,omitempty"`
	}
	result struct {
		Code    int    `json:"code"`
		Message string `json:"message,omitempty"`
	}
	keyValue struct {
		Key   string         `json:"key"`
		Value map[string]any `json:"value"`
	}
)

const (
	kindInternal = 1
	kindServer   = 2
	codeError    = 2
)

func document(version string, batch []Span) request {
	spans := make([]span, len(batch))
	for i := range batch {
		spans[i] = batch[i].encoded()
	}
	return request{[]resourceSpans{{
		Resource:   resource{attributes([]Attribute{{"service.name", "nix-daemon"}, {"service.version", version}})},
		ScopeSpans: []scopeSpans{{scope{"nixdaemon"}, spans}},
	}}}
}

func (s *Span) encoded() span {
	out := span{
		TraceID: hex.EncodeToString(s.Trace[:]), SpanID: hex.EncodeToString(s.ID[:]), Name: s.Name, Kind: kindInternal,
		Start: strconv.FormatInt(s.Start.UnixNano(), 10), End: strconv.FormatInt(s.End.UnixNano(), 10),
		Attributes: attributes(s.Attributes),
	}
	if s.Parent != (SpanID{}) {
		out.Parent = hex.EncodeToString(s.Parent[:])
	}
	if s.Server {
		out.Kind = kindServer
	}
	if s.Failed {
		out.Status = &result{codeError, s.Error}
	}
	return out
}

func attributes(list []Attribute) []keyValue {
	var out []keyValue
	for _, a := range list {
		switch v := a.Value.(type) {
		case int64:
			out = append(out, keyValue{a.Name, map[string]any{"intValue": strconv.FormatInt(v, 10)}})
		case float64:
			out = append(out, keyValue{a.Name, map[string]any{"doubleValue": v}})
		case bool:
			out = append(out, keyValue{a.Name, map[string]any{"boolValue": v}})
		default:
			out = append(out, keyValue{a.Name, map[string]any{"stringValue": fmt.Sprint(v)}})
		}
	}
	return out
}
