package sandbox

import (
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// TestOwnThreadIsNotTheMainOne: what is done there would stay for as long as the process.
func TestOwnThreadIsNotTheMainOne(t *testing.T) {
	var onMain atomic.Int32
	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() {
			for range 300 {
				onOwnThread(func() {
					if unix.Gettid() == unix.Getpid() {
						onMain.Add(1)
					}
				})
			}
		})
	}
	wait.Wait()
	if n := onMain.Load(); n > 0 {
		t.Errorf("ran %d times on the main thread", n)
	}
}
