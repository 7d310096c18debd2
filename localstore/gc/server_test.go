package gc

import (
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/storepath"
)

// Clients of release 2.8 go on as if they had been answered where they find no socket. So a connection is refused at all
// times but while a collector listens.
func TestSocketKeepsItsName(t *testing.T) {
	f := newFixture(t, tower())
	dial := func(when string, want error) {
		t.Helper()
		conn, err := net.Dial("unix", filepath.Join(f.opt.StateDir, socketName))
		if err == nil {
			conn.Close()
		}
		if !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", when, err, want)
		}
	}
	want := map[string]error{"locked": syscall.ECONNREFUSED, "roots": nil, "links": nil}
	for range 2 {
		c := f.collector(func(step string) error {
			if err, ok := want[step]; ok {
				dial(step, err)
			}
			return nil
		})
		if _, err := c.Collect(context.Background(), wholeStore(DeleteDead)); err != nil {
			t.Fatal(err)
		}
		dial("after it", syscall.ECONNREFUSED)
	}
	// Somebody else's socket stays.
	path := filepath.Join(f.opt.StateDir, socketName)
	l, err := listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := reserveSocket(path); err != nil {
		t.Fatal(err)
	}
	dial("of another collector", nil)
}

// Clients of release 2.8 ask again if they read the end of the connection, and only then.
func TestClientsAreSentAway(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	dial := func() net.Conn {
		t.Helper()
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		conn.SetDeadline(time.Now().Add(time.Minute))
		return conn
	}
	send := func(conn net.Conn, n int) {
		t.Helper()
		if _, err := io.WriteString(conn, testDir.Print(testPath(n))+"\n"); err != nil {
			t.Fatal(err)
		}
	}
	ended := func(conn net.Conn) {
		t.Helper()
		if _, err := conn.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("got %v, want the end", err)
		}
	}
	hold := func(storepath.Path) error { return nil }

	claims := newClaims()
	claims.planned(func(string) bool { return true })
	claims.begin(testPath(1).HashPart())
	s, err := serve(path, testDir, claims, hold, activity.Discard{})
	if err != nil {
		t.Fatal(err)
	}
	idle, waiting := dial(), dial()
	send(idle, 2)
	if _, err := io.ReadFull(idle, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	send(waiting, 1)
	for kept := false; !kept; time.Sleep(time.Millisecond) {
		claims.mu.Lock()
		_, kept = claims.keeping[testPath(1).HashPart()]
		claims.mu.Unlock()
	}
	send(waiting, 3) // is never read
	s.close()
	ended(idle)
	ended(waiting)

	// One that nobody has let in yet.
	l, err := listen(path)
	if err != nil {
		t.Fatal(err)
	}
	queued := dial()
	send(queued, 1)
	sendAway(l)
	ended(queued)
	l.Close()
	if _, err := net.Dial("unix", path); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("got %v of a closed socket", err)
	}
}
