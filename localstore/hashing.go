package localstore

import (
	"bytes"
	"hash"
	"io"
	"sync"

	"nixdaemon/protocol/nixhash"
)

const (
	// asyncFrom is how long a stream must be for a goroutine of its own to hash it.
	asyncFrom = 1 << 20

	// hashBuffers of hashBufferSize each are between the writer and that goroutine.
	hashBuffers    = 4
	hashBufferSize = 256 << 10
)

// hashWriter hashes what is written to it and counts it. Long streams are hashed while the writer goes on, through
// a bounded number of buffers. Call finish or stop, once.
type hashWriter struct {
	algo nixhash.Algo
	hash hash.Hash
	size uint64
	// here is set for a writer that is itself in a goroutine of its own.
	here bool

	buf        []byte      // being filled; nil as long as nothing is hashed aside
	full, free chan []byte // buffers on their way
	worker     sync.WaitGroup
}

var _ io.Writer = (*hashWriter)(nil)

func newHashWriter(algo nixhash.Algo) *hashWriter { return &hashWriter{algo: algo, hash: algo.New()} }

func (w *hashWriter) Write(p []byte) (int, error) {
	w.size += uint64(len(p))
	if w.full == nil {
		if w.here || w.size < asyncFrom {
			return w.hash.Write(p)
		}
		w.start()
	}
	for rest := p; len(rest) > 0; {
		n := copy(w.buf[len(w.buf):cap(w.buf)], rest)
		w.buf = w.buf[:len(w.buf)+n]
		rest = rest[n:]
		if len(w.buf) == cap(w.buf) {
			w.full <- w.buf
			w.buf = (<-w.free)[:0]
		}
	}
	return len(p), nil
}

func (w *hashWriter) start() {
	w.full, w.free = make(chan []byte, hashBuffers), make(chan []byte, hashBuffers)
	for range hashBuffers - 1 {
		w.free <- make([]byte, 0, hashBufferSize)
	}
	w.buf = make([]byte, 0, hashBufferSize)
	w.worker.Go(func() {
		for b := range w.full {
			w.hash.Write(b)
			w.free <- b
		}
	})
}

// finish gives the hash and the number of bytes.
func (w *hashWriter) finish() (nixhash.Hash, uint64) {
	w.stop()
	return nixhash.FromSum(w.algo, w.hash), w.size
}

// pause lets another goroutine write from now on, which may hash there.
func (w *hashWriter) pause() {
	w.stop()
	w.here = true
}

// stop ends the goroutine, if there is one.
func (w *hashWriter) stop() {
	if w.full == nil {
		return
	}
	w.full <- w.buf
	close(w.full)
	w.worker.Wait()
	w.full = nil
}

// moduloWriter passes on what is written to it with every occurrence of a text replaced by zeros: so content-addressed
// paths that contain their own hash part are hashed (libstore/references.cc). Upstream 2.17 to 2.35 does
// not append the positions that it documents, and neither do we.
type moduloWriter struct {
	dst  io.Writer
	text []byte
	tail []byte // of what was written, too short to hold the text
}

func (w *moduloWriter) Write(p []byte) (int, error) {
	b := append(w.tail, p...)
	for at := 0; ; {
		i := bytes.Index(b[at:], w.text)
		if i < 0 {
			break
		}
		at += i
		clear(b[at : at+len(w.text)])
	}
	keep := min(len(b), len(w.text)-1)
	if _, err := w.dst.Write(b[:len(b)-keep]); err != nil {
		return 0, err
	}
	w.tail = append(w.tail[:0:0], b[len(b)-keep:]...)
	return len(p), nil
}

func (w *moduloWriter) flush() error {
	_, err := w.dst.Write(w.tail)
	w.tail = nil
	return err
}
