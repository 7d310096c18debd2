package substitute

import (
	"context"
	"fmt"
	"io"
	"sync"

	"nixdaemon/protocol/narinfo"
)

const (
	// asideSize is from how many bytes on an archive is decompressed on a goroutine of its own. For less, starting one
	// costs more than is won. It is for zstd, where writing takes a good part of the time, and for xz, which wins a tenth
	// at the same processor time.
	asideSize = 1 << 20
	// asidePieces are decompressed ahead of who reads the archive, each of asidePiece bytes at most.
	asidePieces = 3
	asidePiece  = 128 << 10
)

// openAside opens an archive like [Source.OpenNAR]. One that is large is decompressed while what came before is
// hashed and written.
func (d *download) openAside(info *narinfo.NarInfo) (io.ReadCloser, error) {
	if info.NarSize < asideSize || info.Compression != "zstd" && info.Compression != "xz" {
		return d.offer.source.OpenNAR(d.ctx, d.asker, info)
	}
	ctx, cancel := context.WithCancel(d.ctx)
	body, err := d.offer.source.OpenNAR(ctx, d.asker, info)
	if err != nil {
		cancel()
		return nil, err
	}
	return readAside(body, cancel), nil
}

// aside is a stream that is read on a goroutine of its own. Close waits for that.
type aside struct {
	body   io.ReadCloser
	cancel context.CancelFunc // ends reads of body

	filled chan piece  // after the last one nothing comes
	empty  chan []byte // never full
	quit   chan struct{}
	worker sync.WaitGroup

	now  piece
	left []byte // of now
}

// piece is what one or more reads gave.
type piece struct {
	buffer []byte
	n      int
	err    error // after n bytes
}

// readAside takes over a stream whose reads end when cancel is called.
func readAside(body io.ReadCloser, cancel context.CancelFunc) *aside {
	a := &aside{body: body, cancel: cancel, filled: make(chan piece, asidePieces), empty: make(chan []byte, asidePieces), quit: make(chan struct{})}
	room := make([]byte, asidePieces*asidePiece)
	for i := range asidePieces {
		a.empty <- room[i*asidePiece : (i+1)*asidePiece]
	}
	a.worker.Go(a.fill)
	return a
}

// fill reads until an error, for which there is always room.
func (a *aside) fill() {
	for {
		select {
		case buffer := <-a.empty:
			p := a.piece(buffer)
			a.filled <- p
			if p.err != nil {
				return
			}
		case <-a.quit:
			return
		}
	}
}

// piece fills at least half of a buffer, unless there is an error.
func (a *aside) piece(buffer []byte) (p piece) {
	defer func() {
		if r := recover(); r != nil {
			p.err = fmt.Errorf("substitute: internal error: %v", r)
		}
	}()
	p.buffer = buffer
	for p.n < len(buffer)/2 && p.err == nil {
		var n int
		n, p.err = a.body.Read(buffer[p.n:])
		p.n += n
	}
	return p
}

// Read waits for what comes next. Errors come when all before them has been read.
func (a *aside) Read(b []byte) (int, error) {
	for len(a.left) == 0 && a.now.err == nil {
		if a.now.buffer != nil {
			a.empty <- a.now.buffer
		}
		a.now = <-a.filled
		a.left = a.now.buffer[:a.now.n]
	}
	if len(a.left) == 0 {
		return 0, a.now.err
	}
	n := copy(b, a.left)
	a.left = a.left[n:]
	return n, nil
}

// Close ends the goroutine and closes the stream.
func (a *aside) Close() error {
	a.cancel()
	close(a.quit)
	a.worker.Wait()
	return a.body.Close()
}
