// Package buildusers hands out the user ids that builders run as: the members of a group.
//
// A [Pool] knows the group (upstream's build-users-group) and the directory of lock files; a [Lease] is one uid,
// held until it is released. Each uid has a file named by its number in <state>/userpool, locked with flock(2),
// so that upstream processes on the same machine and ours never give one uid to two builds. The files are never removed.
// The kernel drops the lock when the process dies, whatever it dies of.
//
// Accounts come through [Accounts]; [System] is the machine's own, read from /etc/passwd and /etc/group without cgo and,
// for names that are not there, from the getent program, which asks whatever the name service switch has.
//
// Build users are for a daemon that runs as root: nobody else can change to them.
package buildusers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"
)

// ErrAllInUse is returned by [Pool.Try] when every build user is taken.
var ErrAllInUse = errors.New("all build users are in use")

// Options configure a [Pool].
type Options struct {
	// Dir is the directory of lock files, <state>/userpool. It is made when missing.
	Dir string
	// Group is the name of the group. It must not be empty.
	Group string
	// Accounts looks names up. Nil means the machine's own.
	Accounts Accounts
}

// Pool hands out build users. All methods may be called from any goroutine.
type Pool struct {
	dir, group string
	accounts   Accounts

	// Guarded by mu.
	mu       sync.Mutex
	leased   map[uint32]bool
	released chan struct{} // closed at the next release
}

// New returns a Pool. It touches nothing: the group is looked up at each acquisition, since administrators
// change it while the daemon runs.
func New(o Options) *Pool {
	if o.Accounts == nil {
		o.Accounts = &System{}
	}
	return &Pool{
		dir:      o.Dir,
		group:    o.Group,
		accounts: o.Accounts,
		leased:   make(map[uint32]bool),
		released: make(chan struct{}),
	}
}

// Lease is one build user that is nobody else's until Release.
type Lease struct {
	// UID is the user's id, GID the build group's.
	UID, GID uint32
	// Groups are the user's other groups (such as kvm), without GID; its own primary group is among them.
	Groups []uint32

	pool *Pool
	lock *os.File
	once sync.Once
}

// Release gives the user back. The caller has made sure that no process of it is left.
// It may be called more than once.
func (l *Lease) Release() error {
	var err error
	l.once.Do(func() {
		// Unlocked before it is free here, or the next Try would find its own process's lock.
		err = l.lock.Close()
		l.pool.free(l.UID)
	})
	return err
}

// foreignPoll is how often Acquire looks whether another process has released a user.
const foreignPoll = 200 * time.Millisecond

// Acquire waits until a build user is free.
func (p *Pool) Acquire(ctx context.Context) (*Lease, error) {
	for {
		// Taken before the attempt, so that a release during it is not missed.
		released := p.releases()
		lease, err := p.Try(ctx)
		if !errors.Is(err, ErrAllInUse) {
			return lease, err
		}
		timer := time.NewTimer(foreignPoll)
		select {
		case <-released:
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, context.Cause(ctx)
		}
		timer.Stop()
	}
}

// Try takes the first member of the group that is free, in the group's order, or returns [ErrAllInUse].
// The texts of its other errors are upstream's.
func (p *Pool) Try(ctx context.Context) (*Lease, error) {
	group, err := p.lookupGroup(ctx)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(p.dir, 0o755); err != nil {
		return nil, err
	}
	for _, name := range group.Members {
		user, err := p.accounts.User(ctx, name)
		if errors.Is(err, ErrNotFound) {
			return nil, fmt.Errorf("the user '%s' in the group '%s' does not exist", name, p.group)
		}
		if err != nil {
			return nil, err
		}
		lease, err := p.take(user, group.GID)
		if lease == nil && err == nil {
			continue
		}
		if err == nil {
			lease.Groups, err = p.supplementary(ctx, user, group.GID)
		}
		if err != nil && lease != nil {
			return nil, errors.Join(err, lease.Release())
		}
		return lease, err
	}
	return nil, ErrAllInUse
}

func (p *Pool) lookupGroup(ctx context.Context) (Group, error) {
	group, err := p.accounts.Group(ctx, p.group)
	switch {
	case errors.Is(err, ErrNotFound):
		return Group{}, fmt.Errorf("the group '%s' specified in 'build-users-group' does not exist", p.group)
	case err != nil:
		return Group{}, err
	case len(group.Members) == 0:
		return Group{}, fmt.Errorf("the build users group '%s' has no members", p.group)
	case group.GID == 0:
		return Group{}, fmt.Errorf("the group '%s' specified in 'build-users-group' is the superuser's", p.group)
	}
	return group, nil
}

// take returns nil without an error when the user is in use.
func (p *Pool) take(user User, gid uint32) (*Lease, error) {
	// Never root, whoever we are: a builder with uid 0 would be no builder.
	if user.UID == 0 || int(user.UID) == os.Getuid() || int(user.UID) == os.Geteuid() {
		return nil, fmt.Errorf("the Nix user should not be a member of '%s'", p.group)
	}
	if !p.reserve(user.UID) {
		return nil, nil
	}
	lock, err := lockFile(filepath.Join(p.dir, strconv.FormatUint(uint64(user.UID), 10)))
	if lock == nil {
		p.free(user.UID)
		return nil, err
	}
	return &Lease{UID: user.UID, GID: gid, pool: p, lock: lock}, nil
}

func (p *Pool) supplementary(ctx context.Context, user User, gid uint32) ([]uint32, error) {
	groups, err := p.accounts.GroupsOf(ctx, user)
	if err != nil {
		return nil, fmt.Errorf("failed to get list of supplementary groups for '%s': %w", user.Name, err)
	}
	return slices.DeleteFunc(groups, func(g uint32) bool { return g == gid }), nil
}

func (p *Pool) reserve(uid uint32) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.leased[uid] {
		return false
	}
	p.leased[uid] = true
	return true
}

func (p *Pool) free(uid uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.leased, uid)
	close(p.released)
	p.released = make(chan struct{})
}

func (p *Pool) releases() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.released
}
