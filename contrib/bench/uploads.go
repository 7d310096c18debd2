package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"time"

	"nixdaemon/protocol/client"
	"nixdaemon/protocol/storepath"
)

// shelf is a binary cache in memory that can be written.
type shelf struct {
	delay time.Duration // added to each request

	mu      sync.Mutex
	objects map[string][]byte
}

// ServeHTTP answers one request.
func (s *shelf) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	time.Sleep(s.delay)
	if r.Method == http.MethodPut {
		data, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		s.mu.Lock()
		s.objects[r.URL.Path] = data
		s.mu.Unlock()
		w.WriteHeader(http.StatusCreated)
		return
	}
	s.mu.Lock()
	data, ok := s.objects[r.URL.Path]
	s.mu.Unlock()
	if !ok {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Length", fmt.Sprint(len(data)))
	w.Write(data)
}

// shelved has the daemon's own store be a binary cache; it ends with the process.
func shelved(delay time.Duration) func(*config) {
	return func(c *config) {
		c.store = func() string {
			s := &shelf{delay: delay, objects: make(map[string][]byte)}
			return httptest.NewServer(s).URL + "?compression=none"
		}
	}
}

// parcels are what will be uploaded.
type parcels struct {
	additions []client.Addition
	paths     []storepath.Path
}

func packParcels(count, refs int) func(*bench) error {
	return func(b *bench) error {
		additions, paths, err := tinies(b, b.n(count), refs)
		b.state = parcels{additions, paths}
		return err
	}
}

// upload adds all paths as "nix copy" does: it asks what is there, then sends what is not.
func upload(b *bench) (float64, error) {
	p := b.state.(parcels)
	c := b.pool(1, 1)
	defer c.Close()
	valid, err := c.ValidPaths(b.ctx, p.paths, false)
	if err == nil && len(valid) > 0 {
		err = fmt.Errorf("%d paths are there already", len(valid))
	}
	if err != nil {
		return 0, err
	}
	return float64(len(p.paths)), c.AddMultiple(b.ctx, false, true, p.additions)
}

// uploads are the rows about a binary cache that paths are copied to.
func uploads() []workload {
	const added = 20 * time.Millisecond
	return []workload{
		{name: "upload 300 paths, 20 ms added", unit: "/s", configure: shelved(added), prepare: packParcels(300, 0), run: upload},
		{name: "the same with three references each", unit: "/s", configure: shelved(added), prepare: packParcels(300, 3), run: upload},
	}
}
