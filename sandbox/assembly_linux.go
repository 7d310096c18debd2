package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"nixdaemon/sandbox/internal/child"
	"nixdaemon/sandbox/internal/plan"
)

// Assemble mounts binds below dir, where only its copies show them. root is an existing directory for it to work on,
// nobody else's. user and ids are those of the builders to come: who makes the mounts decides who may have copies.
func (l *Launcher) Assemble(dir, root string, binds []Bind, user *User, ids *IDMap) (*Assembly, error) {
	if err := l.enter(); err != nil {
		return nil, fmt.Errorf("assemble '%s': %w", dir, err)
	}
	defer l.processes.Done()
	a, err := l.isolator.assemble(&l.forker, dir, root, binds, user, ids)
	if err != nil {
		return nil, fmt.Errorf("assemble '%s': %w", dir, err)
	}
	return a, nil
}

func (i *isolator) assemble(f *forker, dir, root string, binds []Bind, user *User, ids *IDMap) (*Assembly, error) {
	in := &plan.Input{UserNamespace: -1, Privileged: os.Geteuid() == 0, Outside: outsideIDs(user)}
	if !in.Privileged {
		if err := i.mapIDs(f, in, ids); err != nil {
			return nil, err
		}
	}
	work := plan.Assembly{Dir: dir, Root: root, UserNamespace: in.UserNamespace, Entries: make([]plan.Entry, len(binds))}
	for n, b := range binds {
		if !b.valid() {
			return nil, fmt.Errorf("mount '%s' on '%s': %w", b.Source, b.Name, unix.EINVAL)
		}
		work.Entries[n] = plan.Entry{Kind: plan.BindDir, Target: b.Name, Source: b.Source}
		if b.File {
			work.Entries[n].Kind = plan.BindFile
		}
	}
	t, err := f.thread(plainThread)
	if err != nil {
		return nil, err
	}
	image := child.NewImage(plan.Assemble(work))
	defer image.Close()
	// The child shares the daemon's descriptors, to leave one there.
	pid, err := t.do(func() (int, error) { return image.Start(unix.CLONE_FILES) })
	if err != nil {
		return nil, err
	}
	pid, failure := image.Finish(pid)
	status := unix.WaitStatus(0)
	if failure == nil {
		status = child.Reap(pid)
	}
	kept := image.Kept()
	// A namespace whose maker was killed may have anything as its root still.
	switch {
	case failure == nil && kept > 0 && status == 0:
		return &Assembly{kept}, nil
	case kept > 0:
		unix.Close(kept)
	}
	if failure == nil {
		return nil, errors.New("its process was killed")
	}
	return nil, &stepError{failure.Step, failure.Errno}
}

func (b *Bind) valid() bool {
	return b.Name != "" && b.Name != "." && b.Name != ".." && !strings.ContainsAny(b.Name, "/\x00") &&
		filepath.IsAbs(b.Source) && !strings.ContainsRune(b.Source, 0)
}

// Close lets the mounts go that nobody has.
func (a *Assembly) Close() error { return unix.Close(a.mounts) }
