// Package buildusers hands out the user ids that builders run as: members of a group, or ids of a range that nobody has.
//
// A [Pool] knows the machine's accounts and the directories of lock files; a [Request] says what a build wants by its
// settings; a [Lease] is one uid, or a range of them, held until it is released. Each member of the group has a
// file named by its uid in <state>/userpool, each slot of the range one named slot-<n> in <state>/userpool2, locked with
// flock(2), so that upstream processes on the same machine and ours never give one uid to two builds
// (unix/user-lock.cc). The files are never removed. The kernel drops the lock when the process dies, whatever it dies of.
//
// Accounts come through [Accounts]; [System] is the machine's own, read from /etc/passwd and /etc/group without cgo and,
// for names that are not there, from the getent program, which asks whatever the name service switch has.
//
// Build users are for a daemon that runs as root: nobody else can change to them.
package buildusers

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// ErrAllInUse is returned by [Pool.Try] when every build user is taken.
var ErrAllInUse = errors.New("all build users are in use")

// Options configure a [Pool].
type Options struct {
	// StateDir is the directory of state, in which those of lock files are made when missing.
	StateDir string
	// Accounts looks names up. Nil means the machine's own.
	Accounts Accounts
}

// Pool hands out build users. All methods may be called from any goroutine.
type Pool struct {
	stateDir string
	accounts Accounts

	// Guarded by mu.
	mu       sync.Mutex
	leased   map[string]bool // by name of the lock file
	released chan struct{}   // closed at the next release
}

// New returns a Pool. It touches nothing: groups are looked up at each acquisition, since administrators
// change them while the daemon runs.
func New(o Options) *Pool {
	if o.Accounts == nil {
		o.Accounts = &System{}
	}
	return &Pool{
		stateDir: o.StateDir,
		accounts: o.Accounts,
		leased:   make(map[string]bool),
		released: make(chan struct{}),
	}
}

// Request is what a build wants. Builds of one Pool may differ: clients that are trusted set these things.
type Request struct {
	// Group is the name of the group (build-users-group). A Range needs it only for builders without a namespace of ids.
	Group string
	// Range takes the ids from there (auto-allocate-uids). Nil means a member of Group.
	Range *Range
}

// Range is where ids are allocated that belong to no account.
type Range struct {
	// First is the first id (start-id), IDs how many there are (id-count), a multiple of [SlotSize].
	First, IDs uint32
	// Count is how many the build wants, at most SlotSize.
	Count uint32
	// Namespace says that the builder gets a user namespace of its own. Then its group's id is the user's.
	Namespace bool
}

// Lease is one build user that is nobody else's until Release.
type Lease struct {
	// UID is the user's id, GID the build group's.
	UID, GID uint32
	// Count is how many user ids the lease has, from UID on. Only a [Range] gives more than one.
	Count uint32
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
		l.pool.free(l.lock.Name())
	})
	return err
}

// Withhold makes Release do nothing: nobody gets the user while this process lives. It is for users whose processes
// could not be killed.
func (l *Lease) Withhold() { l.once.Do(func() {}) }

// foreignPoll is how often Acquire looks whether another process has released a user.
const foreignPoll = 200 * time.Millisecond

// Acquire waits until a build user is free.
func (p *Pool) Acquire(ctx context.Context, r Request) (*Lease, error) {
	for {
		// Taken before the attempt, so that a release during it is not missed.
		released := p.releases()
		lease, err := p.Try(ctx, r)
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

// Try takes the first build user that is free, in the order of the group or the range, or returns [ErrAllInUse].
// The texts of its other errors are upstream's.
func (p *Pool) Try(ctx context.Context, r Request) (*Lease, error) {
	if r.Range != nil {
		return p.trySlots(ctx, r.Group, *r.Range)
	}
	return p.tryMembers(ctx, r.Group)
}

// take locks a file of a directory of state and returns nil without an error when it is locked already.
func (p *Pool) take(dir, name string) (*Lease, error) {
	path := filepath.Join(p.stateDir, dir, name)
	if !p.reserve(path) {
		return nil, nil
	}
	lock, err := lockFile(path)
	if errors.Is(err, os.ErrNotExist) {
		if err = os.MkdirAll(filepath.Dir(path), 0o755); err == nil {
			lock, err = lockFile(path)
		}
	}
	if lock == nil {
		p.free(path)
		return nil, err
	}
	return &Lease{pool: p, lock: lock}, nil
}

func (p *Pool) reserve(path string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.leased[path] {
		return false
	}
	p.leased[path] = true
	return true
}

func (p *Pool) free(path string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.leased, path)
	close(p.released)
	p.released = make(chan struct{})
}

func (p *Pool) releases() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.released
}
