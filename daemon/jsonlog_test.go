package daemon

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestJSONLogFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	for range 2 {
		w, err := jsonLog(path)()
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, "line\n")
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "line\nline\n" {
		t.Errorf("%q, %v", text, err)
	}
	if jsonLog("") != nil {
		t.Error("a log without a path")
	}
}

func TestJSONLogSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	w, err := jsonLog(path)()
	if err != nil {
		t.Fatal(err)
	}
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(w, "line\n")
	w.Close()
	if text, err := io.ReadAll(conn); err != nil || string(text) != "line\n" {
		t.Errorf("%q, %v", text, err)
	}
	conn.Close()
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	if _, err := jsonLog(path)(); err == nil || !strings.HasSuffix(err.Error(), `/s": Connection refused`) {
		t.Errorf("nobody listens: %v", err)
	}
}

func TestJSONLogNowhere(t *testing.T) {
	if _, err := jsonLog("/no/such/directory")(); err == nil || err.Error() != `opening log file "/no/such/directory": No such file or directory` {
		t.Errorf("got %v", err)
	}
}
