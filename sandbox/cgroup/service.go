package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// control is the cgroup in which systemd runs what it starts beside a service's main process.
const control = ".control"

// Service finds the cgroup of the service of systemd that this process belongs to, nil if it belongs to none: that of
// the process, or the one above if this is the leaf of that name (which [Hierarchy.Enter] makes).
func Service(leaf string) (*Hierarchy, error) {
	h, err := Find()
	if err != nil {
		return nil, err
	}
	dir := serviceDir(h.dir, leaf)
	if dir == "" {
		return nil, nil
	}
	return At(dir)
}

// IsService tells whether the cgroup is that of a service of systemd.
func (h *Hierarchy) IsService() bool { return serviceDir(h.dir, "") == h.dir }

func serviceDir(dir, leaf string) string {
	if base := filepath.Base(dir); base == leaf || base == control {
		dir = filepath.Dir(dir)
	}
	if !strings.HasSuffix(dir, ".service") {
		return ""
	}
	return dir
}

// Adopt has the cgroup of a service give the controllers that the limits need, and sets the limits of the builds that
// have none: those that go on from the daemon before, and had to lose them for this one to start (see Release). Whoever is
// in the cgroup itself, as are builders of a daemon that used no cgroups, is moved into the leaf of that name.
//
// From then on Create does not enable controllers: between Release and the next Adopt nobody may.
func (h *Hierarchy) Adopt(l Limits, leaf string) error {
	if err := h.take(l, leaf); err != nil {
		return err
	}
	h.adopted.Store(true)
	entries, err := os.ReadDir(h.dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if !e.IsDir() || !strings.HasPrefix(e.Name(), userPrefix) && !strings.HasPrefix(e.Name(), pidPrefix) {
			continue
		}
		dir, err := openGroup(filepath.Join(h.dir, e.Name()))
		if errors.Is(err, os.ErrNotExist) {
			continue // it has ended meanwhile
		}
		if err == nil {
			err = errors.Join((&Group{dir: dir}).limitAgain(l), dir.Close())
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// take enables controllers. What is moved may have had a child meanwhile, so it is tried again for a moment.
func (h *Hierarchy) take(l Limits, leaf string) error {
	for delay := time.Millisecond; ; delay *= 2 {
		if err := h.empty(leaf); err != nil {
			return err
		}
		err := h.enable(l)
		if !errors.Is(err, unix.EBUSY) || delay > time.Second {
			return err
		}
		time.Sleep(delay)
	}
}

// empty moves the processes of the cgroup itself into a leaf.
func (h *Hierarchy) empty(leaf string) error {
	pids, err := h.words("cgroup.procs")
	if err != nil || len(pids) == 0 {
		return err
	}
	path := filepath.Join(h.dir, leaf)
	if err := unix.Mkdir(path, 0o755); err != nil && err != unix.EEXIST {
		return fmt.Errorf("creating cgroup '%s': %w", path, err)
	}
	for _, pid := range pids {
		err := os.WriteFile(filepath.Join(path, "cgroup.procs"), []byte(pid), 0)
		if err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("move process %s to cgroup '%s': %w", pid, path, err)
		}
	}
	return nil
}

// Release takes all controllers from the groups below, and with them their limits. The kernel lets no process into a
// cgroup that gives controllers to others, so that systemd could not start the next daemon while builds go on.
func (h *Hierarchy) Release() error {
	enabled, err := h.words(subtreeControl)
	if err != nil {
		return err
	}
	var errs []error
	for _, c := range enabled {
		if err := os.WriteFile(filepath.Join(h.dir, subtreeControl), []byte("-"+c), 0); err != nil {
			errs = append(errs, fmt.Errorf("disable controller '%s': %w", c, err))
		}
	}
	return errors.Join(errs...)
}
