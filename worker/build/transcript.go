package build

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
)

// transcriptHead is how much of a log is kept in memory before a file takes the rest: most logs are shorter.
const transcriptHead = 64 << 10

// transcript is all that a builder has printed so far, for those who read along. The compressed log cannot be read before
// it is complete. A nil transcript keeps nothing.
type transcript struct {
	spool *spool

	mu      sync.Mutex
	head    []byte
	rest    *os.File // behind head, without a name; nil until it is needed
	size    int64
	err     error // why nothing more is kept
	ended   bool
	taken   int64 // of the spool
	readers int
	changed chan struct{} // closed when there is more; nil while nobody waits
}

// Write keeps what the builder prints. It never fails: a log that cannot be read along is no reason to fail a build.
func (t *transcript) Write(p []byte) (int, error) {
	if t == nil {
		return len(p), nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.keep(p)
	t.tell()
	return len(p), nil
}

func (t *transcript) keep(p []byte) {
	if t.err != nil || t.ended {
		return
	}
	n := min(len(p), transcriptHead-len(t.head))
	t.head = append(t.head, p[:n]...)
	t.size += int64(n)
	if p = p[n:]; len(p) == 0 {
		return
	}
	if t.rest == nil {
		if t.rest, t.err = nameless(t.spool.dir); t.err != nil {
			return
		}
	}
	if !t.spool.take(int64(len(p)), t.taken) {
		t.err = ErrLogLost
		return
	}
	t.taken += int64(len(p))
	n, t.err = t.rest.WriteAt(p, t.size-transcriptHead)
	t.size += int64(n)
}

// nameless makes a file that goes with its last descriptor.
func nameless(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, ".log-*")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// tell wakes readers.
func (t *transcript) tell() {
	if t.changed != nil {
		close(t.changed)
		t.changed = nil
	}
}

// end notes that there will be no more. It may be called more than once.
func (t *transcript) end() {
	if t == nil {
		return
	}
	t.mu.Lock()
	again := t.ended
	t.ended = true
	t.tell()
	t.tidy()
	var expired []*transcript
	if !again && t.rest != nil {
		expired = t.spool.linger(t, t.taken)
	}
	t.mu.Unlock()
	for _, old := range expired {
		old.expire()
	}
}

// tidy closes the file when nobody needs it any more.
func (t *transcript) tidy() {
	if t.ended && t.readers == 0 {
		t.drop()
	}
}

// drop gives the file up.
func (t *transcript) drop() {
	if t.rest == nil {
		return
	}
	t.rest.Close()
	t.spool.give(t, t.taken)
	t.rest, t.taken = nil, 0
}

// expire ends the reading of a log whose build has ended: whoever has not read it by now is too slow.
func (t *transcript) expire() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.rest != nil {
		t.err, t.size = ErrLogLost, int64(len(t.head))
		t.drop()
	}
}

// open gives a reader, which must be closed; nil if there is nothing to read any more.
func (t *transcript) open() *LogReader {
	if t == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended {
		return nil
	}
	t.readers++
	return &LogReader{t: t}
}

// LogReader reads the log of a build from its beginning, and as it grows. It is for one goroutine.
type LogReader struct {
	t  *transcript
	at int64
}

// ErrLogLost is the end of a log of which the rest could not be kept.
var ErrLogLost = errors.New("the rest of the log is not at hand here; once the build has ended, all of it is where logs are kept")

// Read waits for more unless there is some. It returns io.EOF when the build has ended, or the cause of ctx's end.
func (r *LogReader) Read(ctx context.Context, p []byte) (int, error) {
	for {
		n, changed, err := r.t.read(p, r.at)
		r.at += int64(n)
		if n > 0 || err != nil {
			return n, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
}

// read gives what there is at a place, or what to wait for.
func (t *transcript) read(p []byte, at int64) (int, <-chan struct{}, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case at < int64(len(t.head)):
		return copy(p, t.head[at:]), nil, nil
	case at < t.size:
		n, err := t.rest.ReadAt(p[:min(int64(len(p)), t.size-at)], at-transcriptHead)
		if n > 0 {
			err = nil
		}
		return n, nil, err
	case t.err != nil:
		return 0, nil, ErrLogLost
	case t.ended:
		return 0, nil, io.EOF
	}
	if t.changed == nil {
		t.changed = make(chan struct{})
	}
	return 0, t.changed, nil
}

// Close ends the reading.
func (r *LogReader) Close() error {
	r.t.mu.Lock()
	defer r.t.mu.Unlock()
	r.t.readers--
	r.t.tidy()
	return nil
}

// FollowLog opens the log of a build that runs or waits. The error is ErrNoBuild, or with mine set ErrNotYours unless the
// user by wants that build.
func (s *Scheduler) FollowLog(id BuildID, by string, mine bool) (*LogReader, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	j := s.findLocked(id)
	if j == nil {
		return nil, ErrNoBuild
	}
	wanted := false
	for _, sub := range j.subs {
		wanted = wanted || sub.req.sess.User == by
	}
	if mine && !wanted {
		return nil, ErrNotYours
	}
	if r := j.transcript.open(); r != nil {
		return r, nil
	}
	return nil, ErrNoBuild
}

// spooled is a transcript for a job, nil if none are kept.
func (s *Scheduler) spooled() *transcript {
	if s.spool == nil {
		return nil
	}
	return &transcript{spool: s.spool}
}
