package localstore

import (
	"bufio"
	"context"
	"io"
	"sync"

	"nixdaemon/protocol/nar"
)

// spool takes a stream whose place is not known before its end, and hashes it. Up to limit bytes stay in memory. What is
// longer goes on to a consumer in a goroutine of its own, through a bounded number of pieces, and is hashed on the way.
type spool struct {
	limit  int
	size   int
	pieces [][]byte    // in memory; the last one may have room
	sum    *hashWriter // of everything
	// pool lends the first piece, which most streams do not fill; nil: it is made.
	pool  *sync.Pool
	first *[minPiece]byte

	// consume reads the whole stream; it is called when the limit is passed.
	consume func(r io.Reader) error
	feed    *feed // nil as long as all is in memory
	worker  sync.WaitGroup
	err     error // of consume; set when worker is done
}

var _ nar.Lender = (*spool)(nil)

const (
	minPiece = 4 << 10
	maxPiece = 256 << 10

	// feedPieces is how many pieces are between the two ends.
	feedPieces = 4
)

// Space lends room for the next bytes.
func (sp *spool) Space() ([]byte, error) {
	if sp.feed == nil && sp.size >= sp.limit {
		if err := sp.overflow(); err != nil {
			return nil, err
		}
	}
	if sp.feed != nil {
		return sp.feed.space(), nil
	}
	n := len(sp.pieces)
	if n == 0 || len(sp.pieces[n-1]) == cap(sp.pieces[n-1]) {
		sp.pieces = append(sp.pieces, sp.piece())
		n++
	}
	last := sp.pieces[n-1]
	return last[len(last):min(cap(last), len(last)+sp.limit-sp.size)], nil
}

func (sp *spool) piece() []byte {
	if sp.size == 0 && sp.pool != nil {
		first, _ := sp.pool.Get().(*[minPiece]byte)
		if first == nil {
			first = new([minPiece]byte)
		}
		sp.first = first
		return first[:0]
	}
	return make([]byte, 0, min(max(minPiece, sp.size), maxPiece))
}

// release gives what was lent back. Nobody may look at the pieces any more.
func (sp *spool) release() {
	if sp.first != nil {
		sp.pool.Put(sp.first)
		sp.first, sp.pieces = nil, nil
	}
}

// Advance takes n bytes that were put where Space said.
func (sp *spool) Advance(n int) error {
	if sp.feed != nil {
		return sp.feed.advance(n)
	}
	last := &sp.pieces[len(sp.pieces)-1]
	at := len(*last)
	*last = (*last)[:at+n]
	sp.size += n
	sp.sum.Write((*last)[at:])
	return nil
}

func (sp *spool) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		space, err := sp.Space()
		if err != nil {
			return len(p) - len(rest), err
		}
		n := copy(space, rest)
		if err := sp.Advance(n); err != nil {
			return len(p) - len(rest), err
		}
		rest = rest[n:]
	}
	return len(p), nil
}

// ReadFrom reads straight into the pieces.
func (sp *spool) ReadFrom(r io.Reader) (int64, error) {
	for total := int64(0); ; {
		space, err := sp.Space()
		if err != nil {
			return total, err
		}
		n, err := r.Read(space)
		total += int64(n)
		if e := sp.Advance(n); e != nil {
			return total, e
		}
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}

// overflow starts the consumer with what is in memory. That is hashed already; the rest is from then on hashed in the
// very pieces that the consumer gets.
func (sp *spool) overflow() error {
	sp.sum.pause()
	sp.feed = newFeed(sp.sum)
	sp.worker.Go(func() {
		sp.err = sp.consume(sp.feed)
		sp.feed.abandon(sp.err)
	})
	pieces := sp.pieces
	sp.pieces = nil
	for i, piece := range pieces {
		pieces[i] = nil
		if err := sp.feed.copyHashed(piece); err != nil {
			return err
		}
	}
	return sp.feed.startHashing()
}

// close ends the stream and waits for the consumer. err is why the stream ended early, nil if it did not.
func (sp *spool) close(err error) error {
	if sp.feed == nil {
		return err
	}
	sp.feed.finish(err)
	sp.worker.Wait()
	if sp.err != nil {
		return sp.err
	}
	return err
}

// reader reads what is in memory, once more for each call.
func (sp *spool) reader() *pieceReader { return &pieceReader{pieces: sp.pieces} }

// pieceReader reads pieces without copying them more often than must be.
type pieceReader struct {
	pieces [][]byte
	at     int
}

var (
	_ nar.Buffered = (*pieceReader)(nil)
	_ io.WriterTo  = (*pieceReader)(nil)
)

// Buffered is what is left of the current piece.
func (r *pieceReader) Buffered() int {
	for len(r.pieces) > 0 && r.at == len(r.pieces[0]) {
		r.pieces, r.at = r.pieces[1:], 0
	}
	if len(r.pieces) == 0 {
		return 0
	}
	return len(r.pieces[0]) - r.at
}

func (r *pieceReader) Peek(n int) ([]byte, error) {
	have := r.Buffered()
	if have == 0 && n > 0 {
		return nil, io.EOF
	}
	if have < n {
		return r.pieces[0][r.at:], bufio.ErrBufferFull
	}
	if n == 0 {
		return nil, nil
	}
	return r.pieces[0][r.at : r.at+n], nil
}

func (r *pieceReader) Discard(n int) (int, error) {
	r.at += n
	return n, nil
}

func (r *pieceReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if r.Buffered() == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.pieces[0][r.at:])
	r.at += n
	return n, nil
}

