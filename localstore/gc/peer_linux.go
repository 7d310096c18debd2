package gc

import (
	"net"

	"golang.org/x/sys/unix"
)

// peerPID tells whose the other end is (SO_PEERCRED, unix(7)); 0 if that cannot be told.
func peerPID(conn net.Conn) int {
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0
	}
	pid := 0
	raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			pid = int(cred.Pid)
		}
	})
	return pid
}
