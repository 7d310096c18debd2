package daemon

import (
	"context"
	"os/exec"
	"os/user"
	"slices"
	"strings"
	"sync"
	"time"
)

// Accounts knows the machine's users and groups.
type Accounts interface {
	UserName(uid uint32) (string, bool)
	GroupName(gid uint32) (string, bool)
	// IsMember tells whether the user is listed as a member of the group.
	IsMember(userName, group string) bool
}

// accountsTTL is how long answers are remembered: long enough to spare a
// busy daemon the look-ups, short enough for an administrator's patience.
const accountsTTL = 5 * time.Second

// SystemAccounts asks the machine: its files first, then, for accounts kept
// elsewhere (LDAP and the like), the "getent" program, since a static binary
// cannot load the C library's modules. Answers are remembered for a moment.
// The zero value is ready.
type SystemAccounts struct {
	mu    sync.Mutex
	cache map[string]remembered
}

type remembered struct {
	value string
	found bool
	until time.Time
}

var _ Accounts = (*SystemAccounts)(nil)

// UserName gives the name of a uid.
func (a *SystemAccounts) UserName(uid uint32) (string, bool) {
	return a.recall("u"+decimal(uid), func() (string, bool) {
		if u, err := user.LookupId(decimal(uid)); err == nil {
			return u.Username, true
		}
		return firstField(getent("passwd", decimal(uid)))
	})
}

// GroupName gives the name of a gid.
func (a *SystemAccounts) GroupName(gid uint32) (string, bool) {
	return a.recall("g"+decimal(gid), func() (string, bool) {
		if g, err := user.LookupGroupId(decimal(gid)); err == nil {
			return g.Name, true
		}
		return firstField(getent("group", decimal(gid)))
	})
}

// IsMember tells whether the user is in the group's list of members.
func (a *SystemAccounts) IsMember(userName, group string) bool {
	members, _ := a.recall("m"+group, func() (string, bool) {
		line, ok := getent("group", group)
		fields := strings.Split(line, ":")
		if !ok || len(fields) < 4 {
			return "", false
		}
		return fields[3], true
	})
	return userName != "" && slices.Contains(strings.Split(members, ","), userName)
}

func (a *SystemAccounts) recall(key string, ask func() (string, bool)) (string, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if r, ok := a.cache[key]; ok && time.Now().Before(r.until) {
		return r.value, r.found
	}
	value, found := ask()
	if a.cache == nil {
		a.cache = make(map[string]remembered)
	}
	a.cache[key] = remembered{value, found, time.Now().Add(accountsTTL)}
	return value, found
}

// getentTimeout bounds a look-up: a directory server that does not answer must
// not stop the accept loop for good.
const getentTimeout = 3 * time.Second

func getent(database, key string) (string, bool) {
	if line, ok := fileEntry(database, key); ok {
		return line, true
	}
	ctx, cancel := context.WithTimeout(context.Background(), getentTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, "getent", database, key).Output()
	line := strings.TrimSpace(string(out))
	return line, err == nil && line != ""
}

func firstField(line string, ok bool) (string, bool) {
	name, _, _ := strings.Cut(line, ":")
	return name, ok && name != ""
}
