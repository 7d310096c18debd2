package daemon

import (
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func mkfifo(t *testing.T, path string) {
	t.Helper()
	if err := unix.Mkfifo(path, 0o666); err != nil {
		t.Fatal(err)
	}
}

// newSession takes a process out of its builder's.
func newSession() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }
