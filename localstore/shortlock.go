package localstore

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"nixdaemon/localstore/internal/fstree"
	"nixdaemon/localstore/pathlock"
)

// shortLocks takes path locks for moments, at a fraction of what a lock file of its own costs for each path.
//
// A lock file that is made and deleted for each path that is added costs two inodes' worth of work, and on some file
// systems worse: a deleted inode is not given out again for minutes, and all of them are looked at whenever a file is made.
// So a few files, which this process keeps locked, go round: to lock a path one is given the name of its lock file, as a
// hard link, and to free the path that name is deleted. To other processes they are what every lock file is: while one has
// the path's name the path is locked, and who waits for it finds it marked as deleted at the latest maxLockAge after
// it came up, and looks again.
//
// Within one request that adds many paths the files are renamed from path to path, which saves half of the work: the name
// of a path that was added stays until another path needs the file, or the request ends (settle).
//
// Each file has a name of its own, too, outside of the store where that is possible. (A bind mount of the store
// makes links impossible that cross its border, even within one file system.)
//
// Whoever wants to lock for longer uses the table of package pathlock. The two exclude each other by the files.
type shortLocks struct {
	root  *fstree.Dir // the store directory
	state string      // where to make the files first; empty for nowhere but in root

	mu     sync.Mutex
	held   map[string]chan struct{} // by path name; closed when the path is free
	parked []*fstree.LockFile       // locked by us, not in use
	timer  *time.Timer              // set while files are parked
	closed bool

	// Guards what follows.
	homeMu sync.Mutex
	home   *fstree.Dir // of new files: that of state, then root, then nil for the paths' own places
	looked bool        // home was chosen
	opened *fstree.Dir // that of state; nil if it was not opened
}

// maxLockAge is how long a lock file goes from path to path: as long may others wait in vain for one, if they happen to
// add the same path at the same moment.
const maxLockAge = 200 * time.Millisecond

// shortLocksName is the directory in the state directory where the files have their own names.
const shortLocksName = "nixdaemon-locks"

// newShortLocks makes lock files in the directory state, if it can.
func newShortLocks(root *fstree.Dir, state string) *shortLocks {
	return &shortLocks{root: root, state: state, held: make(map[string]chan struct{})}
}

// lock locks a path. It waits for others of this type alone, if wait is set; nil means that somebody else has it.
func (l *shortLocks) lock(ctx context.Context, path string, wait bool) (*fstree.LockFile, error) {
	for {
		busy := l.reserve(path)
		if busy == nil {
			break
		}
		if !wait {
			return nil, nil
		}
		select {
		case <-busy:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	file, err := l.open(path + lockSuffix)
	if file == nil {
		l.free(path)
	}
	return file, err
}

const lockSuffix = ".lock"

// reserve makes the path ours within the process, or gives what is closed when it is worth trying again.
func (l *shortLocks) reserve(path string) chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if busy := l.held[path]; busy != nil {
		return busy
	}
	l.held[path] = make(chan struct{})
	return nil
}

func (l *shortLocks) free(path string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.held[path])
	delete(l.held, path)
}

// open gives a locked file of that name, nil if there is one of somebody else.
func (l *shortLocks) open(name string) (*fstree.LockFile, error) {
	for {
		file, err := l.take(name)
		if err != nil || file == nil {
			// If that is not possible either, the error speaks of the path's own lock file.
			return l.root.CreateLockFile(name)
		}
		switch file.Linked() {
		case name:
			return file, nil
		case "":
			err = file.Link(l.root, name)
		default:
			err = file.Relink(name)
		}
		if err == nil {
			return file, nil
		}
		if errors.Is(err, fs.ErrExist) {
			return nil, l.park(file)
		}
		if !errors.Is(err, fstree.ErrReplaced) && !file.Gone() && !l.elsewhere(file.Home(), err) {
			return nil, errors.Join(err, file.Delete())
		}
		if err := file.Delete(); err != nil {
			return nil, err
		}
	}
}

// take gives a file that is not in use, the one of that name if there is; nil if there can be none.
func (l *shortLocks) take(name string) (*fstree.LockFile, error) {
	if file := l.unpark(name); file != nil {
		return file, nil
	}
	for {
		home := l.findHome()
		if home == nil {
			return nil, nil
		}
		file, err := home.CreateLockFile(ownLockName())
		if err != nil && home == l.root {
			return nil, err
		}
		if file != nil {
			return file, nil
		}
		if err != nil {
			l.leave(home)
		}
	}
}