func (r *pieceReader) WriteTo(w io.Writer) (int64, error) {
	var total int64
	for r.Buffered() > 0 {
		n, err := w.Write(r.pieces[0][r.at:])
		r.at += n
		total += int64(n)
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

// feed carries a stream from one goroutine to another in pieces that go round. Between the two another one hashes them.
type feed struct {
	sum *hashWriter
	// The writer sends to received, and the hashing goroutine passes on to hashed, which the reader receives from.
	received, hashed, free chan []byte
	hasher                 sync.WaitGroup

	buf []byte // being filled by the writer
	end error  // what the reader gets at the end; set before received is closed

	ctx    context.Context // ends when the reader has left
	cancel context.CancelCauseFunc

	current pieceReader // the reader's
	taken   []byte      // the piece in current
}

func newFeed(sum *hashWriter) *feed {
	f := &feed{sum: sum, hashed: make(chan []byte, feedPieces), free: make(chan []byte, feedPieces+1)}
	f.ctx, f.cancel = context.WithCancelCause(context.Background())
	for range feedPieces {
		f.free <- make([]byte, 0, maxPiece)
	}
	f.buf = make([]byte, 0, maxPiece)
	f.received = f.hashed
	return f
}

// copyHashed passes on what has been hashed.
func (f *feed) copyHashed(p []byte) error {
	for len(p) > 0 {
		n := copy(f.space(), p)
		if err := f.advance(n); err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

// startHashing has the goroutine hash what comes from now on.
func (f *feed) startHashing() error {
	if len(f.buf) > 0 {
		if err := f.pass(); err != nil {
			return err
		}
	}
	received := make(chan []byte, feedPieces)
	f.received = received
	f.hasher.Go(func() {
		defer close(f.hashed)
		for b := range received {
			f.sum.Write(b)
			select {
			case f.hashed <- b:
			case <-f.ctx.Done():
				return
			}
		}
	})
	return nil
}

func (f *feed) space() []byte { return f.buf[len(f.buf):cap(f.buf)] }

func (f *feed) advance(n int) error {
	f.buf = f.buf[:len(f.buf)+n]
	if len(f.buf) < cap(f.buf) {
		return nil
	}
	return f.pass()
}

// pass hands the filled piece over and takes an empty one.
func (f *feed) pass() error {
	select {
	case f.received <- f.buf:
	case <-f.ctx.Done():
		return context.Cause(f.ctx)
	}
	select {
	case b := <-f.free:
		f.buf = b[:0]
	case <-f.ctx.Done():
		return context.Cause(f.ctx)
	}
	return nil
}

// finish ends the stream with err, or well with nil.
func (f *feed) finish(err error) {
	if err == nil && len(f.buf) > 0 {
		err = f.pass()
	}
	if f.end = err; err == nil {
		f.end = io.EOF
	}
	close(f.received)
	f.hasher.Wait()
}

// abandon tells the writer that nobody reads any more.
func (f *feed) abandon(err error) {
	if err == nil {
		err = io.ErrClosedPipe
	}
	f.cancel(err)
}

// next takes the next piece if the current one is used up.
func (f *feed) next() error {
	for f.current.Buffered() == 0 {
		if f.taken != nil {
			f.free <- f.taken
			f.taken = nil
		}
		b, ok := <-f.hashed
		if !ok {
			return f.end
		}
		f.taken = b
		f.current = pieceReader{pieces: [][]byte{b}}
	}
	return nil
}

func (f *feed) Read(p []byte) (int, error) {
	if err := f.next(); err != nil {
		return 0, err
	}
	return f.current.Read(p)
}

// Buffered is what Peek can have without waiting for the writer.
func (f *feed) Buffered() int { return f.current.Buffered() }

func (f *feed) Peek(n int) ([]byte, error) {
	if n > 0 {
		if err := f.next(); err != nil {
			return nil, err
		}
	}
	return f.current.Peek(n)
}

func (f *feed) Discard(n int) (int, error) { return f.current.Discard(n) }

func (f *feed) WriteTo(w io.Writer) (int64, error) {
	var total int64
	for {
		if err := f.next(); err == io.EOF {
			return total, nil
		} else if err != nil {
			return total, err
		}
		n, err := f.current.WriteTo(w)
		total += n
		if err != nil {
			return total, err
		}
	}
}
