package buildusers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// fakeAccounts is a machine with a few accounts.
type fakeAccounts struct {
	groups map[string]Group
	users  map[string]User
	extra  map[string][]uint32
	err    error
}

func (f *fakeAccounts) Group(_ context.Context, name string) (Group, error) {
	if g, ok := f.groups[name]; ok {
		return g, f.err
	}
	return Group{}, errors.Join(f.err, ErrNotFound)
}

func (f *fakeAccounts) User(_ context.Context, name string) (User, error) {
	if u, ok := f.users[name]; ok {
		return u, nil
	}
	return User{}, ErrNotFound
}

func (f *fakeAccounts) UserByID(_ context.Context, uid uint32) (User, error) {
	for _, u := range f.users {
		if u.UID == uid {
			return u, nil
		}
	}
	return User{}, errors.Join(f.err, ErrNotFound)
}

func (f *fakeAccounts) GroupsOf(_ context.Context, u User) ([]uint32, error) {
	groups, ok := f.extra[u.Name]
	if !ok {
		return nil, errors.New("directory is down")
	}
	return append([]uint32{u.GID}, groups...), nil
}

const (
	gid      = 4_000_000
	firstUID = 4_000_001
)

// machine has the group nixbld with n members.
func machine(n int) *fakeAccounts {
	f := &fakeAccounts{groups: map[string]Group{}, users: map[string]User{}, extra: map[string][]uint32{}}
	g := Group{Name: "nixbld", GID: gid}
	for i := range n {
		name := fmt.Sprintf("nixbld%d", i+1)
		g.Members = append(g.Members, name)
		f.users[name] = User{Name: name, UID: firstUID + uint32(i), GID: gid}
		f.extra[name] = nil
	}
	f.groups["nixbld"] = g
	return f
}

func newPool(t *testing.T, f *fakeAccounts) (*Pool, string) {
	t.Helper()
	state := filepath.Join(t.TempDir(), "state")
	return New(Options{StateDir: state, Accounts: f}), filepath.Join(state, "userpool")
}

// nixbld wants a member of the group.
var nixbld = Request{Group: "nixbld"}

