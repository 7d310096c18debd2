// Package cgroup keeps each build in a control group (version 2) of its own.
//
// A [Hierarchy] is the cgroup that the daemon was started in; a [Group] is one leaf below it, made for one build and
// destroyed with it. What a builder starts is in its Group whatever it does to session, parents, environment and user,
// so that destroying the Group ends the build for certain, and the Group's cpu.stat has counted all of it. [Limits] bound
// what the build may use, where the machine gives the controllers for them. [Records] remember, in <state>/cgroups,
// the Group that a build user was last in: the next build of that user destroys it if a crash has left it behind.
//
// Names of groups and records are upstream's (linux/build/linux-derivation-builder.cc), so that either daemon clears up
// after the other. Every Group that we hold is locked with flock(2), by which [Hierarchy.Sweep] knows leftovers.
//
// Linux only: elsewhere [Find] answers [ErrNone].
package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// ErrNone is returned by [Find] on a machine without the file system of cgroups version 2. The text is upstream's.
var ErrNone = errors.New("cannot determine the cgroups file system")

// superMagic is CGROUP2_SUPER_MAGIC of linux/magic.h.
const superMagic = 0x63677270

// Hierarchy is the cgroup below which those of builds are made. All methods may be called from any goroutine.
type Hierarchy struct {
	dir     string
	counter atomic.Uint64 // numbers groups without a build user

	// mu is held while controllers are enabled for the groups below.
	mu sync.Mutex

	// adopted is set by Adopt: controllers are no longer enabled as they are needed.
	adopted atomic.Bool
}

// subtreeControl names the controllers that a cgroup gives to those below.
const subtreeControl = "cgroup.subtree_control"

// Find finds the cgroup of this process, wherever the version 2 hierarchy is mounted: alone, or beside version 1.
func Find() (*Hierarchy, error) {
	mounts, err := readProc("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	own, err := readProc("/proc/self/cgroup")
	if err != nil {
		return nil, err
	}
	dir, err := locate(string(mounts), string(own))
	if err != nil {
		return nil, err
	}
	return At(dir)
}

// readProc reads a file that is missing only where there are no cgroups, or another kernel.
func readProc(file string) ([]byte, error) {
	text, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		err = ErrNone
	}
	return text, err
}

// At returns the Hierarchy of a cgroup that is given by its directory.
func At(dir string) (*Hierarchy, error) {
	f, err := openGroup(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("expected cgroup directory \"%s\"", dir)
	}
	if err != nil {
		return nil, err
	}
	return &Hierarchy{dir: dir}, f.Close()
}

// Dir is the directory of the cgroup.
func (h *Hierarchy) Dir() string { return h.dir }

// Controllers lists what groups below can be limited by, such as "memory" and "pids".
func (h *Hierarchy) Controllers() ([]string, error) { return h.words("cgroup.controllers") }

func (h *Hierarchy) words(file string) ([]string, error) {
	text, err := os.ReadFile(filepath.Join(h.dir, file))
	return strings.Fields(string(text)), err
}

// Enter moves processes into the leaf of that name, made when missing. Afterwards the Hierarchy's own cgroup can
// give controllers to the groups below: the kernel wants processes in leaves only.
func (h *Hierarchy) Enter(name string, pids ...int) error {
	path := filepath.Join(h.dir, name)
	if err := unix.Mkdir(path, 0o755); err != nil && err != unix.EEXIST {
		return fmt.Errorf("creating cgroup '%s': %w", path, err)
	}
	for _, pid := range pids {
		if err := os.WriteFile(filepath.Join(path, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
			return fmt.Errorf("enter cgroup '%s': %w", path, err)
		}
	}
	return nil
}

// Limits bound what all processes of a build together may use. Zero is no limit.
type Limits struct {
	// Memory is in bytes, as the kernel counts: with page cache and kernel memory. A build that wants more is killed.
	Memory uint64
	// Processes is how many processes and threads there may be at once. Making more fails.
	Processes uint64
}

// enable has the groups below get the controllers that the limits need.
func (h *Hierarchy) enable(l Limits) error {
	var needed []string
	if l.Memory > 0 {
		needed = append(needed, "memory")
	}
	if l.Processes > 0 {
		needed = append(needed, "pids")
	}
	if len(needed) == 0 {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	have, err := h.words("cgroup.controllers")
	if err != nil {
		return err
	}
	enabled, err := h.words(subtreeControl)
	if err != nil {
		return err
	}
	for _, c := range needed {
		switch {
		case slices.Contains(enabled, c):
			continue
		case !slices.Contains(have, c):
			return fmt.Errorf("limit builds: the cgroup \"%s\" does not have the controller '%s'", h.dir, c)
		}
		if err := os.WriteFile(filepath.Join(h.dir, subtreeControl), []byte("+"+c), 0); err != nil {
			return fmt.Errorf("limit builds: enable controller '%s': %w", c, err)
		}
	}
	return nil
}

// UserName is the name of the group of a build user.
func UserName(uid uint32) string { return userPrefix + strconv.FormatUint(uint64(uid), 10) }

// Both are upstream's.
const (
	userPrefix = "nix-build-uid-"
	pidPrefix  = "nix-build-pid-"
)

// CreateNext makes a group named by this process and a number, for a build that has no user of its own.
func (h *Hierarchy) CreateNext(o Options) (*Group, error) {
	for {
		g, err := h.Create(pidPrefix+strconv.Itoa(os.Getpid())+"-"+strconv.FormatUint(h.counter.Add(1)-1, 10), o)
		// Somebody else's process of the same number, in another process namespace.
		if !errors.Is(err, unix.EEXIST) {
			return g, err
		}
	}
}

// Sweep destroys the groups that dead daemons have left behind: those named by a process that is no more, or by our own
// number although nobody holds them. Groups of build users are left to [Records].
func (h *Hierarchy) Sweep() error {
	entries, err := os.ReadDir(h.dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		pid, ok := namedPid(e.Name())
		if !ok || !e.IsDir() || pid != os.Getpid() && unix.Kill(pid, 0) != unix.ESRCH {
			continue
		}
		g, err := openLocked(filepath.Join(h.dir, e.Name()))
		if err == unix.EWOULDBLOCK || errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err == nil {
			_, err = g.Destroy()
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// namedPid reads nix-build-pid-<pid>-<n>.
func namedPid(name string) (int, bool) {
	rest, ok := strings.CutPrefix(name, pidPrefix)
	first, _, dash := strings.Cut(rest, "-")
	pid, err := strconv.ParseInt(first, 10, 32)
	return int(pid), ok && dash && err == nil && pid > 0
}
