package daemon

import (
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/rs/zerolog"
)

func TestNotify(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(30 * time.Second)) // a hang becomes a failure
	t.Setenv("NOTIFY_SOCKET", path)
	notifier(zerolog.Nop())("READY=1")
	buf := make([]byte, 4096)
	if n, err := conn.Read(buf); err != nil || string(buf[:n]) != "READY=1" {
		t.Errorf("heard %q, %v", buf[:n], err)
	}
}

func TestNotifyWithoutManager(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	notifier(zerolog.Nop())("READY=1")
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "none"))
	notifier(zerolog.Nop())("READY=1")
}

// What is said every so often is said at once, again and again, and not after
// the end.
func TestEvery(t *testing.T) {
	said := make(chan struct{})
	stop := every(time.Millisecond, func() { said <- struct{}{} })
	for range 3 {
		<-said
	}
	stopped := make(chan struct{})
	go func() {
		stop()
		close(stopped)
	}()
	for {
		select {
		case <-said: // under way when stop was called
			continue
		case <-stopped:
		}
		break
	}
	select {
	case <-said:
		t.Error("said after the end")
	case <-time.After(5 * time.Millisecond):
	}
}

func TestStatusText(t *testing.T) {
	for _, tt := range []struct {
		building []string
		clients  int
		want     string
	}{
		{nil, 0, "No build running; 0 clients connected, 2 waiting for an answer"},
		{[]string{"hello-1.0"}, 1, "Building hello-1.0; 1 client connected, 2 waiting for an answer"},
		{[]string{"a", "b", "c", "d", "e", "f"}, 7, "Building a, b, c, d and 2 more; 7 clients connected, 2 waiting for an answer"},
	} {
		if got := statusText(tt.building, tt.clients, 2); got != tt.want {
			t.Errorf("%q, want %q", got, tt.want)
		}
	}
}
