package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Options are what a [Group] is made with. The zero value has no limits and no owner but the daemon.
type Options struct {
	Limits Limits
	// Owner may divide the group further, as init systems do within a build. Nil means nobody.
	Owner *Owner
}

// Owner is a user and a group.
type Owner struct{ UID, GID uint32 }

// Group is the cgroup of one build. It is held, and locked, until Destroy.
type Group struct {
	path string
	dir  *os.File
}

// What a builder can make of its group is bounded, so that destroying it is.
const (
	maxDepth       = 32
	maxDescendants = 10000
)

// Create makes a group of that name, which must not exist. The error for that is EEXIST.
func (h *Hierarchy) Create(name string, o Options) (_ *Group, err error) {
	adopted := h.adopted.Load()
	if !adopted {
		if err := h.enable(o.Limits); err != nil {
			return nil, err
		}
	}
	path := filepath.Join(h.dir, name)
	if err := unix.Mkdir(path, 0o755); err != nil {
		return nil, fmt.Errorf("creating cgroup \"%s\": %w", path, err)
	}
	g, err := openLocked(path)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("creating cgroup \"%s\": %w", path, err), unix.Rmdir(path))
	}
	if adopted {
		// Without controllers: whoever adopts the Hierarchy next finds the group, since that was made before, and limits it.
		err = g.limitAgain(o.Limits)
	} else {
		err = g.limit(o.Limits)
	}
	if err := errors.Join(err, g.prepare(o)); err != nil {
		_, destroyErr := g.Destroy()
		return nil, errors.Join(err, destroyErr)
	}
	return g, nil
}

// prepare gives the group to its owner.
func (g *Group) prepare(o Options) error {
	if o.Owner == nil {
		return nil
	}
	for _, s := range []setting{{file: "cgroup.max.depth", value: maxDepth}, {file: "cgroup.max.descendants", value: maxDescendants}} {
		if err := s.write(g.dir); err != nil {
			return err
		}
	}
	for _, name := range []string{".", "cgroup.procs", "cgroup.threads"} {
		if err := unix.Fchownat(int(g.dir.Fd()), name, int(o.Owner.UID), int(o.Owner.GID), 0); err != nil {
			return fmt.Errorf("cannot change ownership of \"%s\": %w", filepath.Join(g.path, name), err)
		}
	}
	return nil
}

// Path is the directory of the group.
func (g *Group) Path() string { return g.path }

// Dir is the group's open directory, for starting a process in it. It is closed by Destroy.
func (g *Group) Dir() *os.File { return g.dir }

// Stats returns what the processes of the group have used so far, those that are gone included.
func (g *Group) Stats() (Stats, error) { return readStats(g.dir) }

// Destroy kills whatever is in the group, removes it and returns what it has used. A group that cannot be removed is
// given up: its lock is released too.
func (g *Group) Destroy() (Stats, error) {
	defer g.dir.Close()
	if err := Clear(g.dir); err != nil {
		return Stats{}, err
	}
	stats, err := g.Stats()
	return stats, errors.Join(err, g.remove())
}

func (g *Group) remove() error {
	if err := removeBelow(g.dir, 0); err != nil {
		return err
	}
	if err := removeEmpty(unix.AT_FDCWD, g.path); err != nil {
		return fmt.Errorf("deleting cgroup \"%s\": %w", g.path, err)
	}
	return nil
}

// openLocked opens a group and takes its lock. The error is EWOULDBLOCK when somebody else has it.
func openLocked(path string) (*Group, error) {
	dir, err := openGroup(path)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		dir.Close()
		return nil, err
	}
	return &Group{path: path, dir: dir}, nil
}

// openGroup opens the directory of a cgroup.
func openGroup(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil || int64(st.Type) != superMagic {
		f.Close()
		return nil, errors.Join(err, fmt.Errorf("\"%s\" is not a cgroup", path))
	}
	return f, nil
}
