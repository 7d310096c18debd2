package sandbox

import (
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// ownDescriptors is a directory with an entry for each open descriptor of ours.
const ownDescriptors = "/dev/fd"

// forker forks from the calling thread: macOS has no attributes that only a thread could carry.
type forker struct {
	mu sync.Mutex // held while the process's umask is the builder's
}

func (f *forker) fork(spec *Spec, files []uintptr) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	// The umask belongs to the whole process here; files that other goroutines create within this window get
	// their exact mode by fchmod afterwards, as everywhere in a store.
	defer unix.Umask(unix.Umask(0o022))
	steps, err := spec.steps()
	if err != nil {
		return 0, err
	}
	return forkExec(steps, files)
}

func (f *forker) close() {}

func sysProcAttr(spec *Spec) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setsid: true, Credential: credential(spec.User)}
}
