package sandbox

import (
	"sync"

	"golang.org/x/sys/unix"
)

// coreLimit guards the core limit, which belongs to the process as a whole and so cannot belong to a Launcher.
var coreLimit sync.Mutex

// withoutCores calls fork while this process has a soft core limit of zero, which is what the child keeps.
// Upstream's child also raises the hard limit to infinity where it may.
func withoutCores(fork func() (int, error)) (int, error) {
	coreLimit.Lock()
	defer coreLimit.Unlock()
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &before); err != nil {
		return 0, err
	}
	if before.Cur == 0 && before.Max == unix.RLIM_INFINITY {
		return fork()
	}
	if unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{Cur: 0, Max: unix.RLIM_INFINITY}) != nil {
		if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{Cur: 0, Max: before.Max}); err != nil {
			return 0, err
		}
	}
	defer unix.Setrlimit(unix.RLIMIT_CORE, &before)
	return fork()
}
