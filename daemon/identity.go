package daemon

import (
	"net"
	"strconv"
)

// Identity is who is at the other end of a socket, as the kernel tells.
type Identity struct {
	// PID is 0 where the system does not tell it (macOS).
	PID int
	// UID and GID are those of the peer when it connected. GID is NoGroup where upstream does not ask for it (macOS,
	// libcmd/unix/unix-socket-server.cc): there only who is listed as a member is in a group.
	UID, GID uint32
	// Known is false when the kernel did not say.
	Known bool
	// User and Group are names, or decimal numbers where there is no name. Group is empty for NoGroup.
	User, Group string
}

// identify asks the kernel, and the accounts for names.
func identify(conn *net.UnixConn, accounts Accounts) (Identity, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return Identity{}, err
	}
	var id Identity
	var credErr error
	if err := raw.Control(func(fd uintptr) { id, credErr = peerCredentials(int(fd)) }); err != nil {
		return Identity{}, err
	}
	if credErr != nil {
		return Identity{}, credErr
	}
	id.Known = true
	id.name(accounts)
	return id, nil
}

// NoGroup is no group's number.
const NoGroup = ^uint32(0)

// name finds the names.
func (id *Identity) name(accounts Accounts) {
	id.User = decimal(id.UID)
	if name, ok := accounts.UserName(id.UID); ok {
		id.User = name
	}
	if id.GID == NoGroup {
		return
	}
	id.Group = decimal(id.GID)
	if name, ok := accounts.GroupName(id.GID); ok {
		id.Group = name
	}
}

func decimal(id uint32) string { return strconv.FormatUint(uint64(id), 10) }
