package buildusers

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

const firstID = 0x34000000

// slots wants all ids of one of n slots.
func slots(n uint32) Request {
	return Request{Group: "nixbld", Range: &Range{First: firstID, IDs: n * SlotSize, Count: SlotSize, Namespace: true}}
}

func TestSlots(t *testing.T) {
	state := t.TempDir()
	p := New(Options{StateDir: state, Accounts: machine(1)})
	var leases []*Lease
	for i := range uint32(3) {
		l, err := p.Try(context.Background(), slots(3))
		if err != nil {
			t.Fatal(err)
		}
		if l.UID != firstID+i*SlotSize || l.GID != l.UID || l.Count != SlotSize || l.Groups != nil {
			t.Errorf("slot %d: got %+v", i, l)
		}
		leases = append(leases, l)
	}
	if _, err := p.Try(context.Background(), slots(3)); !errors.Is(err, ErrAllInUse) {
		t.Errorf("got %v, want ErrAllInUse", err)
	}
	// Another pool, as another process has it, shares the locks.
	other := New(Options{StateDir: state, Accounts: machine(1)})
	if _, err := other.Try(context.Background(), slots(3)); !errors.Is(err, ErrAllInUse) {
		t.Errorf("another pool: got %v, want ErrAllInUse", err)
	}
	if l, err := other.Try(context.Background(), slots(4)); err != nil || l.UID != firstID+3*SlotSize {
		t.Errorf("another pool with more slots: got %+v, %v", l, err)
	}
	leases[1].Release()
	if l, err := other.Try(context.Background(), slots(3)); err != nil || l.UID != firstID+SlotSize {
		t.Errorf("after a release: got %+v, %v", l, err)
	}
	// The group's members are not among them.
	if l, err := p.Try(context.Background(), nixbld); err != nil || l.UID != firstUID {
		t.Errorf("member: got %+v, %v", l, err)
	}
	for _, name := range []string{"userpool2/slot-0", "userpool2/slot-3", "userpool/4000001"} {
		if info, err := os.Stat(filepath.Join(state, name)); err != nil || info.Mode() != 0o600 {
			t.Errorf("lock file %s: %v, %v", name, info, err)
		}
	}
}

func TestSlotWithoutNamespace(t *testing.T) {
	p := New(Options{StateDir: t.TempDir(), Accounts: machine(0)})
	r := slots(1)
	r.Range.Namespace, r.Range.Count = false, 1
	l, err := p.Try(context.Background(), r)
	if err != nil || l.UID != firstID || l.GID != gid || l.Count != 1 {
		t.Errorf("got %+v, %v", l, err)
	}
}

// A slot that upstream's process holds is passed over.
func TestForeignSlot(t *testing.T) {
	state := t.TempDir()
	if err := os.Mkdir(filepath.Join(state, "userpool2"), 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(state, "userpool2", "slot-0"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		t.Fatal(err)
	}
	p := New(Options{StateDir: state, Accounts: machine(1)})
	if l, err := p.Try(context.Background(), slots(2)); err != nil || l.UID != firstID+SlotSize {
		t.Errorf("got %+v, %v", l, err)
	}
}

func TestSlotErrors(t *testing.T) {
	tests := []struct {
		name   string
		change func(*fakeAccounts, *Range)
		want   string
	}{
		{"clash", func(f *fakeAccounts, _ *Range) { f.users["x"] = User{Name: "x", UID: firstID} },
			"auto-allocated UID 872415232 clashes with existing user account 'x'"},
		{"no group", func(f *fakeAccounts, r *Range) { delete(f.groups, "nixbld"); r.Namespace = false },
			"the group 'nixbld' specified in 'build-users-group' does not exist"},
		{"lookup fails", func(f *fakeAccounts, r *Range) { f.err = errors.New("directory is down"); r.Namespace = false }, "directory is down"},
		{"superuser", func(_ *fakeAccounts, r *Range) { r.First = 0 }, "setting 'start-id' must not be 0: ids of builds would include the superuser's"},
		{"too far", func(_ *fakeAccounts, r *Range) { r.First = 1<<32 - SlotSize },
			fmt.Sprintf("settings 'start-id' (%d) and 'id-count' (%d) exceed the range of user ids", uint64(1<<32-SlotSize), SlotSize)},
		{"more than a slot", func(_ *fakeAccounts, r *Range) { r.Count = SlotSize + 1 },
			fmt.Sprintf("a build cannot have %d user ids, only 1 to %d", SlotSize+1, SlotSize)},
		{"part of a slot", func(_ *fakeAccounts, r *Range) {
			if r.IDs += 1; SlotSize == 1 {
				r.First = 0 // there are no parts
			}
		}, fmt.Sprintf("setting 'id-count' is %d, which is not a multiple of %d", SlotSize+1, SlotSize)},
	}
	for _, tt := range tests {
		if tt.name == "part of a slot" && SlotSize == 1 {
			continue
		}
		t.Run(tt.name, func(t *testing.T) {
			f, r := machine(1), slots(1)
			tt.change(f, r.Range)
			p := New(Options{StateDir: t.TempDir(), Accounts: f})
			for range 2 {
				// Twice: an error must not keep the slot.
				if l, err := p.Try(context.Background(), r); err == nil || err.Error() != tt.want && !strings.HasPrefix(err.Error(), tt.want) {
					t.Errorf("got %+v, %v; want %s", l, err, tt.want)
				}
			}
		})
	}
}

// TestSlotsOfProcesses has several processes take slots of one directory at the same time.
func TestSlotsOfProcesses(t *testing.T) {
	if state := os.Getenv("BUILDUSERS_TEST_STATE"); state != "" {
		p := New(Options{StateDir: state, Accounts: machine(1)})
		for range 8 {
			if l, err := p.Try(context.Background(), slots(128)); err != nil {
				fmt.Println(err)
			} else {
				fmt.Println("uid", l.UID)
			}
		}
		io.Copy(io.Discard, os.Stdin) // the parent has seen what all of us have
		return
	}
	state := t.TempDir()
	var mu sync.Mutex
	seen := make(map[string]bool)
	var reading sync.WaitGroup
	for range 4 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestSlotsOfProcesses$")
		cmd.Env = append(os.Environ(), "BUILDUSERS_TEST_STATE="+state)
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		defer cmd.Wait()
		defer in.Close()
		reading.Go(func() {
			lines := bufio.NewScanner(out)
			for range 8 {
				lines.Scan()
				mu.Lock()
				if seen[lines.Text()] || !strings.HasPrefix(lines.Text(), "uid ") {
					t.Errorf("got %q", lines.Text())
				}
				seen[lines.Text()] = true
				mu.Unlock()
			}
		})
	}
	reading.Wait()
}
