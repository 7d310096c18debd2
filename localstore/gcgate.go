package localstore

import (
	"os"
	"sync"

	"nixdaemon/localstore/pathlock"
)

// gcLockName is the file in the state directory that a collector holds exclusively, others shared for moments.
const gcLockName = "gc.lock"

// gcGate takes gc.lock shared, one goroutine at a time: the lock belongs to the open file, so two holders would
// end each other's.
type gcGate struct {
	path string

	mu   sync.Mutex
	file *os.File // nil until it is needed; guarded by mu
}

// none tells whether there is a moment without a collector, ours or a foreign one.
func (g *gcGate) none() (bool, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.file == nil {
		file, err := pathlock.OpenLockFile(g.path, true)
		if err != nil {
			return false, err
		}
		g.file = file
	}
	if ok, err := pathlock.TryFlock(g.file, pathlock.Shared); !ok || err != nil {
		return false, err
	}
	return pathlock.TryFlock(g.file, pathlock.Unlocked)
}

func (g *gcGate) close() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.file == nil {
		return nil
	}
	return g.file.Close()
}
