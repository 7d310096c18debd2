package substitute

import (
	"context"
	"io"
	"sync"

	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/narinfo"
	"nixdaemon/worker/session"
)

const (
	// aheadSize is the largest file in bytes that is got before its turn. What is larger takes so long to arrive that
	// the time to ask for it does not matter.
	aheadSize = 256 << 10
	// aheadTotal bounds what all files that wait for their turn take, in bytes.
	aheadTotal = 32 << 20
)

// packed is a [Source] whose archives are files that can be got before they are unpacked.
type packed interface {
	// File reads the file of an archive whole. Nil means that it has more bytes than limit.
	File(ctx context.Context, a Asker, info *narinfo.NarInfo, limit uint64) ([]byte, error)
	// Unpack gives the archive in such a file. Closing it closes the file, too.
	Unpack(ctx context.Context, a Asker, info *narinfo.NarInfo, file io.ReadCloser) (io.ReadCloser, error)
}

// Ahead tells whether the offer's archive is worth getting before its turn: it is small, and far away.
func (o *Offer) Ahead() bool {
	if c, ok := o.source.(*Cache); ok && c.o.Local {
		return false
	}
	_, ok := o.source.(packed)
	return ok && o.remote.FileSize > 0 && o.remote.FileSize <= aheadSize
}

// Ahead gets the archive of an offer for which [Offer.Ahead] is true into memory, if there is room, for
// [Substituter.Fetch] to find it when the offer's turn has come. It returns when Fetch has taken it, or has begun before,
// or when ctx ends. What fails is told by Fetch. No connection is held for longer than the file takes to arrive, so
// nobody who has a turn waits for one who has not.
func (s *Substituter) Ahead(ctx context.Context, sess *session.Session, o *Offer) {
	source, ok := o.source.(packed)
	if !ok {
		return
	}
	key := o.key(false)
	_, _ = s.aheads.do(ctx, key, sess.Log, func(ctx context.Context, log activity.Sink) (struct{}, error) {
		// Another client may have it by now.
		if valid, err := s.o.Store.IsValid(ctx, o.Info.Path); valid || err != nil || s.fetches.has(key) {
			return struct{}{}, err
		}
		e := s.early.begin(key, o.remote.FileSize)
		if e == nil {
			return struct{}{}, nil
		}
		defer s.early.end(key, e)
		e.get(ctx, Asker{Settings: sess.Settings, Log: log}, source, o.remote)
		select {
		case <-e.taken:
		case <-ctx.Done():
		}
		return struct{}{}, nil
	})
}

// early is a file that is got before its turn.
type early struct {
	size uint64
	got  chan struct{} // closed when file and err are there; with neither it could not be got this way
	file []byte
	err  error

	once  sync.Once
	taken chan struct{} // closed when nobody will want it any more
}

func (e *early) get(ctx context.Context, a Asker, source packed, info *narinfo.NarInfo) {
	defer close(e.got)
	file, err := source.File(ctx, a, info, e.size)
	if ctx.Err() == nil {
		e.file, e.err = file, err
	}
}

// earlies are the files that wait for their turn.
type earlies struct {
	mu    sync.Mutex
	files map[fetchKey]*early
	size  uint64 // of all
}

// begin makes room for a file; nil if there is none.
func (l *earlies) begin(key fetchKey, size uint64) *early {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, again := l.files[key]; again || l.size+size > aheadTotal {
		return nil
	}
	if l.files == nil {
		l.files = make(map[fetchKey]*early)
	}
	e := &early{size: size, got: make(chan struct{}), taken: make(chan struct{})}
	l.files[key] = e
	l.size += size
	return e
}

// end forgets a file.
func (l *earlies) end(key fetchKey, e *early) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.files, key)
	l.size -= e.size
}

// take waits for a file that is on its way. Without one and without an error it is to be got as usual.
func (l *earlies) take(ctx context.Context, key fetchKey) ([]byte, error) {
	l.mu.Lock()
	e := l.files[key]
	l.mu.Unlock()
	if e == nil {
		return nil, nil
	}
	select {
	case <-e.got:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	file, err := e.file, e.err
	e.leave()
	return file, err
}

// drop lets go of a file that nobody has taken.
func (l *earlies) drop(key fetchKey) {
	l.mu.Lock()
	e := l.files[key]
	l.mu.Unlock()
	if e != nil {
		e.leave()
	}
}

func (e *early) leave() { e.once.Do(func() { close(e.taken) }) }
