package compat

import (
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// getAs asks at a socket as a user, and gives the whole answer.
func getAs(uid int, socket, path string) (string, error) {
	type answer struct {
		text string
		err  error
	}
	done := make(chan answer)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine, and with it who it is
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); errno != 0 {
			done <- answer{err: os.NewSyscallError("setresuid", errno)}
			return
		}
		conn, err := net.Dial("unix", socket)
		if err != nil {
			done <- answer{err: err}
			return
		}
		defer conn.Close()
		_, err = io.WriteString(conn, "GET "+path+" HTTP/1.0\r\n\r\n")
		if err != nil {
			done <- answer{err: err}
			return
		}
		text, err := io.ReadAll(conn)
		done <- answer{string(text), err}
	}()
	a := <-done
	return a.text, a.err
}

// TestSightOfNumbers has root and the trusted read what Prometheus reads, and nobody else.
func TestSightOfNumbers(t *testing.T) {
	if err := otherUsers(); err != nil {
		t.Skip(err)
	}
	c := requireClients(t)[0]
	s := newScratch(t)
	s.configureClient(t, c)
	s.configure(t, "trusted-users = root carol\n")
	d := startDaemon(t, s, shared.daemon, daemonOptions{users: true})
	s.must(t, c, nil, "nix-build", build(shell("counted", "echo > $out"))...)
	for user, want := range map[string]string{"alice": "403 Forbidden", "carol": "nix_daemon_", "0": "nix_daemon_"} {
		uid, _, err := account(user)
		if err != nil {
			t.Fatal(err)
		}
		got, err := getAs(uid, s.path("var/nix/status-socket/socket"), "/metrics")
		if err != nil || !strings.Contains(got, want) || user == "alice" && strings.Contains(got, "nix_daemon_") {
			t.Errorf("%s reads %v %.300s, want %s", user, err, got, want)
		}
	}
	mustStop(t, d)
}
