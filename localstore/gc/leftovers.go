package gc

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"nixdaemon/localstore/internal/fstree"
	"nixdaemon/localstore/pathlock"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/storepath"
)

// leftovers is what the store directory has.
type leftovers struct {
	root *fstree.Dir // the store directory; nil if it was not looked at
	// nodes are the store paths, valid or not.
	nodes []int32
	// junk are names that no store path can have.
	junk []string
}

// listStore gives every store path a node and collects the rest.
func (r *run) listStore(g *graph) (leftovers, error) {
	root, err := fstree.OpenRoot(r.o.Store.RealDir())
	if err != nil {
		return leftovers{}, err
	}
	left := leftovers{root: root, nodes: make([]int32, 0, g.valid)}
	err = root.EachName(func(name string) {
		if name == linksName {
			return
		}
		if n, valid := g.rows.Node(name); valid {
			left.nodes = append(left.nodes, n)
		} else if p, err := storepath.ParseBase(strings.Clone(name)); err == nil {
			left.nodes = append(left.nodes, g.add(p))
		} else {
			left.junk = append(left.junk, strings.Clone(name))
		}
	})
	if err != nil {
		root.Close()
		return leftovers{}, err
	}
	slices.Sort(left.junk)
	return left, nil
}

func (l *leftovers) close() {
	if l.root != nil {
		l.root.Close()
	}
}

// names prints the junk that could be deleted now.
func (l *leftovers) names(dir storepath.Dir) []string {
	var out []string
	for _, name := range l.junk {
		if use, err := l.claim(name); err == nil && use != nil {
			use.release()
			out = append(out, string(dir)+"/"+name)
		}
	}
	return out
}

// hashPartOf gives the hash part of a store path that the name begins with, or "". The names of lock files and the
// like can be too long for store paths.
func hashPartOf(name string) string {
	if len(name) > storepath.HashLen && name[storepath.HashLen] == '-' &&
		nixhash.IndexNotNix32(name[:storepath.HashLen]) < 0 {
		return name[:storepath.HashLen]
	}
	return ""
}

// inUse is a file of which other processes can be sure while they hold a lock on it.
type inUse struct {
	file     *os.File // nil for what needs no lock
	lockFile bool
}

func (u *inUse) release() {
	if u.file != nil {
		u.file.Close()
	}
}

// claim locks what its users lock: temporary directories, and the lock files of paths. It gives nil if somebody has it.
func (l *leftovers) claim(name string) (*inUse, error) {
	switch {
	case strings.HasPrefix(name, "tmp-"):
		use, err := l.lock(name, unix.O_RDONLY|unix.O_DIRECTORY)
		if isKind(err) {
			return nil, nil // as upstream: no temporary directory of a store is of that kind
		}
		return use, err
	case strings.HasPrefix(name, pathlock.OwnPrefix):
		// Never marked: it may be a path's lock file, too, whose name would lead to a stale file for ever.
		use, err := l.lock(name, unix.O_RDWR)
		if isKind(err) {
			return &inUse{}, nil
		}
		return use, err
	case strings.HasSuffix(name, ".lock") && l.isLockFile(name):
		use, err := l.lock(name, unix.O_RDWR)
		if use != nil {
			// The name may have become another file's meanwhile.
			var st unix.Stat_t
			err := unix.Fstat(int(use.file.Fd()), &st)
			use.lockFile = err == nil && isLockFile(&st)
		}
		if isKind(err) {
			return &inUse{}, nil
		}
		return use, err
	}
	return &inUse{}, nil
}

// isLockFile tells lock files from the contents of store paths, which are called Cargo.lock and the like: those are
// never empty and writable, and must not be written to, for they may have other names in .links.
func (l *leftovers) isLockFile(name string) bool {
	var st unix.Stat_t
	return unix.Fstatat(l.root.FD(), name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && isLockFile(&st)
}

func isLockFile(st *unix.Stat_t) bool { return st.Mode&0o200 != 0 && pathlock.Usable(st) }

// isKind tells whether something could not be opened because it is of another kind, or gone.
func isKind(err error) bool {
	for _, errno := range []unix.Errno{unix.ENOTDIR, unix.EISDIR, unix.ELOOP, unix.ENXIO, unix.ENOENT, unix.EACCES} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

func (l *leftovers) lock(name string, flags int) (*inUse, error) {
	fd, err := unix.Openat(l.root.FD(), name, flags|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open \"%s/%s\": %w", l.root.Path(), name, err)
	}
	file := os.NewFile(uintptr(fd), name)
	if ours, err := pathlock.TryFlock(file, pathlock.Exclusive); !ours || err != nil {
		file.Close()
		return nil, err
	}
	return &inUse{file: file}, nil
}

// mark tells those that wait for a lock file that it is gone.
func (u *inUse) mark() error {
	if !u.lockFile {
		return nil
	}
	if _, err := u.file.WriteAt([]byte("d"), 0); err != nil {
		return fmt.Errorf("mark lock file %s: %w", u.file.Name(), err)
	}
	return nil
}
