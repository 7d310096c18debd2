package db

import (
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// unprivileged runs do as a user who may not write what is not theirs: on a thread that has given up root for files,
// with what else root may do to them, and that ends afterwards.
func unprivileged(t *testing.T, do func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		do()
		return
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		const nobody = 65534
		err := unix.Setfsuid(nobody)
		if err == nil {
			do()
		}
		done <- err
	}()
	must(t, <-done)
}
