package transfer

import (
	"errors"
	"fmt"
	"io"
	"sync"
)

// sentBody is what a request sends. The transport reads it in a goroutine of its own, and closes it.
type sentBody struct {
	body   io.ReadCloser
	a      *attempt
	size   int64
	closed chan struct{}

	mu   sync.Mutex
	done int64
	err  error // of the body itself
	once sync.Once
}

func (b *sentBody) Read(p []byte) (int, error) {
	n, err := b.body.Read(p)
	b.a.dog.wait() // what was sent before has gone
	b.mu.Lock()
	b.done += int64(n)
	done := b.done
	if err == io.EOF && done != b.size {
		err = fmt.Errorf("send %s: %d bytes instead of %d", Shown(b.a.t.request.URL), done, b.size)
	}
	if err != nil && err != io.EOF {
		b.err = err
	}
	b.mu.Unlock()
	b.a.t.progress(uint64(done), uint64(b.size), false)
	return n, err
}

func (b *sentBody) Close() error {
	err := errors.New("close body of request: closed already")
	b.once.Do(func() {
		err = b.body.Close()
		close(b.closed)
	})
	return err
}

func (b *sentBody) failed() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err
}
