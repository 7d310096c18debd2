package daemon

import (
	"context"
	"slices"
	"time"

	"nixdaemon/sandbox/buildusers"
)

// Accounts knows the machine's users and groups.
type Accounts interface {
	UserName(uid uint32) (string, bool)
	GroupName(gid uint32) (string, bool)
	// IsMember tells whether the user is listed as a member of the group.
	IsMember(userName, group string) bool
}

// SystemAccounts answers from the machine's accounts. What cannot be found out
// within a moment counts as not being there. The zero value is ready.
type SystemAccounts struct{ system buildusers.System }

var _ Accounts = (*SystemAccounts)(nil)

// accountsPatience bounds a look-up: a directory server that does not answer
// must not hold up a client for good.
const accountsPatience = 3 * time.Second

// UserName gives the name of a uid.
func (a *SystemAccounts) UserName(uid uint32) (string, bool) {
	ctx, cancel := context.WithTimeout(context.Background(), accountsPatience)
	defer cancel()
	u, err := a.system.UserByID(ctx, uid)
	return u.Name, err == nil
}

// GroupName gives the name of a gid.
func (a *SystemAccounts) GroupName(gid uint32) (string, bool) {
	ctx, cancel := context.WithTimeout(context.Background(), accountsPatience)
	defer cancel()
	g, err := a.system.GroupByID(ctx, gid)
	return g.Name, err == nil
}

// IsMember tells whether the user is in the group's list of members.
func (a *SystemAccounts) IsMember(userName, group string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), accountsPatience)
	defer cancel()
	g, err := a.system.Group(ctx, group)
	return err == nil && userName != "" && slices.Contains(g.Members, userName)
}
