package build

import (
	"context"
	"errors"
	"os"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"nixdaemon/localstore"
)

// removeTries bounds how often a tree is deleted that somebody keeps changing: each time less of it is left.
const removeTries = 64

// otherTries is how often that is done when the error does not look like somebody's doing.
const otherTries = 8

// removeTree deletes what is at path, if anything is. It goes on after the build was given up.
//
// Somebody who was given a descriptor by a builder may be making, moving and exchanging things meanwhile. So the
// directories that are left are taken from their owner before the next try, as far as the daemon can.
func removeTree(store *localstore.Store, path string) error {
	// What is mostly there is nothing, or an empty directory.
	if err := unix.Rmdir(path); err == nil || err == unix.ENOENT {
		return nil
	}
	var err error
	for try := range removeTries {
		if _, err = store.DeleteTree(context.Background(), path); err == nil || try >= otherTries && !isDisturbed(err) {
			break
		}
		seizeAt(unix.AT_FDCWD, path, 0)
	}
	return err
}

// disturbances are what system calls answer when names do not lead any more to what they led to a moment ago.
var disturbances = []syscall.Errno{unix.ENOTEMPTY, unix.EEXIST, unix.ENOENT, unix.ENOTDIR, unix.EISDIR, unix.ELOOP, unix.EXDEV, unix.EAGAIN}

func isDisturbed(err error) bool {
	return slices.ContainsFunc(disturbances, func(errno syscall.Errno) bool { return errors.Is(err, errno) })
}

// seizeDepth bounds the descriptors held. What is deeper is moved upwards by who deletes it.
const seizeDepth = 64

// seizeAt makes a directory, and those in it, the daemon's alone. Whoever is the daemon's own user can undo that, and
// what cannot be seized is for the next try.
func seizeAt(dir int, name string, depth int) {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	if os.Geteuid() == 0 {
		unix.Fchown(fd, 0, 0)
	}
	if unix.Fchmod(fd, 0o700) != nil || depth >= seizeDepth {
		return
	}
	entries, _ := f.ReadDir(-1)
	for _, e := range entries {
		if e.IsDir() {
			seizeAt(fd, e.Name(), depth+1)
		}
	}
}
