package daemon

import (
	"os"

	"golang.org/x/sys/unix"
)

// peerCredentials reads LOCAL_PEERCRED (unix(4) of macOS), which knows no
// process id. To trust its groups would be to trust more people than upstream
// does: everybody's primary group is "staff".
func peerCredentials(fd int) (Identity, error) {
	cred, err := unix.GetsockoptXucred(fd, unix.SOL_LOCAL, unix.LOCAL_PEERCRED)
	if err != nil {
		return Identity{}, os.NewSyscallError("getsockopt LOCAL_PEERCRED", err)
	}
	return Identity{UID: cred.Uid, GID: NoGroup}, nil
}
