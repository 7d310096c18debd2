package daemon

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
)

func person(name string, uid uint32) Peer {
	return Peer{Identity: Identity{User: name, UID: uid, Known: true}}
}

func enter(t *testing.T, c *crowd, p Peer) *guest {
	t.Helper()
	g, err := c.enter(p)
	if err != nil {
		t.Fatalf("user '%s': %v", p.User, err)
	}
	return g
}

// One user's connections keep nobody else out, and all users together not
// those who are trusted.
func TestCrowd(t *testing.T) {
	c := newCrowd(Limits{Connections: 16, PerUser: 4})
	alice, bob, root := person("alice", 1), person("bob", 2), person("root", 0)
	admin := person("admin", 3)
	admin.Trusted = true

	first := enter(t, c, alice)
	for range 3 {
		enter(t, c, alice)
	}
	_, err := c.enter(alice)
	want := "refused a connection of user 'alice', who has 4, see 'max-connections-per-user'"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	first.leave()
	enter(t, c, alice)
	enter(t, c, bob)
	for range 10 { // beyond what one user may have
		enter(t, c, admin)
	}
	// One place is left, for the trusted.
	_, err = c.enter(bob)
	if want := "refused a connection: there are 15, see 'max-connections'"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	last := enter(t, c, root)
	var crowded *CrowdedError
	if _, err = c.enter(root); !errors.As(err, &crowded) {
		t.Errorf("got %v when all places are taken", err)
	}
	last.leave()
	enter(t, c, root)
}

func TestCrowdForgets(t *testing.T) {
	c := newCrowd(Limits{})
	for uid := range uint32(100) {
		enter(t, c, person("somebody", uid)).leave()
	}
	if len(c.users) != 0 || c.count != 0 {
		t.Errorf("%d users and %d connections are still known", len(c.users), c.count)
	}
}

// One user's requests leave half of the memory to others.
func TestCrowdMemory(t *testing.T) {
	c := newCrowd(Limits{Memory: 100})
	one, two := enter(t, c, person("alice", 1)), enter(t, c, person("alice", 1))
	bob, root := enter(t, c, person("bob", 2)), enter(t, c, person("root", 0))
	steps := []struct {
		who  *guest
		n    int64
		want bool
	}{
		{one, 30, true}, {two, 21, false}, {two, 20, true}, {one, 1, false},
		{bob, 40, true}, {root, 11, false}, {root, 10, true}, {bob, 1, false},
	}
	for i, s := range steps {
		if got := s.who.Take(s.n); got != s.want {
			t.Errorf("step %d: taking %d: got %v, want %v", i, s.n, got, s.want)
		}
	}
	bob.Give(40)
	if two.Take(1) || !root.Take(40) {
		t.Error("what was given back went to the wrong one")
	}
}

func TestLimits(t *testing.T) {
	tests := []struct {
		name  string
		limit Limits
		want  Limits
	}{
		{"many files", defaultLimits(1 << 20), Limits{4096, 1024, 1 << 30}},
		{"few files", defaultLimits(1024), Limits{256, 64, 1 << 30}},
		{"hardly any", defaultLimits(16), Limits{64, 16, 1 << 30}},
		{"nothing said", defaultLimits(1<<20).over(0, 0, 0), Limits{4096, 1024, 1 << 30}},
		{"all", defaultLimits(1<<20).over(100, 0, 0), Limits{100, 25, 1 << 30}},
		{"per user", defaultLimits(1<<20).over(0, 7, 0), Limits{4096, 7, 1 << 30}},
		{"one", defaultLimits(1<<20).over(1, 0, 5), Limits{1, 1, 5}},
		{"beyond numbers", defaultLimits(1<<20).over(1<<40, 1<<40, 1<<63), Limits{1<<31 - 1, 1<<31 - 1, 1<<63 - 1}},
	}
	for _, tt := range tests {
		if tt.limit != tt.want {
			t.Errorf("%s: got %+v, want %+v", tt.name, tt.limit, tt.want)
		}
	}
}

// lines is a log that can be read while it is written.
type lines struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) has(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.b.String(), text)
}

// A client too many sees what a refused one does; the others go on.
func TestTooManyConnections(t *testing.T) {
	var log lines
	socket, _ := start(t, &Server{Policy: everybody, Serve: echo, Limits: Limits{Connections: 2}}, zerolog.New(&log))
	first := dial(t, socket)
	if err := exchange(t, first); err != nil {
		t.Fatal(err)
	}
	second := dial(t, socket)
	if err := exchange(t, second); err != nil {
		t.Fatal(err)
	}
	if err := exchange(t, dial(t, socket)); err == nil {
		t.Error("a third client was served")
	}
	if !log.has("refused a connection: there are 2, see 'max-connections'") {
		t.Errorf("got log\n%s", log.b.String())
	}
	if err := exchange(t, first); err != nil {
		t.Error(err)
	}
	second.Close()
	for exchange(t, dial(t, socket)) != nil { // until the end of the second is noticed
	}
}

// A client that says nothing, or not enough, is hung up on; one that has said
// who it is may be silent.
func TestSilentClient(t *testing.T) {
	var log lines
	socket, _ := start(t, &Server{Policy: everybody, Greeting: 200 * time.Millisecond,
		Serve: func(ctx context.Context, s io.ReadWriter, p Peer) error {
			if _, err := io.ReadFull(s, make([]byte, 2)); err != nil {
				return err
			}
			s.(*served).Greeted()
			return echo(ctx, s, p)
		}}, zerolog.New(&log))
	polite := dial(t, socket)
	if _, err := polite.Write([]byte("hi")); err != nil {
		t.Fatal(err)
	}
	silent, slow := dial(t, socket), dial(t, socket)
	if _, err := slow.Write([]byte("h")); err != nil {
		t.Fatal(err)
	}
	for _, conn := range []io.Reader{silent, slow} {
		if _, err := conn.Read(make([]byte, 1)); err == nil {
			t.Error("a client that said nothing was answered")
		}
	}
	if !log.has(errSilent.Error()) {
		t.Errorf("got log\n%s", log.b.String())
	}
	if err := exchange(t, polite); err != nil { // longer silent than the others
		t.Error(err)
	}
}