func try(t *testing.T, p *Pool) *Lease {
	t.Helper()
	l, err := p.Try(context.Background(), nixbld)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestTryInOrder(t *testing.T) {
	p, dir := newPool(t, machine(2))
	a, b := try(t, p), try(t, p)
	if a.UID != firstUID || b.UID != firstUID+1 || a.GID != gid || b.GID != gid {
		t.Errorf("got %d:%d and %d:%d", a.UID, a.GID, b.UID, b.GID)
	}
	if _, err := p.Try(context.Background(), nixbld); !errors.Is(err, ErrAllInUse) {
		t.Errorf("third: got %v, want ErrAllInUse", err)
	}
	if err := errors.Join(a.Release(), a.Release()); err != nil {
		t.Error(err)
	}
	if again := try(t, p); again.UID != a.UID {
		t.Errorf("after release: got %d, want %d", again.UID, a.UID)
	}
	if a.Count != 1 {
		t.Errorf("got %d ids", a.Count)
	}
	info, err := os.Stat(filepath.Join(dir, strconv.Itoa(firstUID)))
	if err != nil || info.Mode() != 0o600 || info.Size() != 0 {
		t.Errorf("lock file: %v, %v", info, err)
	}
}

// A foreign process holds its lock by an open file description of its own; so does this test.
func TestForeignLock(t *testing.T) {
	p, dir := newPool(t, machine(2))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, strconv.Itoa(firstUID))
	foreign, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer foreign.Close()
	if err := unix.Flock(int(foreign.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		t.Fatal(err)
	}
	l := try(t, p)
	if l.UID != firstUID+1 {
		t.Errorf("got %d, which another process holds", l.UID)
	}
	ours, err := os.Open(filepath.Join(dir, strconv.Itoa(firstUID+1)))
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	if err := unix.Flock(int(ours.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != unix.EWOULDBLOCK {
		t.Errorf("lock of a leased user: got %v, want EWOULDBLOCK", err)
	}
	foreign.Close()
	if l := try(t, p); l.UID != firstUID {
		t.Errorf("after the foreign release: got %d", l.UID)
	}
	l.Release()
	if err := unix.Flock(int(ours.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		t.Errorf("lock of a released user: %v", err)
	}
}

func TestAcquireWaits(t *testing.T) {
	p, _ := newPool(t, machine(1))
	first := try(t, p)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := p.Acquire(ctx, nixbld); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: got %v", err)
	}
	got := make(chan *Lease)
	go func() {
		l, err := p.Acquire(context.Background(), nixbld)
		if err != nil {
			t.Error(err)
		}
		got <- l
	}()
	first.Release()
	if l := <-got; l == nil || l.UID != first.UID {
		t.Errorf("got %+v", l)
	}
}

func TestAcquireNoticesForeignRelease(t *testing.T) {
	a, dir := newPool(t, machine(1))
	b := New(Options{StateDir: filepath.Dir(dir), Accounts: machine(1)})
	held := try(t, a)
	got := make(chan error)
	go func() {
		_, err := b.Acquire(context.Background(), nixbld)
		got <- err
	}()
	held.Release()
	select {
	case err := <-got:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Error("not noticed")
	}
}

func TestManyAtOnce(t *testing.T) {
	p, _ := newPool(t, machine(4))
	var mu sync.Mutex
	inUse := make(map[uint32]bool)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range 20 {
				l, err := p.Acquire(context.Background(), nixbld)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				if inUse[l.UID] {
					t.Errorf("uid %d was given out twice", l.UID)
				}
				inUse[l.UID] = true
				mu.Unlock()
				mu.Lock()
				delete(inUse, l.UID)
				mu.Unlock()
				if err := l.Release(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

func TestWithhold(t *testing.T) {
	p, _ := newPool(t, machine(2))
	held := try(t, p)
	held.Withhold()
	if err := held.Release(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		l := try(t, p)
		if l.UID == held.UID {
			t.Error("a user that was withheld was given out")
		}
		l.Release()
	}
}

func TestSupplementaryGroups(t *testing.T) {
	f := machine(1)
	f.extra["nixbld1"] = []uint32{78, gid, 79}
	p, _ := newPool(t, f)
	if diff := cmp.Diff([]uint32{78, 79}, try(t, p).Groups); diff != "" {
		t.Error(diff)
	}
	other := machine(1)
	other.users["nixbld1"] = User{Name: "nixbld1", UID: firstUID, GID: 500}
	p, _ = newPool(t, other)
	if l := try(t, p); !cmp.Equal(l.Groups, []uint32{500}) || l.GID != gid {
		t.Errorf("primary group differs: got %d, %v", l.GID, l.Groups)
	}
}

func TestErrors(t *testing.T) {
	tests := []struct {
		name   string
		change func(*fakeAccounts)
		want   string
	}{
		{"no group", func(f *fakeAccounts) { delete(f.groups, "nixbld") }, "the group 'nixbld' specified in 'build-users-group' does not exist"},
		{"no members", func(f *fakeAccounts) { f.groups["nixbld"] = Group{GID: gid} }, "the build users group 'nixbld' has no members"},
		{"no user", func(f *fakeAccounts) { delete(f.users, "nixbld1") }, "the user 'nixbld1' in the group 'nixbld' does not exist"},
		{"root is a member", func(f *fakeAccounts) { f.users["nixbld1"] = User{Name: "nixbld1", GID: gid} }, "the Nix user should not be a member of 'nixbld'"},
		{"ourselves", func(f *fakeAccounts) { f.users["nixbld1"] = User{Name: "nixbld1", UID: uint32(os.Getuid()), GID: gid} }, "the Nix user should not be a member of 'nixbld'"},
		{"group of root", func(f *fakeAccounts) { f.groups["nixbld"] = Group{Members: []string{"nixbld1"}} }, "the group 'nixbld' specified in 'build-users-group' is the superuser's"},
		{"lookup fails", func(f *fakeAccounts) { f.err = errors.New("directory is down") }, "directory is down"},
		{"groups fail", func(f *fakeAccounts) { f.extra = nil }, "failed to get list of supplementary groups for 'nixbld1': directory is down"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := machine(1)
			tt.change(f)
			p, _ := newPool(t, f)
			for range 2 {
				// Twice: an error must not keep the user.
				if l, err := p.Try(context.Background(), nixbld); err == nil || err.Error() != tt.want {
					t.Errorf("got %+v, %v; want %s", l, err, tt.want)
				}
			}
		})
	}
}

func TestLockFileErrors(t *testing.T) {
	p, dir := newPool(t, machine(1))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	target := filepath.Join(t.TempDir(), "elsewhere")
	if err := os.Symlink(target, filepath.Join(dir, strconv.Itoa(firstUID))); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Try(context.Background(), nixbld); !errors.Is(err, unix.ELOOP) {
		t.Errorf("lock file is a link: got %v, want ELOOP", err)
	}
	if _, err := os.Lstat(target); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the link was followed: %v", err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Try(context.Background(), nixbld); !errors.Is(err, unix.ENOTDIR) {
		t.Errorf("pool is a file: got %v, want ENOTDIR", err)
	}
}

func BenchmarkTry(b *testing.B) {
	p := New(Options{StateDir: b.TempDir(), Accounts: machine(32)})
	for b.Loop() {
		l, err := p.Try(context.Background(), nixbld)
		if err != nil {
			b.Fatal(err)
		}
		l.Release()
	}
}
