package localstore

import (
	"errors"
	"hash"
	"runtime"
	"runtime/debug"
	"sync"

	"nixdaemon/localstore/internal/twosum"
)

// pairing lets goroutines that hash do it two at a time, see package twosum: who comes first waits for a second, who then
// hashes for both. There are twice as many of them as processors, so that these have enough to do nevertheless.
type pairing struct {
	mu      sync.Mutex
	workers int   // that are hashing, or are soon
	alone   int   // with so many workers nobody waits; at least one
	waiting *half // nil for none
}

// half is what one goroutine has to hash.
type half struct {
	sum  hash.Hash
	left []byte
	// alone says that nobody comes to hash with.
	alone bool
	err   error
	done  chan struct{}
}

// pairFrom is the length from which waiting for another costs less than it saves.
const pairFrom = 64 << 10

// atOnce is how much is hashed before the scheduler may interrupt it.
const atOnce = 256 << 10

// errTogether says that one of two that were hashed together could not be read: each is to be hashed alone then.
var errTogether = errors.New("memory fault while hashing")

// newPairing gives nil, which hashes alone, where two at a time are not faster.
func newPairing() *pairing {
	if !twosum.Available() {
		return nil
	}
	processors := runtime.GOMAXPROCS(0)
	return &pairing{workers: 2 * processors, alone: processors}
}

// count is how many workers there are at first.
func (p *pairing) count() int {
	if p == nil {
		return runtime.GOMAXPROCS(0)
	}
	return 2 * p.alone
}

// away runs what takes a worker long that is not hashing, for which nobody may wait.
func (p *pairing) away(f func() error) error {
	p.change(-1)
	defer p.change(1)
	return f()
}

func (p *pairing) change(by int) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.workers += by
	if w := p.waiting; w != nil && p.workers <= p.alone {
		p.waiting = nil
		w.alone = true
		close(w.done)
	}
}

// write hashes data. It is done with the data when it returns.
func (p *pairing) write(sum hash.Hash, data []byte) error {
	me := &half{sum: sum, left: data}
	for p != nil && len(me.left) >= pairFrom && !me.alone {
		p.meet(me)
		if me.err != nil {
			return me.err
		}
	}
	sum.Write(me.left)
	return nil
}

// meet hashes some of what one goroutine has to hash together with what another has, or finds that there is none.
func (p *pairing) meet(me *half) {
	p.mu.Lock()
	other := p.waiting
	switch {
	case other != nil:
		p.waiting = nil
		p.mu.Unlock()
		together(me, other)
		close(other.done)
	case p.workers <= p.alone:
		p.mu.Unlock()
		me.alone = true
	default:
		me.done = make(chan struct{})
		p.waiting = me
		p.mu.Unlock()
		<-me.done
	}
}

// together hashes for both until the shorter is done. The data may be mapped files that are cut off meanwhile.
func together(a, b *half) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		v := recover()
		if v == nil {
			return
		}
		if _, fault := v.(interface{ Addr() uintptr }); !fault {
			panic(v)
		}
		a.err, b.err = errTogether, errTogether
	}()
	for {
		n := min(len(a.left), len(b.left), atOnce)
		if n == 0 {
			return
		}
		twosum.Write(a.sum, b.sum, a.left[:n], b.left[:n])
		a.left, b.left = a.left[n:], b.left[n:]
	}
}
