package localstore

import (
	"context"
	"errors"
	"io/fs"
	"sync"
	"time"

	"nixdaemon/localstore/internal/fstree"
)

// shortLocks takes path locks for moments, at a fraction of what a lock file of its own costs for each path.
//
// A lock file that is made and deleted for each path that is added costs two inodes' worth of work, and worse:
// ext4 does not give a deleted inode out again for minutes and looks at all of them whenever it makes a file.
// So a few lock files, which this process keeps locked, are renamed from path to path. To other processes they are
// what every lock file is: while one has the path's name the path is locked, and who waits for it finds
// it marked as deleted at the latest maxLockAge after it came up, and looks again.
//
// Whoever wants to lock for longer uses the table of package pathlock. The two exclude each other by the files.
type shortLocks struct {
	dir *fstree.Dir

	mu     sync.Mutex
	held   map[string]chan struct{} // by path name; closed when the path is free
	parked []*fstree.LockFile       // locked by us, with the name of a path that we are done with
	timer  *time.Timer              // set while files are parked
	closed bool
}

// maxLockAge is how long a lock file goes from path to path: as long may others wait in vain for one, if they happen to
// add the same path at the same moment.
const maxLockAge = 200 * time.Millisecond

func newShortLocks(dir *fstree.Dir) *shortLocks {
	return &shortLocks{dir: dir, held: make(map[string]chan struct{})}
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
		file := l.unpark(name)
		if file == nil {
			return l.dir.CreateLockFile(name)
		}
		if file.Name() == name {
			return file, nil
		}
		err := file.Rename(name)
		if err == nil {
			return file, nil
		}
		if errors.Is(err, fs.ErrExist) {
			l.park(file)
			return nil, nil
		}
		// Somebody deleted or replaced it; its waiters look again.
		if err := file.Abandon(); err != nil {
			return nil, err
		}
	}
}

// unpark takes a parked file, the one of that name if there is.
func (l *shortLocks) unpark(name string) *fstree.LockFile {
	l.mu.Lock()
	defer l.mu.Unlock()
	last := len(l.parked) - 1
	if last < 0 {
		return nil
	}
	take := last
	for i, file := range l.parked {
		if file.Name() == name {
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

// unlock frees a path.
func (l *shortLocks) unlock(path string, file *fstree.LockFile) error {
	var err error
	if time.Since(file.Born()) > maxLockAge {
		err = file.Delete()
	} else {
		l.park(file)
	}
	l.free(path)
	return err
}

func (l *shortLocks) park(file *fstree.LockFile) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.parked = append(l.parked, file)
	if l.timer == nil && !l.closed {
		l.timer = time.AfterFunc(maxLockAge, l.expire)
	}
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
	return l.deleteLocked()
}
