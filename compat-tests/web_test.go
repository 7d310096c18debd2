package compat

import (
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// web serves the files of a script's directory over HTTP, to both runs of the
// script at the same address, and misbehaves on demand.
type web struct {
	listener net.Listener
	server   http.Server
	mute     string // the URL of a server that nobody can connect to; "" unless the script is about that

	mu    sync.Mutex
	root  string // what is served; nothing when empty
	rules []webRule
	log   []string // "GET /path", and then "bytes=100-" if so much was asked for
	busy  []until
	early int // requests that came before their time
}

// webRule is what a server does to requests whose method and path contain a
// text, instead of answering them properly.
type webRule struct {
	match  string
	action string
	n      int
	times  int // how often; without limit when 0
}

// until is a time before which a client was asked not to come back.
type until struct {
	request string
	time    time.Time
}

// newWeb listens on a port of its own until the test ends.
func newWeb(t testing.TB) *web {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &web{listener: l}
	w.server.Handler = w
	served := make(chan struct{})
	go func() {
		defer close(served)
		w.server.Serve(l)
	}()
	t.Cleanup(func() {
		w.server.Close()
		<-served
	})
	return w
}

func (w *web) url() string { return "http://" + w.listener.Addr().String() }

// serve begins anew to serve a directory.
func (w *web) serve(root string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.root, w.rules, w.log, w.busy, w.early = root, nil, nil, nil, 0
}

// rule gives the first rule for a request, and counts it.
func (w *web) rule(r *http.Request) (root string, rule webRule) {
	w.mu.Lock()
	defer w.mu.Unlock()
	request := r.Method + " " + r.URL.Path
	w.log = append(w.log, strings.TrimSpace(request+" "+r.Header.Get("Range")))
	for _, b := range w.busy {
		if b.request == request && time.Now().Before(b.time) {
			w.early++
		}
	}
	for i, rule := range w.rules {
		if !strings.Contains(request, rule.match) {
			continue
		}
		switch rule.times {
		case 0:
		case 1:
			w.rules = slices.Delete(w.rules, i, i+1)
		default:
			w.rules[i].times--
		}
		if rule.action == "busy" {
			w.busy = append(w.busy, until{request, time.Now().Add(busyFor)})
		}
		return w.root, rule
	}
	return w.root, webRule{}
}

// busyFor is how long a server that is busy wants to be left alone.
const busyFor = time.Second

// ServeHTTP answers one request.
func (w *web) ServeHTTP(out http.ResponseWriter, r *http.Request) {
	root, rule := w.rule(r)
	switch rule.action {
	case "status":
		http.Error(out, "no such luck", rule.n)
		return
	case "busy":
		out.Header().Set("Retry-After", strconv.Itoa(int(busyFor/time.Second)))
		http.Error(out, "not now", rule.n)
		return
	case "silent":
		<-r.Context().Done()
		return
	case "hangup":
		panic(http.ErrAbortHandler)
	}
	file := filepath.Join(root, filepath.FromSlash(r.URL.Path))
	if r.Method == http.MethodPut {
		w.put(out, r, file)
		return
	}
	data, err := os.ReadFile(file)
	if err != nil || root == "" {
		http.NotFound(out, r)
		return
	}
	switch rule.action {
	case "cut": // ends as if that were all
		data = data[:min(rule.n, len(data))]
	case "break": // ends in the middle
		out.Header().Set("Content-Length", strconv.Itoa(len(data)))
		out.Write(data[:min(rule.n, len(data))])
		panic(http.ErrAbortHandler)
	case "flip": // one byte is another one
		data[min(rule.n, len(data)-1)] ^= 0x55
	case "other": // something else by now, as long as before
		for i := range data[len(data)/2:] {
			data[len(data)/2+i] ^= 1
		}
		ranged(out, r, data, rule)
		return
	case "part", "stall", "ranges": // the rest can be asked for
		ranged(out, r, data, rule)
		return
	}
	out.Header().Set("Content-Length", strconv.Itoa(len(data)))
	out.Write(data)
}

// ranged gives what is asked for of a file, or the beginning alone: then the server ends the connection, or does nothing
// more until the client does.
func ranged(out http.ResponseWriter, r *http.Request, data []byte, rule webRule) {
	out.Header().Set("Accept-Ranges", "bytes")
	etag := fmt.Sprintf(`"%x"`, crc32.ChecksumIEEE(data))
	out.Header().Set("ETag", etag)
	all := len(data)
	text, ok := strings.CutPrefix(r.Header.Get("Range"), "bytes=")
	if known := r.Header.Get("If-Range"); ok && (known == "" || known == etag) {
		from, err := strconv.Atoi(strings.TrimSuffix(text, "-"))
		if err != nil || from >= all {
			out.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
			return
		}
		data = data[from:]
		out.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, all-1, all))
	}
	out.Header().Set("Content-Length", strconv.Itoa(len(data)))
	if len(data) < all {
		out.WriteHeader(http.StatusPartialContent)
	}
	if rule.action == "ranges" || rule.action == "other" {
		out.Write(data)
		return
	}
	out.Write(data[:min(rule.n, len(data))])
	http.NewResponseController(out).Flush()
	if rule.action == "stall" {
		<-r.Context().Done()
	}
	panic(http.ErrAbortHandler)
}

func (w *web) put(out http.ResponseWriter, r *http.Request, file string) {
	data, err := io.ReadAll(r.Body)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(file), 0o755)
	}
	if err == nil {
		err = os.WriteFile(file, data, 0o644)
	}
	if err != nil {
		http.Error(out, err.Error(), http.StatusInternalServerError)
	}
}

// cmdServe is "serve DIR" and then "serve WHAT HOW [N [TIMES]]": the web
// server at $HTTP serves the directory, and does something else to requests
// whose method and path contain WHAT, or to the first TIMES of them.
func (sc *scenario) cmdServe(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 || len(args) > 4 {
		ts.Fatalf("usage: serve DIR, serve WHAT HOW [N [TIMES]]")
	}
	if len(args) == 1 {
		sc.web.serve(ts.MkAbs(args[0]))
		return
	}
	rule := webRule{match: args[0], action: args[1]}
	for i, text := range args[2:] {
		n, err := strconv.Atoi(text)
		ts.Check(err)
		*[]*int{&rule.n, &rule.times}[i] = n
	}
	sc.web.mu.Lock()
	defer sc.web.mu.Unlock()
	sc.web.rules = append(sc.web.rules, rule)
}

// cmdServed is "served WHAT N": so many requests contained a text. "served early
// N" is how many came before their time from who was told that the server is
// busy. Upstream's 2.34.8 does not listen, so it is asked of the daemon under
// test alone.
func (sc *scenario) cmdServed(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: served WHAT N")
	}
	sc.web.mu.Lock()
	defer sc.web.mu.Unlock()
	if args[0] == "early" {
		if sc.program.path != shared.clients[referenceVersion].program("nix-daemon").path && fmt.Sprint(sc.web.early) != args[1] {
			ts.Fatalf("%d requests came too early, not %s:\n%s", sc.web.early, args[1], strings.Join(sc.web.log, "\n"))
		}
		return
	}
	n := 0
	for _, request := range sc.web.log {
		if strings.Contains(request, args[0]) {
			n++
		}
	}
	if fmt.Sprint(n) != args[1] {
		ts.Fatalf("%d requests contain %q, not %s:\n%s", n, args[0], args[1], strings.Join(sc.web.log, "\n"))
	}
}
