package sandbox

import (
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"nixdaemon/sandbox/internal/child"
	"nixdaemon/sandbox/internal/plan"
)

// userNamespaces keeps one user namespace for each mapping of one id, that is, for each build user. A namespace maps ids
// and nothing more: a builder enters it without any privilege in it, and none of what a build leaves behind is bound to
// it but keys, which the system call filter keeps builders away from. One with a range of ids, where the builder is root,
// is never kept. The zero value is ready.
type userNamespaces struct {
	// Guarded by mu.
	mu   sync.Mutex
	open map[idMap]int
}

// idMap maps count ids from inside on to those from outside on.
type idMap struct {
	outside, inside plan.IDs
	count           uint32
}

// keepNamespaces bounds how many stay open: more than any group of build users has members.
const keepNamespaces = 1024

func (u *userNamespaces) get(f *forker, m idMap) (int, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if fd, ok := u.open[m]; ok {
		return fd, nil
	}
	fd, err := makeUserNamespace(f, m)
	if err != nil {
		return -1, fmt.Errorf("make user namespace: %w", err)
	}
	if u.open == nil || len(u.open) >= keepNamespaces {
		u.forget()
		u.open = make(map[idMap]int)
	}
	u.open[m] = fd
	return fd, nil
}

// forget closes all. A builder that was about to enter one of them fails to, and says so.
func (u *userNamespaces) forget() {
	for _, fd := range u.open {
		unix.Close(fd)
	}
	u.open = nil
}

func (u *userNamespaces) close() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.forget()
}

// makeUserNamespace has a child hold the namespace until its ids are mapped and its descriptor is open.
func makeUserNamespace(f *forker, m idMap) (int, error) {
	t, err := f.thread(plainThread)
	if err != nil {
		return -1, err
	}
	image := child.NewImage(plan.Sleep())
	pid, err := t.do(func() (int, error) { return image.Start(unix.CLONE_NEWUSER) })
	if err != nil {
		image.Close()
		return -1, err
	}
	defer func() {
		unix.Kill(pid, unix.SIGKILL)
		child.Reap(pid)
		image.Close()
	}()
	dir := fmt.Sprintf("/proc/%d/", pid)
	if m.count == 1 {
		// Whoever is no root has to give that up before mapping a group, and nobody needs it.
		if err := writeOnce(dir+"setgroups", "deny"); err != nil {
			return -1, err
		}
	}
	if err := writeOnce(dir+"uid_map", fmt.Sprintf("%d %d %d", m.inside.UID, m.outside.UID, m.count)); err != nil {
		return -1, err
	}
	if err := writeOnce(dir+"gid_map", fmt.Sprintf("%d %d %d", m.inside.GID, m.outside.GID, m.count)); err != nil {
		return -1, err
	}
	fd, err := unix.Open(dir+"ns/user", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open '%sns/user': %w", dir, err)
	}
	return fd, nil
}

// plainThread is for children that execute nothing.
var plainThread = attributes{allowNewPrivileges: true, keyrings: true}

func writeOnce(name, text string) error {
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	return err
}
