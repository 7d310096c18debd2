package builtin

import (
	"errors"
	"io"
	"os"
	"path"
	"path/filepath"

	"golang.org/x/sys/unix"

	"nixdaemon/protocol/nar"
)

// restorer makes the tree of an archive at a path where nothing is. It opens one directory at a time and follows no
// links.
type restorer struct {
	root string // absolute
	dirs []restoredDir
}

type restoredDir struct {
	fd   int
	path string // for messages
}

var _ nar.Handler = (*restorer)(nil)

// restore makes the tree that r has the archive of. What comes after the archive is not read.
func restore(root string, r io.Reader) error {
	re := &restorer{root: root}
	err := nar.Parse(r, re)
	for len(re.dirs) > 0 {
		err = errors.Join(err, re.EndDirectory())
	}
	return err
}

// at is where a node goes: a directory to make it in (the current one for the root, whose name is absolute), its name,
// and the whole path.
func (re *restorer) at(name string) (fd int, at, whole string) {
	if len(re.dirs) == 0 {
		return unix.AT_FDCWD, re.root, re.root
	}
	dir := re.dirs[len(re.dirs)-1]
	return dir.fd, name, dir.path + "/" + name
}

// Directory begins a directory.
func (re *restorer) Directory(name string) error {
	parent, name, whole := re.at(name)
	if err := unix.Mkdirat(parent, name, 0o777); err != nil {
		if err == unix.EEXIST && len(re.dirs) == 0 {
			return failf("path '%s' already exists", whole)
		}
		return sysFailf(err, "creating directory %s", quoted(whole))
	}
	fd, err := openDirAt(parent, name)
	if err != nil {
		return sysFailf(err, "opening directory %s", quoted(whole))
	}
	re.dirs = append(re.dirs, restoredDir{fd, whole})
	return nil
}

// EndDirectory ends the directory begun last.
func (re *restorer) EndDirectory() error {
	last := len(re.dirs) - 1
	fd := re.dirs[last].fd
	re.dirs = re.dirs[:last]
	return os.NewSyscallError("close", unix.Close(fd))
}

// Regular makes a file.
func (re *restorer) Regular(name string, executable bool, _ uint64, contents io.Reader) error {
	parent, name, whole := re.at(name)
	mode := uint32(0o666)
	if executable {
		mode = 0o777
	}
	fd, err := unix.Openat(parent, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode)
	if err != nil {
		return sysFailf(err, "creating file %s", quoted(whole))
	}
	f := os.NewFile(uintptr(fd), whole)
	if _, err = io.Copy(f, contents); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// Symlink makes a link.
func (re *restorer) Symlink(name, target string) error {
	parent, name, whole := re.at(name)
	if err := unix.Symlinkat(target, parent, name); err != nil {
		return sysFailf(err, "creating symlink from %s -> '%s'", quoted(whole), target)
	}
	return nil
}

// removeTree removes what an attempt has left at an output.
func removeTree(p string) error {
	// Through the parent, so that nothing but what is called p can go.
	root, err := os.OpenRoot(filepath.Dir(p))
	if err != nil {
		return err
	}
	defer root.Close()
	return root.RemoveAll(path.Base(p))
}
