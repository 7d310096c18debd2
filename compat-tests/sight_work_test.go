package compat

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// TestSightOfSubstitution sees a path on its way from a cache that stops in the middle.
func TestSightOfSubstitution(t *testing.T) {
	c := requireClients(t)[0]
	s := newScratch(t)
	s.configureClient(t, c)
	cache := s.path("tmp/cache")
	half, rest := make(chan struct{}), make(chan struct{})
	arrived, proceed := sync.OnceFunc(func() { close(half) }), sync.OnceFunc(func() { close(rest) })
	defer proceed()
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		data, err := os.ReadFile(filepath.Join(cache, filepath.Clean(r.URL.Path)))
		if err != nil {
			http.NotFound(w, r)
			return
		}
		if strings.HasPrefix(r.URL.Path, "/nar/") {
			w.Write(data[:len(data)/2])
			http.NewResponseController(w).Flush()
			arrived()
			<-rest
			data = data[len(data)/2:]
		}
		w.Write(data)
	}))
	defer web.Close()
	s.configure(t, "substituters = "+web.URL+"\nrequire-sigs = false\n")
	d := startDaemon(t, s, shared.daemon, daemonOptions{})
	file := s.path("tmp/big")
	if err := os.WriteFile(file, []byte(strings.Repeat("much ado about nothing\n", 100_000)), 0o644); err != nil {
		t.Fatal(err)
	}
	path := s.must(t, c, nil, "nix-store", "--add", file)
	s.must(t, c, nil, "nix", "copy", "--no-check-sigs", "--to", "file://"+cache+"?compression=none", path)
	s.must(t, c, nil, "nix-store", "--delete", path)
	fetching := s.ask(t, c, "", "nix-store", "--realise", path)
	<-half
	s.await(t, c, "half a path", func(v *sighted) bool {
		if len(v.Servers[0].Substitutions) != 1 {
			return false
		}
		f := v.Servers[0].Substitutions[0]
		return f.Path == path && f.Cache == web.URL && f.User == "root" && f.Done > 0 && f.Done < f.Size
	})
	proceed()
	fetching.must(t)
	s.await(t, c, "the end", func(v *sighted) bool {
		r := v.Servers[0].Recent
		return len(v.Servers[0].Substitutions) == 0 && len(r) > 0 && r[len(r)-1].Kind == "collection" && r[0].Kind == "substitution" && r[0].Outcome == "succeeded"
	})
	mustStop(t, d)
}

// TestSightOfInputs sees what a build waits for that has not begun, and no more of it when it has.
func TestSightOfInputs(t *testing.T) {
	c := requireClients(t)[0]
	s := newScratch(t)
	s.configureClient(t, c)
	d := startDaemon(t, s, shared.daemon, daemonOptions{})
	free := s.path("tmp/free")
	below := shell("below", "until [ -e "+free+" ]; do sleep 0.05; done; echo > $out")
	asked := s.ask(t, c, "", "nix-build", build(strings.Replace(shell("above", "echo > $out"), "{", "{ middle = "+
		strings.Replace(shell("middle", "echo > $out"), "{", "{ below = "+below+";", 1)+";", 1))...)
	s.await(t, c, "two that wait", func(v *sighted) bool {
		w := v.Servers[0].Waiting
		if len(w) != 2 || v.Servers[0].MoreWaiting != 0 {
			return false
		}
		for i, name := range []string{"-above.drv", "-middle.drv"} {
			if w[i].Kind != "build" || w[i].Reason != "inputs" || w[i].Open != 1 || !strings.HasSuffix(w[i].What, name) ||
				len(w[i].For) != 1 || w[i].For[0].State != "running" || !strings.HasSuffix(w[i].For[0].What, "-below.drv") || strings.Join(w[i].Users, ",") != "root" {
				return false
			}
		}
		return true
	})
	if text, err := s.look(t, c, "", "status"); err != nil || !strings.Contains(text, "1 input: below running") {
		t.Errorf("%v\n%s", err, text)
	}
	if err := os.WriteFile(free, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	asked.must(t)
	s.await(t, c, "the end", func(v *sighted) bool { return len(v.Servers[0].Waiting) == 0 && len(v.Servers[0].Recent) == 3 })
	mustStop(t, d)
}

// TestSightOfCollection sees a collection of garbage that is held up.
func TestSightOfCollection(t *testing.T) {
	c := requireClients(t)[0]
	s := newScratch(t)
	s.configureClient(t, c)
	gate := s.path("tmp/gate")
	if err := syscall.Mkfifo(gate, 0o600); err != nil {
		t.Fatal(err)
	}
	d := startDaemon(t, s, shared.daemon, daemonOptions{env: []string{"_NIX_TEST_GC_SYNC_1=" + gate}})
	collecting := s.ask(t, c, "", "nix-store", "--gc")
	s.await(t, c, "a collection", func(v *sighted) bool {
		g := v.Servers[0].Collection
		return g != nil && g.Action == "delete-dead" && g.Step == "finding roots" && g.For == "root"
	})
	if err := os.WriteFile(gate, nil, 0); err != nil { // it reads to the end
		t.Fatal(err)
	}
	collecting.must(t)
	s.await(t, c, "no collection", func(v *sighted) bool { return v.Servers[0].Collection == nil })
	mustStop(t, d)
}
