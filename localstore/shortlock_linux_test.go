package localstore

import (
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"nixdaemon/localstore/internal/fstree"
	"nixdaemon/localstore/pathlock"
)

// TestShortLockBindMount: a store that is mounted upon itself, as on NixOS, takes no links from beyond.
func TestShortLockBindMount(t *testing.T) {
	if unix.Geteuid() != 0 {
		t.Skip("only root may mount")
	}
	plain, state := lockDirs(t)
	skipped := make(chan error, 1)
	go func() {
		defer close(skipped)
		runtime.LockOSThread() // and never unlocked: the thread ends with its mounts
		if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
			skipped <- err
			return
		}
		for _, m := range []struct {
			dir   string
			flags uintptr
		}{{"/", unix.MS_REC | unix.MS_PRIVATE}, {plain.Path(), unix.MS_BIND}} {
			if err := unix.Mount(m.dir, m.dir, "", m.flags, ""); err != nil {
				skipped <- err
				return
			}
		}
		root, err := fstree.OpenRoot(plain.Path())
		if err != nil {
			t.Error(err)
			return
		}
		defer root.Close()
		l := newShortLocks(root, state)
		for _, path := range []string{"a", "b"} {
			f, err := l.lock(ctx, path, true)
			if f == nil || err != nil {
				t.Error(f, err)
				return
			}
			if err := l.unlock(path, f); err != nil {
				t.Error(err)
			}
			names, err := root.Names()
			if len(names) != 1 || !strings.HasPrefix(names[0], pathlock.OwnPrefix) || err != nil {
				t.Error(names, err)
			}
		}
		if err := l.close(); err != nil {
			t.Error(err)
		}
		if names, err := root.Names(); len(names) != 0 || err != nil {
			t.Error("left: ", names, err)
		}
	}()
	if err := <-skipped; err != nil {
		t.Skip("cannot have mounts of our own: ", err)
	}
}
