package fstree

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

const openDirFlags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC

// Dir is an open directory. Its methods may be called from any goroutine; entries are named by one component.
type Dir struct {
	fd   int
	path string // for messages

	dumpers sync.Pool    // of *dumper, for their buffers
	sums    sync.Pool    // of *fileSum, likewise
	batches sync.Pool    // of *fileBatch, likewise
	parsers sync.Pool    // of *nar.Parser, likewise
	created createdModes // of files restored beneath

	measurers   sync.Pool // of *measurer, likewise
	lists       listers
	optimisings sync.Pool // of *optimising, likewise
}

// OpenDir opens a directory. Links in the path are followed, except in its last component.
func OpenDir(path string) (*Dir, error) {
	fd, err := openat(unix.AT_FDCWD, path, openDirFlags, 0)
	if err != nil {
		return nil, fmt.Errorf("opening directory \"%s\": %w", path, err)
	}
	return &Dir{fd: fd, path: path}, nil
}

// OpenRoot opens the directory of a store. Links are followed in the last component too,
// for the store may be one where the settings allow it.
func OpenRoot(path string) (*Dir, error) {
	fd, err := openat(unix.AT_FDCWD, path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("opening directory \"%s\": %w", path, err)
	}
	return &Dir{fd: fd, path: path}, nil
}

// Open opens a directory within d.
func (d *Dir) Open(name string) (*Dir, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	fd, err := openat(d.fd, name, openDirFlags, 0)
	if err != nil {
		return nil, d.wrap("opening directory", name, err)
	}
	return &Dir{fd: fd, path: filepath.Join(d.path, name)}, nil
}

// Close closes the directory. Nothing may be done with it afterwards.
func (d *Dir) Close() error {
	fd := d.fd
	d.fd = -1
	return unix.Close(fd)
}

// FD is the directory's descriptor, valid until Close.
func (d *Dir) FD() int { return d.fd }

// Path is where the directory was opened.
func (d *Dir) Path() string { return d.path }

// Same tells whether the directory's path still leads to it.
func (d *Dir) Same() bool {
	var open, named unix.Stat_t
	return unix.Fstat(d.fd, &open) == nil && unix.Stat(d.path, &named) == nil &&
		open.Dev == named.Dev && open.Ino == named.Ino
}

// Exists tells whether there is anything of that name.
func (d *Dir) Exists(name string) (bool, error) {
	var st unix.Stat_t
	switch err := fstatat(d.fd, name, &st); {
	case err == nil:
		return true, nil
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	default:
		return false, d.wrap("getting status of", name, err)
	}
}

// Names lists the directory, without "." and "..", in no order.
func (d *Dir) Names() (names []string, err error) {
	err = d.EachName(func(name string) { names = append(names, name) })
	return names, err
}

// EachName calls visit for each name of the directory, without "." and "..", in no order. It holds few names at a time,
// and visit should keep few: each keeps some others in memory, too.
func (d *Dir) EachName(visit func(name string)) error {
	fd, err := openat(d.fd, ".", openDirFlags, 0)
	if err != nil {
		return fmt.Errorf("opening directory \"%s\": %w", d.path, err)
	}
	defer unix.Close(fd)
	l := d.lists.borrow()
	defer d.lists.giveBack(l)
	if err := l.each(fd, func(e *entry) { visit(e.name) }); err != nil {
		return fmt.Errorf("reading directory \"%s\": %w", d.path, err)
	}
	return nil
}

// Mkdir makes a directory, which must not exist.
func (d *Dir) Mkdir(name string, mode uint32) error {
	if err := checkName(name); err != nil {
		return err
	}
	if err := retry(func() error { return unix.Mkdirat(d.fd, name, mode) }); err != nil {
		return d.wrap("creating directory", name, err)
	}
	return nil
}

// Sync makes the directory's entries durable.
func (d *Dir) Sync() error {
	if err := retry(func() error { return fsync(d.fd) }); err != nil {
		return fmt.Errorf("synchronising directory \"%s\": %w", d.path, err)
	}
	return nil
}

func (d *Dir) join(name string) string { return d.path + "/" + name }

func (d *Dir) wrap(verb, name string, err error) error {
	return fmt.Errorf("%s \"%s\": %w", verb, d.join(name), err)
}

// checkName refuses what is not one component: the safety of every operation rests on it.
func checkName(name string) error {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return fmt.Errorf("use '%s' as a file name: %w", name, fs.ErrInvalid)
	}
	return nil
}

func retry(f func() error) error {
	for {
		if err := f(); err != unix.EINTR {
			return err
		}
	}
}

func openat(dir int, name string, flags int, mode uint32) (int, error) {
	for {
		fd, err := unix.Openat(dir, name, flags, mode)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

func fstatat(dir int, name string, st *unix.Stat_t) error {
	return retry(func() error { return unix.Fstatat(dir, name, st, unix.AT_SYMLINK_NOFOLLOW) })
}

func fstat(fd int, st *unix.Stat_t) error {
	return retry(func() error { return unix.Fstat(fd, st) })
}

func isType(mode uint32, kind uint32) bool { return mode&unix.S_IFMT == kind }

// InheritsACL tells whether what is made in the directory gets access control lists from it.
func (d *Dir) InheritsACL() bool { return hasDefaultACL(d.fd) }
