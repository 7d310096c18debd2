package daemon

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/rs/zerolog"

	"nixdaemon/daemon/config"
	"nixdaemon/protocol/client"
	"nixdaemon/protocol/storepath"
)

// openBackend echoes.
type openBackend struct{ closed, retired bool }

func (b *openBackend) serve(ctx context.Context, s io.ReadWriter, p Peer) error {
	return echo(ctx, s, p)
}
func (b *openBackend) converse(context.Context, io.ReadWriter, Peer, bool) error { return io.EOF }
func (b *openBackend) building() []string                                        { return []string{"thing"} }
func (b *openBackend) retire()                                                   { b.retired = true }
func (b *openBackend) close() error                                              { b.closed = true; return nil }

// TestReopening: while the store cannot be opened those who connect learn why, and the first after it can be heals it.
func TestReopening(t *testing.T) {
	var mu sync.Mutex
	why, tries := errors.New("it is damaged"), 0
	open := &openBackend{}
	var known []backend
	var log strings.Builder
	r := startReopening(t.Context(), func(context.Context) (backend, error) {
		mu.Lock()
		defer mu.Unlock()
		tries++
		if why != nil {
			return nil, &unopenedError{error: why}
		}
		return open, nil
	}, func(b backend) { known = append(known, b) }, why, zerolog.New(&log))
	for i, want := range []struct {
		why  error
		told bool
	}{{why, true}, {errors.New("it is gone"), false}, {errors.New("it is gone"), true}} {
		why = want.why
		_, err := r.get(t.Context())
		var unopened *unopenedError
		if !errors.As(err, &unopened) || unopened.told != want.told || err.Error() != want.why.Error() || r.problem() != "cannot open the store: "+want.why.Error() {
			t.Errorf("%d: %v, problem %q", i, err, r.problem())
		}
		if r.building() != nil {
			t.Errorf("%d: built without a store", i)
		}
	}
	why = nil
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if b, err := r.get(t.Context()); b != backend(open) || err != nil {
				t.Errorf("got %v, %v", b, err)
			}
		})
	}
	all.Wait()
	if tries != 4 || len(known) != 1 || r.problem() != "" || len(r.building()) != 1 {
		t.Errorf("%d tries, known %v, problem %q", tries, known, r.problem())
	}
	if err := r.close(); err != nil || !open.closed {
		t.Errorf("close: %v, %v", err, open.closed)
	}
	if strings.Count(log.String(), `"error"`) != 1 || !strings.Contains(log.String(), "the store is open now") {
		t.Errorf("log %s", log.String())
	}
}

// TestClientIsToldWhy has a client of ours read the reason, and a second one the log of a server that told it already.
func TestClientIsToldWhy(t *testing.T) {
	cfg := &config.Config{}
	cfg.Store.StoreDir = "/nix/store"
	reason := errors.New("the schema is odd\nDo this.")
	var told atomic.Bool
	s := &Server{Policy: everybody, Serve: answering(func(context.Context, io.ReadWriter, Peer) error {
		return &unopenedError{error: reason, told: told.Load()}
	}, cfg)}
	var log lockedBuilder
	socket, stop := start(t, s, zerolog.New(&log).Level(zerolog.InfoLevel))
	for range 2 {
		c := client.New(client.Options{Dial: client.Unix(socket), Dir: storepath.DefaultDir, MaxConns: 1})
		if _, err := c.Server(t.Context()); err == nil || !strings.Contains(err.Error(), reason.Error()) {
			t.Errorf("the client sees %v", err)
		}
		c.Close()
		told.Store(true) // the first connection has ended, as its client knows
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if n := strings.Count(log.String(), "unexpected Nix daemon error: "); n != 1 {
		t.Errorf("%d lines of it:\n%s", n, log.String())
	}
}

// TestUnopenedClientGoes: one that is no client, or hangs up, is no trouble.
func TestUnopenedClientGoes(t *testing.T) {
	ours, theirs := net.Pipe()
	theirs.Close()
	cfg := &config.Config{}
	serve := answering(func(context.Context, io.ReadWriter, Peer) error { return &unopenedError{error: errors.New("no")} }, cfg)
	var unopened *unopenedError
	if err := serve(t.Context(), ours, Peer{}); !errors.As(err, &unopened) {
		t.Errorf("got %v", err)
	}
}

// lockedBuilder is a strings.Builder for several goroutines.
type lockedBuilder struct {
	mu   sync.Mutex
	text strings.Builder
}

func (b *lockedBuilder) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuilder) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}
