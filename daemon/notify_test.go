package daemon

import (
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/rs/zerolog"
)

// manager plays the service manager.
func manager(t *testing.T) *net.UnixConn {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(30 * time.Second)) // a hang becomes a failure
	t.Setenv("NOTIFY_SOCKET", path)
	return conn
}

func hear(t *testing.T, conn *net.UnixConn) string {
	t.Helper()
	buf := make([]byte, 4096)
	n, err := conn.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n])
}

// While the store opens the manager is asked for time, and not afterwards.
func TestNotify(t *testing.T) {
	conn := manager(t)
	n := notifier{log: zerolog.Nop(), every: time.Millisecond}
	done := n.opening(t.Context())
	const more = "STATUS=Opening the store\nEXTEND_TIMEOUT_USEC=60000000"
	for range 3 {
		if got := hear(t, conn); got != more {
			t.Errorf("got %q", got)
		}
	}
	done()
	n.ready()
	n.stopping()
	got := hear(t, conn)
	for got == more { // sent before done
		got = hear(t, conn)
	}
	if got != "READY=1\nSTATUS=Serving clients" {
		t.Errorf("got %q", got)
	}
	if got := hear(t, conn); got != "STOPPING=1\nSTATUS=Finishing requests\nEXTEND_TIMEOUT_USEC=16000000" {
		t.Errorf("got %q", got)
	}
}

func TestNotifyWithoutManager(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	notifier{log: zerolog.Nop()}.ready()
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "none"))
	notifier{log: zerolog.Nop()}.ready()
}
