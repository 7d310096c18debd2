package daemon

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"
	"time"
)

// socketPair gives two ends of a connection.
func socketPair(t *testing.T) (ours *served, theirs *net.UnixConn) {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	socket, err := newSocket(conn.(*net.UnixConn))
	if err != nil {
		t.Fatal(err)
	}
	return &served{count: new(atomic.Int64), traffic: new(traffic), conn: conn.(*net.UnixConn), socket: socket, turns: &turns{}}, client.(*net.UnixConn)
}

func TestWhoSits(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2))
	var a, b served
	var turns turns
	turns.done(&a)
	if turns.sit(&a) {
		t.Error("a connection sat after its first reply")
	}
	turns.done(&a)
	if turns.sit(&b) || !turns.sit(&a) {
		t.Error("it was not the connection that answered twice that sat")
	}
	turns.done(&b)
	turns.done(&b)
	if turns.sit(&b) {
		t.Error("the program's last thread sat")
	}
	turns.rise()
	if !turns.sit(&b) {
		t.Error("the place was not free again")
	}
	turns.rise()
	turns.done(&a)
	turns.done(&b)
	if turns.sit(&a) || turns.sit(&b) {
		t.Error("one of two that take turns sat")
	}
	turns.done(&b)
	runtime.GOMAXPROCS(1)
	if turns.sit(&b) {
		t.Error("the program's only thread sat")
	}
}

// TestSittingRead has the bytes come while the thread waits, long after, in several pieces, and not at all.
func TestSittingRead(t *testing.T) {
	for _, late := range []time.Duration{0, 3 * sitTime} {
		for _, sit := range []bool{false, true} {
			ours, theirs := socketPair(t)
			time.AfterFunc(late, func() { theirs.Write([]byte("request")) })
			var buf [100]byte
			n, err := ours.socket.read(buf[:], sit)
			if string(buf[:n]) != "request" || err != nil {
				t.Errorf("late=%v sit=%t: read %q, %v", late, sit, buf[:n], err)
			}
			time.AfterFunc(late, func() { theirs.Close() })
			if n, err := ours.socket.read(buf[:], sit); n != 0 || err != io.EOF {
				t.Errorf("late=%v sit=%t: at the end: %d, %v", late, sit, n, err)
			}
		}
	}
}

func TestSittingReadEnds(t *testing.T) {
	for name, end := range map[string]func(*served){
		"deadline": func(s *served) { s.conn.SetReadDeadline(time.Now()) },
		"close":    func(s *served) { s.conn.Close() },
	} {
		ours, _ := socketPair(t)
		ours.turns.done(ours)
		ours.turns.done(ours)
		time.AfterFunc(time.Millisecond, func() { end(ours) })
		_, err := ours.Read(make([]byte, 8))
		if !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, net.ErrClosed) && err != io.EOF {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestSlowReader has more to write than the socket takes at once.
func TestSlowReader(t *testing.T) {
	ours, theirs := socketPair(t)
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	received := make(chan []byte)
	go func() {
		all, _ := io.ReadAll(theirs)
		received <- all
	}()
	if n, err := ours.Write(data); n != len(data) || err != nil {
		t.Fatal(n, err)
	}
	ours.conn.Close()
	if got := <-received; !bytes.Equal(got, data) {
		t.Errorf("received %d bytes, want %d", len(got), len(data))
	}
	gone, client := socketPair(t)
	client.Close()
	if _, err := gone.Write(data); err == nil {
		t.Error("a write to nobody succeeded")
	}
}
