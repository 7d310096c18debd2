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

// System is the machine's accounts. The zero value is ready. All methods may be called from any goroutine, and a
// directory service that is slow holds up only those who ask for what is not in the files.
//
// The files are parsed again only when they have changed. What was asked beyond them is kept for a moment: long enough
// to spare a busy daemon the look-ups, short enough for an administrator's patience.
type System struct {
	// Guarded by mu, which nobody holds while asking beyond the files.
	mu     sync.Mutex
	passwd accountFile[User]
	group  accountFile[Group]
	asked  map[string]answer
}

var _ Accounts = (*System)(nil)

// Group implements [Accounts].
func (s *System) Group(ctx context.Context, name string) (Group, error) {
	return s.findGroup(ctx, name, func(g Group) bool { return g.Name == name })
}

// GroupByID returns the group of that id, or ErrNotFound.
func (s *System) GroupByID(ctx context.Context, gid uint32) (Group, error) {
	return s.findGroup(ctx, number(gid), func(g Group) bool { return g.GID == gid })
}

// User implements [Accounts].
func (s *System) User(ctx context.Context, name string) (User, error) {
	return s.findUser(ctx, name, func(u User) bool { return u.Name == name })
}

// UserByID implements [Accounts].
func (s *System) UserByID(ctx context.Context, uid uint32) (User, error) {
	return s.findUser(ctx, number(uid), func(u User) bool { return u.UID == uid })
}

func (s *System) findGroup(ctx context.Context, key string, match func(Group) bool) (Group, error) {
	groups, err := s.localGroups()
	if err != nil {
		return Group{}, err
	}
	return find(ctx, s, groups, "group", key, parseGroup, match)
}

func (s *System) findUser(ctx context.Context, key string, match func(User) bool) (User, error) {
	users, err := s.localUsers()
	if err != nil {
		return User{}, err
	}
	return find(ctx, s, users, "passwd", key, parseUser, match)
}

// find looks for an entry among those of a file, then beyond.
func find[T any](ctx context.Context, s *System, local []T, database, key string, parse func(string) (T, bool), match func(T) bool) (T, error) {
	var none T
	if i := slices.IndexFunc(local, match); i >= 0 {
		return local[i], nil
	}
	line, err := s.ask(ctx, database, key)
	if err != nil {
		return none, err
	}
	if entry, ok := parse(line); ok && match(entry) {
		return entry, nil
	}
	return none, ErrNotFound
}

func number(id uint32) string { return strconv.FormatUint(uint64(id), 10) }

// localUsers are those of /etc/passwd. The slice is never changed.
func (s *System) localUsers() ([]User, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.passwd.read("/etc/passwd", parseUser)
}

// localGroups are those of /etc/group. The slice is never changed.
func (s *System) localGroups() ([]Group, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.group.read("/etc/group", parseGroup)
}

// GroupsOf implements [Accounts]. For a user of /etc/passwd, groups are those of /etc/group; for any other the
// name service switch is asked.
func (s *System) GroupsOf(ctx context.Context, user User) ([]uint32, error) {
	groups, err := s.localGroups()
	if err != nil {
		return nil, err
	}
	gids := []uint32{user.GID}
	for _, g := range groups {
		if slices.Contains(g.Members, user.Name) {
			gids = append(gids, g.GID)
		}
	}
	users, err := s.localUsers()
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(users, func(u User) bool { return u.Name == user.Name }) {
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
	answerAge = 5 * time.Second
	// answersKept bounds what is remembered.
	answersKept = 1000
	// askTimeout is for directory services that do not answer.
	askTimeout = 30 * time.Second
)

// ask looks for one entry beyond the files, in the format of the file. The key is a name or a number.
func (s *System) ask(ctx context.Context, database, key string) (string, error) {
	// What looks like an option would be taken for one.
	if !accountName(key) {
		return "", ErrNotFound
	}
	line, ok := s.recall(database + " " + key)
	if !ok {
		var err error
		if line, err = askSystem(ctx, database, key); err != nil {
			return "", fmt.Errorf("look up %s '%s': %w", database, key, err)
		}
		s.remember(database+" "+key, line)
	}
	if line == "" {
		return "", ErrNotFound
	}
	return line, nil
}

func (s *System) recall(question string) (line string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a, ok := s.asked[question]
	return a.line, ok && time.Now().Before(a.until)
}

func (s *System) remember(question, line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.asked == nil || len(s.asked) >= answersKept {
		s.asked = make(map[string]answer)
	}
	s.asked[question] = answer{line, time.Now().Add(answerAge)}
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
	a.entries = nil // a new slice: those who have the old one go on with it
	for line := range strings.Lines(string(b)) {
		if entry, ok := parse(strings.TrimRight(line, "\r\n")); ok {
			a.entries = append(a.entries, entry)
		}
	}
	a.info = info
	return a.entries, nil
}
