package buildusers

import (
	"context"
	"errors"
	"strconv"
	"strings"
)

// ErrNotFound is what [Accounts] returns for a name that does not exist.
var ErrNotFound = errors.New("no such account")

// Group is a group and the names of the users that it lists, in its order.
// Users whose primary group it is are not members in this sense.
type Group struct {
	Name    string
	GID     uint32
	Members []string
}

// User is an account; GID is its primary group.
type User struct {
	Name     string
	UID, GID uint32
}

// Accounts looks up users and groups.
type Accounts interface {
	// Group returns the group of that name, or ErrNotFound.
	Group(ctx context.Context, name string) (Group, error)
	// User returns the user of that name, or ErrNotFound.
	User(ctx context.Context, name string) (User, error)
	// UserByID returns the user of that id, or ErrNotFound.
	UserByID(ctx context.Context, uid uint32) (User, error)
	// GroupsOf returns what getgrouplist(3) does: the primary group and all groups that list the user.
	GroupsOf(ctx context.Context, user User) ([]uint32, error)
}

// parseGroup reads one line of group(5): name:password:gid:member,member.
func parseGroup(line string) (Group, bool) {
	f := strings.Split(line, ":")
	if len(f) < 4 || !accountName(f[0]) {
		return Group{}, false
	}
	gid, err := strconv.ParseUint(f[2], 10, 32)
	if err != nil {
		return Group{}, false
	}
	g := Group{Name: f[0], GID: uint32(gid)}
	for member := range strings.SplitSeq(f[3], ",") {
		if member = strings.TrimSpace(member); member != "" {
			g.Members = append(g.Members, member)
		}
	}
	return g, true
}

// parseUser reads one line of passwd(5): name:password:uid:gid:comment:home:shell.
func parseUser(line string) (User, bool) {
	f := strings.Split(line, ":")
	if len(f) < 7 || !accountName(f[0]) {
		return User{}, false
	}
	uid, err := strconv.ParseUint(f[2], 10, 32)
	if err != nil {
		return User{}, false
	}
	gid, err := strconv.ParseUint(f[3], 10, 32)
	if err != nil {
		return User{}, false
	}
	return User{Name: f[0], UID: uint32(uid), GID: uint32(gid)}, true
}

// accountName rejects comments and the compatibility entries of NIS (+name, -name).
func accountName(name string) bool {
	return name != "" && !strings.ContainsAny(name[:1], "#+-")
}
