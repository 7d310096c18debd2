package daemon

import (
	"fmt"
	"strings"
)

// Policy says who may connect and who is trusted. The zero Policy lets nobody
// in.
type Policy struct {
	// Allowed and Trusted hold user names, "@group" and "*".
	Allowed, Trusted []string
	// BuildUsersGroup names a group whose members, being builders, are
	// refused even if they are trusted.
	BuildUsersGroup string
}

// RefusedError says that a user may not connect. Its text is upstream's
// (nix/unix/daemon.cc, authConnection).
type RefusedError struct{ User string }

func (e *RefusedError) Error() string {
	return fmt.Sprintf("user '%s' is not allowed to connect to the Nix daemon", e.User)
}

// Judge tells whether a peer is trusted, or refuses it.
func (p Policy) Judge(id Identity, accounts Accounts) (trusted bool, err error) {
	trusted = matches(p.Trusted, id, accounts)
	builder := p.BuildUsersGroup != "" && (id.Group == p.BuildUsersGroup || id.GID == NoGroup && accounts.IsMember(id.User, p.BuildUsersGroup))
	if builder || !trusted && !matches(p.Allowed, id, accounts) {
		return false, &RefusedError{id.User}
	}
	return trusted, nil
}

// matches tells whether a list names the peer. A group matches by the peer's
// primary group or by its list of members; groups that do not exist match
// nobody.
func matches(list []string, id Identity, accounts Accounts) bool {
	for _, entry := range list {
		group, isGroup := strings.CutPrefix(entry, "@")
		switch {
		case entry == "*":
			return true
		case isGroup && (id.GID != NoGroup && group == id.Group || accounts.IsMember(id.User, group)):
			return true
		case !isGroup && id.Known && entry == id.User:
			return true
		}
	}
	return false
}
