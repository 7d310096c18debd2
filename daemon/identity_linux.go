package daemon

import (
	"os"

	"golang.org/x/sys/unix"
)

// peerCredentials reads SO_PEERCRED (unix(7)).
func peerCredentials(fd int) (Identity, error) {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return Identity{}, os.NewSyscallError("getsockopt SO_PEERCRED", err)
	}
	return Identity{PID: int(cred.Pid), UID: cred.Uid, GID: cred.Gid}, nil
}
