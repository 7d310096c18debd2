package daemon

import (
	"os"

	"golang.org/x/sys/unix"
)

// peerCredentials reads LOCAL_PEERCRED (unix(4) of macOS), which knows no
// process id; the first group is the primary one.
func peerCredentials(fd int) (Identity, error) {
	cred, err := unix.GetsockoptXucred(fd, unix.SOL_LOCAL, unix.LOCAL_PEERCRED)
	if err != nil {
		return Identity{}, os.NewSyscallError("getsockopt LOCAL_PEERCRED", err)
	}
	return Identity{UID: cred.Uid, GID: cred.Groups[0]}, nil
}
