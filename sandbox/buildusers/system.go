package buildusers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// System is the machine's accounts. The zero value is ready.
//
// The files are parsed again only when they have changed. What was asked beyond them is kept for a minute.
type System struct {
	// Guarded by mu.
	mu     sync.Mutex
	passwd accountFile[User]
	group  accountFile[Group]
	asked  map[string]answer
}

var _ Accounts = (*System)(nil)

// Group implements [Accounts].
func (s *System) Group(ctx context.Context, name string) (Group, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	groups, err := s.group.read("/etc/group", parseGroup)
	if err != nil {
		return Group{}, err
	}
	if i := slices.IndexFunc(groups, func(g Group) bool { return g.Name == name }); i >= 0 {
		return groups[i], nil
	}
	line, err := s.ask(ctx, "group", name)
	if err != nil {
		return Group{}, err
	}
	if g, ok := parseGroup(line); ok && g.Name == name {
		return g, nil
	}
	return Group{}, ErrNotFound
}

// User implements [Accounts].
func (s *System) User(ctx context.Context, name string) (User, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if u, err := s.localUser(name); !errors.Is(err, ErrNotFound) {
		return u, err
	}
	line, err := s.ask(ctx, "passwd", name)
	if err != nil {
		return User{}, err
	}
	if u, ok := parseUser(line); ok && u.Name == name {
		return u, nil
	}
	return User{}, ErrNotFound
}

func (s *System) localUser(name string) (User, error) {
	users, err := s.passwd.read("/etc/passwd", parseUser)
	if err != nil {
		return User{}, err
	}
	if i := slices.IndexFunc(users, func(u User) bool { return u.Name == name }); i >= 0 {
		return users[i], nil
	}
	return User{}, ErrNotFound
}

// GroupsOf implements [Accounts]. For a user of /etc/passwd, groups are those of /etc/group; for any other the
// name service switch is asked.
func (s *System) GroupsOf(ctx context.Context, user User) ([]uint32, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	groups, err := s.group.read("/etc/group", parseGroup)
	if err != nil {
		return nil, err
	}
	gids := []uint32{user.GID}
	for _, g := range groups {
		if slices.Contains(g.Members, user.Name) {
			gids = append(gids, g.GID)
		}
	}
	if _, err := s.localUser(user.Name); errors.Is(err, ErrNotFound) {
		line, err := s.ask(ctx, "initgroups", user.Name)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return nil, err
		}
		gids = append(gids, parseInitgroups(line)...)
	}
	return unique(gids), nil
}

// parseInitgroups reads what getent initgroups prints: the name and the group ids.
func parseInitgroups(line string) []uint32 {
	var gids []uint32
	for i, field := range strings.Fields(line) {
		if gid, err := strconv.ParseUint(field, 10, 32); err == nil && i > 0 {
			gids = append(gids, uint32(gid))
		}
	}
	return gids
}

// unique drops repetitions and keeps the order.
func unique(gids []uint32) []uint32 {
	var seen []uint32
	for _, gid := range gids {
		if !slices.Contains(seen, gid) {
			seen = append(seen, gid)
		}
	}
	return seen
}

// answer is what getent said, "" for nothing.
type answer struct {
	line  string
	until time.Time
}

const (
	answerAge = time.Minute
	// askTimeout is for directory services that do not answer.
	askTimeout = 30 * time.Second
)

// ask looks for one entry beyond the files, in the format of the file.
func (s *System) ask(ctx context.Context, database, name string) (string, error) {
	// A name that looks like a number or an option would be taken for one.
	if _, err := strconv.ParseUint(name, 10, 64); err == nil || !accountName(name) {
		return "", ErrNotFound
	}
	key := database + " " + name
	a, ok := s.asked[key]
	if !ok || time.Now().After(a.until) {
		line, err := askSystem(ctx, database, name)
		if err != nil {
			return "", fmt.Errorf("look up %s '%s': %w", database, name, err)
		}
		if s.asked == nil {
			s.asked = make(map[string]answer)
		}
		a = answer{line, time.Now().Add(answerAge)}
		s.asked[key] = a
	}
	if a.line == "" {
		return "", ErrNotFound
	}
	return a.line, nil
}

// accountLimit bounds an account file; a quarter of a million accounts fit.
const accountLimit = 16 << 20

// accountFile is a parsed account file with the identity of what was parsed.
type accountFile[T any] struct {
	info    os.FileInfo
	entries []T
}

func (a *accountFile[T]) read(name string, parse func(string) (T, bool)) ([]T, error) {
	info, err := os.Stat(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if a.info != nil && os.SameFile(a.info, info) && a.info.ModTime().Equal(info.ModTime()) && a.info.Size() == info.Size() {
		return a.entries, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, accountLimit))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	a.entries = nil
	for line := range strings.Lines(string(b)) {
		if entry, ok := parse(strings.TrimRight(line, "\r\n")); ok {
			a.entries = append(a.entries, entry)
		}
	}
	a.info = info
	return a.entries, nil
}
