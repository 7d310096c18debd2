package build

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"nixdaemon/localstore"
)

// buildDir is the directory in which one builder works. Its parent must be writable by the daemon alone.
type buildDir struct {
	// top is what is made and deleted. path is where the builder works: top itself, or, if it is isolated, a directory
	// in it: then nobody else can enter top, whoever they are. inside is what the builder calls path.
	top, path, inside string
	fd                int // of path
	store             *localstore.Store
	// foreign is true when the builder runs as somebody else.
	foreign bool
}

// makeBuildDir makes a directory that nobody but the builder can enter, and gives it to the builder.
func (a *attempt) makeBuildDir() (_ *buildDir, err error) {
	parent := a.set.BuildDir
	if parent == "" {
		parent = filepath.Join(a.store.StateDir(), "builds")
	}
	uid, gid := a.owner()
	d := &buildDir{fd: -1, store: a.store, foreign: a.user != nil}
	if d.top, err = a.createBuildDir(parent); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.close(false))
		}
	}()
	if d.foreign {
		if err := checkNotWorldWritable(parent); err != nil {
			return nil, err
		}
	}
	d.path, d.inside = d.top, d.top
	switch {
	case a.isolated:
		d.path, d.inside = d.top+"/build", a.set.SandboxBuildDir
	case a.external != nil:
		d.path, d.inside = d.top+"/build", externalBuildDir
	}
	if d.path != d.top {
		if err := unix.Mkdir(d.path, 0o700); err != nil {
			return nil, fmt.Errorf("creating directory %s: %w", quotedPath(d.path), err)
		}
	}
	if d.fd, err = unix.Open(d.path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return nil, fmt.Errorf("open build directory '%s': %w", d.path, err)
	}
	if d.foreign {
		if err := unix.Fchown(d.fd, uid, gid); err != nil {
			return nil, fmt.Errorf("cannot change ownership of %s: %w", quotedPath(d.path), err)
		}
	}
	return d, nil
}

// createBuildDir finds a name that is free: another process may have left its directories behind.
func (a *attempt) createBuildDir(parent string) (string, error) {
	made := false
	for {
		path := parent + "/nix-" + strconv.Itoa(os.Getpid()) + "-" + strconv.FormatUint(uint64(a.dirs.Add(1)), 10)
		err := unix.Mkdir(path, 0o700)
		switch {
		case err == nil:
			return path, nil
		case err == unix.ENOENT && !made:
			made = true
			if err := os.MkdirAll(parent, 0o755); err != nil {
				return "", err
			}
		case err != unix.EEXIST:
			return "", fmt.Errorf("creating directory %s: %w", quotedPath(path), err)
		}
	}
}

// checkNotWorldWritable refuses a directory that others could tamper with, or that is reached through a link.
func checkNotWorldWritable(path string) error {
	for {
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return fmt.Errorf("getting status of '%s': %w", path, err)
		}
		if st.Mode&unix.S_IWOTH != 0 {
			return errorf("Path %s is world-writable or a symlink. That's not allowed for security.", quotedPath(path))
		}
		parent := filepath.Dir(path)
		if parent == path {
			return nil
		}
		path = parent
	}
}

// writeFile makes a file for the builder. The name is one component; nothing of that name may exist, so that what a
// builder of the same user could have prepared is never written through.
func (a *attempt) writeFile(name, contents string, mode uint32) error {
	if name == "" || name == "." || name == ".." || filepath.Base(name) != name {
		return fmt.Errorf("invalid file name '%s' in build directory", name)
	}
	path := a.tmp.path + "/" + name
	fd, err := unix.Openat(a.tmp.fd, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode)
	if err != nil {
		return fmt.Errorf("creating file %s: %w", quotedPath(path), err)
	}
	f := os.NewFile(uintptr(fd), path)
	_, err = f.WriteString(contents)
	if a.user != nil && err == nil {
		uid, gid := a.owner()
		err = f.Chown(uid, gid)
	}
	return errors.Join(err, f.Close())
}

// close removes the directory, or leaves it to those who want to see why a build failed.
func (d *buildDir) close(keep bool) error {
	var err error
	if d.fd >= 0 {
		// No process that still has a way into the directory shall find anything there while it is deleted.
		// As the same user it could undo this, so then it is pointless.
		switch {
		case keep:
			err = d.open()
		case d.foreign:
			err = unix.Fchmod(d.fd, 0)
		}
		err = errors.Join(err, unix.Close(d.fd))
		d.fd = -1
	}
	if keep {
		return err
	}
	if d.top != d.path && unix.Rmdir(d.path) == nil {
		if topErr := ignoreNotExist(unix.Rmdir(d.top)); topErr != unix.ENOTEMPTY {
			return errors.Join(err, topErr)
		}
	}
	return errors.Join(err, removeTree(d.store, d.top))
}

func ignoreNotExist(err error) error {
	if err == unix.ENOENT {
		return nil
	}
	return err
}

// open lets everybody in. The parent of the top directory is the daemon's, so no link has taken its place.
func (d *buildDir) open() error {
	err := unix.Fchmod(d.fd, 0o755)
	if d.top != d.path {
		err = errors.Join(err, os.Chmod(d.top, 0o755))
	}
	return err
}

func (a *attempt) removeTree(path string) error { return removeTree(a.store, path) }
