package daemon

import (
	"context"
	"encoding/json"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/rs/zerolog"

	"nixdaemon/daemon/config"
	"nixdaemon/daemon/status"
	"nixdaemon/worker"
)

// seen is a server that can be looked at, and somebody who looks.
func seen(t *testing.T) (*sight, *lookout, *eyes) {
	t.Helper()
	dir, err := os.MkdirTemp("", "si") // short: socket names are limited
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := newSight(&config.Config{StateDir: dir}, new(observers), func(Peer, worker.Privilege) {}, zerolog.Nop())
	trusted := true
	s.open(&Server{Accounts: &SystemAccounts{}, Trust: &trusted})
	t.Cleanup(func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	})
	e := &eyes{seen: make(chan string, 1000)}
	return s, &lookout{dir: s.dir, stdout: e, stderr: e, size: func() (int, int, bool) { return 80, 24, true }}, e
}

// eyes remember what they see, and tell.
type eyes struct {
	mu   sync.Mutex
	text strings.Builder
	seen chan string
}

func (e *eyes) Write(p []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.text.Write(p)
	e.seen <- string(p)
	return len(p), nil
}

func (e *eyes) all() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	text := e.text.String()
	e.text.Reset()
	return text
}

func TestSightCommands(t *testing.T) {
	s, l, e := seen(t)
	c := s.Connected(Connection{Peer: Peer{Identity: Identity{User: "alice"}, Client: 3}})
	for _, tt := range []struct {
		command string
		args    []string
		exit    int
		want    string
	}{
		{"status", nil, 0, "nix-daemon " + NixVersion + ", up "},
		{"status", nil, 0, "\nCLIENTS"},
		{"status", []string{"--help"}, 0, "Usage: nix-daemon status"},
		{"status", []string{"--nothing"}, 1, "error: unrecognised flag '--nothing'\nTry 'nix-daemon status --help'"},
		{"status", []string{"word"}, 1, "error: unexpected argument 'word'\n"},
		{"status", []string{"-f"}, 1, "error: unrecognised flag '-f'\n"},
		{"log", nil, 1, "error: one derivation is needed\n"},
		{"log", []string{"nothing"}, 1, "error: there is no such build as 'nothing'\n"},
		{"log", []string{"-f", "nothing"}, 1, "error: there is no such build as 'nothing'\n"},
		{"cancel", nil, 1, "error: a build is needed\n"},
		{"cancel", []string{"a", "b"}, 1, "error: there is no such build as 'a'\nthere is no such build as 'b'\n"},
	} {
		if exit := l.run(t.Context(), tt.command, tt.args); exit != tt.exit {
			t.Errorf("%s %q exits with %d, want %d", tt.command, tt.args, exit, tt.exit)
		}
		if got := e.all(); !strings.Contains(got, tt.want) {
			t.Errorf("%s %q prints %q, want %q", tt.command, tt.args, got, tt.want)
		}
	}
	c.Disconnected(nil)
	if exit := l.run(t.Context(), "status", []string{"--json"}); exit != 0 {
		t.Errorf("exit %d", exit)
	}
	var snap status.Snapshot
	if err := json.Unmarshal([]byte(e.all()), &snap); err != nil || len(snap.Servers) != 1 || len(snap.Servers[0].Connections) != 0 {
		t.Errorf("%+v, %v", snap, err)
	}
}

// TestSightWatch shows one picture after the other until it is interrupted, and then gives the terminal back.
func TestSightWatch(t *testing.T) {
	_, l, e := seen(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan int)
	go func() { done <- l.run(ctx, "status", []string{"--watch"}) }()
	<-e.seen
	<-e.seen
	cancel()
	if exit := <-done; exit != 0 {
		t.Errorf("exit %d", exit)
	}
	text := e.all()
	if !strings.HasPrefix(text, "\x1b[?1049h") || !strings.HasSuffix(text, "\x1b[?1049l") || strings.Count(text, "nix-daemon ") < 2 {
		t.Errorf("shown %q", text)
	}
}

// TestSightWatchOutlives shows that there is no daemon while there is none.
func TestSightWatchOutlives(t *testing.T) {
	s, l, e := seen(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan int)
	go func() { done <- l.run(ctx, "status", []string{"--watch"}) }()
	<-e.seen
	if err := s.close(); err != nil {
		t.Error(err)
	}
	s.socket = nil
	for !strings.Contains(<-e.seen, "no daemon") {
	}
	cancel()
	if exit := <-done; exit != 0 {
		t.Errorf("exit %d", exit)
	}
}

func TestSightInvoked(t *testing.T) {
	for line, want := range map[string]bool{
		"nix-daemon": false, "nix-daemon --daemon": false, "nix-daemon status": true, "/x/nix-daemon log a": true, "nix-daemon cancel": true,
		"nix-store status": false, "nix-daemon --stdio status": false,
	} {
		if got := SightInvoked(strings.Fields(line)); got != want {
			t.Errorf("%q: %v", line, got)
		}
	}
}

// TestSightWithoutPlace serves all the same.
func TestSightWithoutPlace(t *testing.T) {
	s := newSight(&config.Config{StateDir: "/dev/null"}, new(observers), nil, zerolog.Nop())
	s.open(&Server{})
	if s.socket != nil {
		t.Error("there is a socket")
	}
	if err := s.close(); err != nil {
		t.Error(err)
	}
}
