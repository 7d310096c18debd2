package daemon

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// needsOwnMounts tells whether the store is on a read-only mount, as NixOS has it against accidents, that a server can
// make writable for itself in a mount namespace of its own.
func needsOwnMounts(realStore string) bool {
	var st unix.Statfs_t
	return os.Geteuid() == 0 && unix.Statfs(realStore, &st) == nil && st.Flags&unix.ST_RDONLY != 0
}

// hasOwnMounts tells whether our mount namespace is another than that of the system's process 1, or than that of our
// parent, which may be the supervisor that made it, so that what we remount is nobody else's. In some containers nobody may
// look at process 1.
func hasOwnMounts() bool {
	own, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		return false
	}
	for _, pid := range []int{1, os.Getppid()} {
		if other, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/ns/mnt"); err == nil && own != other {
			return true
		}
	}
	return false
}
