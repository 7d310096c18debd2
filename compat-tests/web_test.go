package compat

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// web serves the files of a script's directory over HTTP, to both runs of the
// script at the same address, and misbehaves on demand.
type web struct {
	listener net.Listener
	server   http.Server

	mu    sync.Mutex
	root  string // what is served; nothing when empty
	rules []webRule
	log   []string
}

// webRule is what a server does to requests whose method and path contain a
// text, instead of answering them properly.
type webRule struct {
	match  string
	action string
	n      int
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
	w.root, w.rules, w.log = root, nil, nil
}

// rule gives the first rule for a request, and counts it.
func (w *web) rule(r *http.Request) (root string, rule webRule) {
	w.mu.Lock()
	defer w.mu.Unlock()
	request := r.Method + " " + r.URL.Path
	w.log = append(w.log, request)
	for _, rule := range w.rules {
		if strings.Contains(request, rule.match) {
			return w.root, rule
		}
	}
	return w.root, webRule{}
}

// ServeHTTP answers one request.
func (w *web) ServeHTTP(out http.ResponseWriter, r *http.Request) {
	root, rule := w.rule(r)
	switch rule.action {
	case "status":
		http.Error(out, "no such luck", rule.n)
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
	}
	out.Header().Set("Content-Length", strconv.Itoa(len(data)))
	out.Write(data)
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

// cmdServe is "serve DIR" and then "serve WHAT HOW [N]": the web server at
// $HTTP serves the directory, and does something else to requests whose method
// and path contain WHAT.
func (sc *scenario) cmdServe(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 || len(args) > 3 {
		ts.Fatalf("usage: serve DIR, serve WHAT status|cut|break|flip N, serve WHAT hangup")
	}
	if len(args) == 1 {
		sc.web.serve(ts.MkAbs(args[0]))
		return
	}
	rule := webRule{match: args[0], action: args[1]}
	if len(args) == 3 {
		n, err := strconv.Atoi(args[2])
		ts.Check(err)
		rule.n = n
	}
	sc.web.mu.Lock()
	defer sc.web.mu.Unlock()
	sc.web.rules = append(sc.web.rules, rule)
}

// cmdServed is "served WHAT N": so many requests contained a text.
func (sc *scenario) cmdServed(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: served WHAT N")
	}
	sc.web.mu.Lock()
	defer sc.web.mu.Unlock()
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
