package daemon

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"nixdaemon/daemon/config"
	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/client"
	"nixdaemon/protocol/storepath"
)

// heldBackend answers those who were greeted beforehand with a text.
type heldBackend struct{ openBackend }

func (b *heldBackend) serve(_ context.Context, _ io.ReadWriter, p Peer) error {
	if p.Greeted == nil {
		return errors.New("nobody was greeted")
	}
	return p.Greeted.Refuse(errors.New("served by the store"))
}

// heard gives the lines that a client is told.
type heard struct {
	activity.Discard
	lines chan string
}

func (h heard) Message(_ activity.Level, text string) {
	select {
	case h.lines <- text:
	default: // nobody counts them
	}
}

// recovering is a backend that waits for its first attempt.
func recovering(t *testing.T, log zerolog.Logger) (r *reopening, first *attempt, how *recovery) {
	cfg := &config.Config{}
	cfg.Store.StoreDir = "/nix/store"
	first, how = &attempt{done: make(chan struct{})}, new(recovery)
	how.note(0, 2000)
	ctx, cancel := context.WithCancel(t.Context())
	r = startRecovering(&reopening{
		ctx: t.Context(), cfg: cfg, log: log, tellEvery: time.Millisecond, opened: func(backend) {},
		open: func(context.Context) (backend, error) { return nil, errors.New("still damaged") },
	}, first, how, cancel)
	context.AfterFunc(ctx, func() {
		if first.err == nil && first.b == nil {
			first.err = context.Canceled
			close(first.done)
		}
	})
	return r, first, how
}

// TestRecovering: while the store is verified clients are greeted and hear how far that is, and are served, or told why
// not, when it ends.
func TestRecovering(t *testing.T) {
	for name, test := range map[string]struct {
		b    backend
		err  error
		want string
	}{
		"opened": {&heldBackend{}, nil, "served by the store"},
		"failed": {nil, errors.New("the disk is broken"), "the disk is broken"},
	} {
		t.Run(name, func(t *testing.T) {
			var log lockedBuilder
			r, first, how := recovering(t, zerolog.New(&log))
			how.note(300, 2000)
			s := &Server{Policy: everybody, Serve: answering(r.serve, r.cfg)}
			socket, stop := start(t, s, zerolog.New(&log))
			h := heard{lines: make(chan string, 1)}
			c := client.New(client.Options{Dial: client.Unix(socket), Dir: storepath.DefaultDir, MaxConns: 1, Log: h})
			defer c.Close()
			answer := make(chan error, 1)
			go func() { _, err := c.Server(t.Context()); answer <- err }()
			want := "still checking what was written before the machine went down: 300 of 2000 paths"
			if got := <-h.lines; strings.TrimSpace(got) != want || r.problem() != want {
				t.Errorf("told %q, problem %q", got, r.problem())
			}
			first.b, first.err = test.b, test.err
			close(first.done)
			if err := <-answer; err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("the client sees %v", err)
			}
			if test.err != nil && (r.problem() != "cannot open the store: "+test.want || strings.Count(log.String(), "tried again for each") != 1) {
				t.Errorf("problem %q, log %s", r.problem(), log.String())
			}
			if err := errors.Join(stop(), r.close()); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestRecoveringClientGoes: one that hangs up is not waited for, and the server's end ends the verification.
func TestRecoveringClientGoes(t *testing.T) {
	r, first, _ := recovering(t, zerolog.Nop())
	s := &Server{Policy: everybody, Serve: answering(r.serve, r.cfg)}
	socket, stop := start(t, s, zerolog.Nop())
	ctx, hangUp := context.WithCancel(t.Context())
	h := heard{lines: make(chan string, 1)}
	c := client.New(client.Options{Dial: client.Unix(socket), Dir: storepath.DefaultDir, MaxConns: 1, Log: h})
	defer c.Close()
	var wait sync.WaitGroup
	wait.Go(func() { c.Server(ctx) })
	<-h.lines
	hangUp()
	wait.Wait()
	if err := errors.Join(stop(), r.close()); err != nil { // stop waits for the connection
		t.Error(err)
	}
	if !errors.Is(first.err, context.Canceled) {
		t.Error("the verification was not ended")
	}
	ours, theirs := net.Pipe()
	theirs.Close()
	if err := r.serve(t.Context(), ours, Peer{}); err == nil {
		t.Error("served without a store")
	}
}

// TestRecoveryTellsOfShortOnes: whatever begins before stop is told of, however soon after that stop comes.
func TestRecoveryTellsOfShortOnes(t *testing.T) {
	for range 1000 {
		var how recovery
		told := 0
		stop := how.telling(time.Hour, func(string) { told++ })
		how.note(0, 1)
		how.note(1, 1)
		if stop(); told != 1 {
			t.Fatalf("told %d times", told)
		}
	}
}

// TestRecoveryTelling tells nothing before it begins and once enough was told, each state once.
func TestRecoveryTelling(t *testing.T) {
	var how recovery
	told := make(chan string)
	stop := how.telling(time.Millisecond, func(text string) { told <- text })
	how.note(0, 2000)
	if got := <-told; got != "still checking what was written before the machine went down: 0 of 2000 paths" {
		t.Errorf("told %q", got)
	}
	how.note(300, 2000)
	if got := <-told; !strings.HasSuffix(got, ": 300 of 2000 paths") {
		t.Errorf("told %q", got)
	}
	stop()
	new(recovery).telling(time.Hour, func(text string) { t.Error(text) })()
}
