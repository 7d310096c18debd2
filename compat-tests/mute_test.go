package compat

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

// newMute gives the URL of a server that does not even take connections: as many wait for it already as may wait. Who
// tries to connect is not answered. It ends with the test.
func newMute(t testing.TB) string {
	t.Helper()
	socket := func() int {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		if err == nil {
			unix.CloseOnExec(fd)
			t.Cleanup(func() { unix.Close(fd) })
			err = unix.SetNonblock(fd, true)
		}
		if err != nil {
			t.Fatal(err)
		}
		return fd
	}
	listener := socket()
	err := unix.Bind(listener, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
	if err == nil {
		err = unix.Listen(listener, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	at, err := unix.Getsockname(listener)
	if err != nil {
		t.Fatal(err)
	}
	const waiting = 4 // one more than any system lets wait for a listener that wants none
	for range waiting {
		if err := unix.Connect(socket(), at); err != nil && err != unix.EINPROGRESS {
			t.Fatal(err)
		}
	}
	return fmt.Sprintf("http://127.0.0.1:%d", at.(*unix.SockaddrInet4).Port)
}