// ownLockName is nobody else's.
func ownLockName() string {
	var b [12]byte
	rand.Read(b[:])
	return pathlock.OwnPrefix + hex.EncodeToString(b[:])
}

// findHome tells where files are made that are given links.
func (l *shortLocks) findHome() *fstree.Dir {
	l.homeMu.Lock()
	defer l.homeMu.Unlock()
	if l.looked {
		return l.home
	}
	l.looked, l.home = true, l.root
	if l.state == "" {
		return l.home
	}
	if err := os.Mkdir(l.state, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return l.home
	}
	dir, err := fstree.OpenDir(l.state)
	if err != nil {
		return l.home
	}
	l.home, l.opened = dir, dir
	sweepLockFiles(dir)
	return l.home
}

// sweepLockFiles deletes what processes have left that were killed. What cannot be deleted does no harm.
func sweepLockFiles(dir *fstree.Dir) {
	names, err := dir.Names()
	if err != nil {
		return
	}
	for _, name := range names {
		// Not marked: it may have a path's name, too, with which it would be stale for ever.
		dir.DeleteUnlocked(name)
	}
}

// elsewhere tells whether a link failed because there can be none between the home and the store: new files are
// made elsewhere then.
func (l *shortLocks) elsewhere(home *fstree.Dir, err error) bool {
	for _, errno := range []unix.Errno{unix.EXDEV, unix.EPERM, unix.EACCES, unix.EMLINK, unix.EOPNOTSUPP, unix.ENOSYS} {
		if errors.Is(err, errno) {
			l.leave(home)
			return true
		}
	}
	return false
}

// leave takes the next home instead of that one.
func (l *shortLocks) leave(home *fstree.Dir) {
	l.homeMu.Lock()
	defer l.homeMu.Unlock()
	switch {
	case home != l.home:
	case home == l.root:
		l.home = nil
	default:
		l.home = l.root
	}
}

func (l *shortLocks) unpark(name string) *fstree.LockFile {
	l.mu.Lock()
	defer l.mu.Unlock()
	last := len(l.parked) - 1
	if last < 0 {
		return nil
	}
	take := last
	for i, file := range l.parked {
		if file.Linked() == name {
			take = i
			break
		}
	}
	file := l.parked[take]
	l.parked[take] = l.parked[last]
	l.parked[last] = nil
	l.parked = l.parked[:last]
	return file
}

// unlock frees a path, whose lock file is gone afterwards.
func (l *shortLocks) unlock(path string, file *fstree.LockFile) error {
	defer l.free(path)
	if l.old(file) {
		return file.Delete()
	}
	if err := file.Unlink(); err != nil {
		return errors.Join(err, file.Delete())
	}
	return l.park(file)
}

// release frees a path for the time being: the lock file of that name may stay until settle is called.
func (l *shortLocks) release(path string, file *fstree.LockFile) error {
	defer l.free(path)
	if l.old(file) {
		return file.Delete()
	}
	return l.park(file)
}

// old tells whether a file must not go round any more, or cannot.
func (l *shortLocks) old(file *fstree.LockFile) bool {
	return file.Linked() == "" || time.Since(file.Born()) > maxLockAge
}

// settle takes the names of paths away from all files that are not in use.
func (l *shortLocks) settle() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var errs []error
	for _, file := range l.parked {
		errs = append(errs, file.Unlink())
	}
	return errors.Join(errs...)
}

func (l *shortLocks) park(file *fstree.LockFile) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return file.Delete()
	}
	l.parked = append(l.parked, file)
	if l.timer == nil {
		l.timer = time.AfterFunc(maxLockAge, l.expire)
	}
	return nil
}

// expire deletes all parked files: at most this long after the first was parked.
func (l *shortLocks) expire() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.timer = nil
	l.deleteLocked()
}

func (l *shortLocks) deleteLocked() error {
	var errs []error
	for _, file := range l.parked {
		errs = append(errs, file.Delete())
	}
	l.parked = nil
	return errors.Join(errs...)
}

// close deletes the files. No lock may be held.
func (l *shortLocks) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	if l.timer != nil {
		l.timer.Stop()
	}
	err := l.deleteLocked()
	l.homeMu.Lock()
	defer l.homeMu.Unlock()
	if l.opened != nil {
		err = errors.Join(err, l.opened.Close())
	}
	return err
}
