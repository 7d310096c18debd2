package localstore

import (
	"sync"
	"time"

	"nixdaemon/protocol/storepath"
)

// lateRoots are temporary roots of other processes that are not yet where a collector looks for them.
//
// Upstream's processes tell a running collector of a root, await the answer, and only then write the root to their file
// (gc.cc, addTempRoot). A collection that begins in between knows nothing of it and deletes what is being added. So ours
// writes such roots down itself before it answers, and keeps them for longer than that process needs.
type lateRoots struct {
	mu     sync.Mutex
	roots  *TempRoots  // nil for none
	count  int         // of paths in roots
	until  time.Time   // they are kept
	expiry *time.Timer // set while there are roots
	closed bool
}

const (
	// lateRootTime is how long after the last of them the roots of others are kept.
	lateRootTime = 10 * time.Second

	// maxLateRoots bounds their file. Everybody may speak to a collector.
	maxLateRoots = 1 << 16
)

// HoldRoot keeps a path for some seconds, for another process that has asked for it. It is for who holds gc.lock, since no
// collector is told.
func (s *Store) HoldRoot(p storepath.Path) error {
	l := &s.late
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || l.count == maxLateRoots {
		return nil
	}
	if l.roots == nil {
		l.roots = s.NewTempRoots()
		l.expiry = time.AfterFunc(lateRootTime, l.expire)
	}
	if err := l.roots.note(p); err != nil {
		return err
	}
	l.count++
	l.until = time.Now().Add(lateRootTime)
	l.expiry.Reset(lateRootTime)
	return nil
}

// expire drops the roots when their time is up: another may have come while the timer waited for the mutex. What fails
// then is a file that any collector takes for a dead process's.
func (l *lateRoots) expire() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if left := time.Until(l.until); l.roots != nil && left > 0 {
		l.expiry.Reset(left)
		return
	}
	l.drop()
}

func (l *lateRoots) drop() error {
	if l.roots == nil {
		return nil
	}
	l.expiry.Stop()
	err := l.roots.Close()
	l.roots, l.count = nil, 0
	return err
}

func (l *lateRoots) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	return l.drop()
}
