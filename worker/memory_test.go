package worker

import (
	"strings"
	"testing"

	"nixdaemon/protocol"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/wire"
)

// purse is a ledger for one connection at a time.
type purse struct{ left, most int64 }

func (p *purse) Take(n int64) bool {
	if n > p.left {
		return false
	}
	p.left -= n
	return true
}

func (p *purse) Give(n int64) { p.left += n }

// manyPaths asks for the validity of n paths.
func manyPaths(n int) func(*protocol.Writer) {
	return func(to *protocol.Writer) {
		name := somePath(strings.Repeat("x", 200))
		to.Uint64(uint64(n))
		for range n {
			to.StorePath(name)
		}
		to.Bool(false)
	}
}

// A request beyond what all may take together ends its connection with a
// reason; what was taken comes back after each request and with the end.
func TestSharedMemory(t *testing.T) {
	w := newWorld(t)
	p := &purse{left: 3 << 20, most: 3 << 20}
	w.memory = p
	c := w.dial(false, protocol.ClientVersion())
	for range 3 { // some 2 MiB each
		c.send(protocol.OpQueryValidPaths, manyPaths(8000))
		c.mustWork()
		if _, err := c.in.StorePaths(); err != nil {
			t.Fatal(err)
		}
	}
	c.out.Op(protocol.OpQueryValidPaths)
	manyPaths(30000)(c.out)
	c.out.Flush() // the other side may have hung up before the end
	if e := c.finish(nil); e == nil || e.Message != wire.ErrMemory.Error() {
		t.Errorf("got %v", e)
	}
	<-c.served
	c.served <- nil // for the clean-up
	if p.left != p.most {
		t.Errorf("%d bytes were never given back", p.most-p.left)
	}
}

// Metadata within a stream counts too, and the stream stays in step.
func TestSharedMemoryOfEntries(t *testing.T) {
	w := newWorld(t)
	p := &purse{}
	w.memory = p
	c := w.dial(true, protocol.ClientVersion())
	archive := archiveOf("x")
	info := w.infoOf("big", archive, true)
	for len(info.Sigs) < 400 {
		info.Sigs = append(info.Sigs, pathinfo.Signature(strings.Repeat("k", 1000)+":YWJj"))
	}
	c.send(protocol.OpAddMultipleToStore, func(to *protocol.Writer) {
		to.Bool(false)
		to.Bool(false)
		frames(entries(w, 1, addition{info, archive}))(to)
	})
	if e := c.finish(nil); e == nil || e.Message != wire.ErrMemory.Error() {
		t.Errorf("got %v", e)
	}
	p.left = 1 << 20
	c.send(protocol.OpQueryValidPaths, manyPaths(10))
	c.mustWork()
}
