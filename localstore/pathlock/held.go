package pathlock

import (
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// Held is a set of locked paths. Its methods may be called from any goroutine.
type Held struct {
	table *Table

	mu       sync.Mutex
	files    []lockedFile
	deletion bool
}

type lockedFile struct {
	path string
	fd   int
}

// SetDeletion says whether Unlock removes the lock files.
// They are removed once the paths exist and are valid, since nobody will need to lock them again soon;
// they stay, empty, when the work on the paths did not succeed. Upstream does the same.
func (h *Held) SetDeletion(remove bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.deletion = remove
}

// Unlock releases every path. A second call does nothing.
// The error tells of lock files that could not be closed or marked; the locks are released all the same.
func (h *Held) Unlock() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	var errs []error
	for _, f := range h.files {
		errs = append(errs, f.unlock(h.deletion))
		h.table.release(f.path)
	}
	h.files = nil
	return errors.Join(errs...)
}

func (f lockedFile) unlock(remove bool) error {
	var err error
	if remove {
		err = deleteLockFile(f.path+lockSuffix, f.fd)
	}
	if e := unix.Close(f.fd); e != nil {
		err = errors.Join(err, fmt.Errorf("close lock file %s: %w", f.path+lockSuffix, e))
	}
	return err
}
