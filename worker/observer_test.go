package worker

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"nixdaemon/protocol"
)

// witness remembers what it is told of requests.
type witness struct {
	mu     sync.Mutex
	events []string
}

var _ Observer = (*witness)(nil)

func (w *witness) add(event string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events = append(w.events, event)
}

func (w *witness) OpBegan(op protocol.Op)            { w.add(fmt.Sprint("begin ", op)) }
func (w *witness) OpEnded(op protocol.Op, err error) { w.add(fmt.Sprint("end ", op, " ", err != nil)) }

func TestObserver(t *testing.T) {
	w := newWorld(t)
	eye := &witness{}
	w.observer = eye
	p := w.dial(false, minor(35))
	p.inStep()
	p.send(protocol.OpQueryPathInfo, func(out *protocol.Writer) { out.StorePath(somePath("nothing")) })
	p.mustWork()
	if found, err := p.in.Bool(); err != nil || found {
		t.Fatal(found, err)
	}
	p.send(protocol.OpNarFromPath, func(out *protocol.Writer) { out.StorePath(somePath("nothing")) })
	if p.finish(nil) == nil {
		t.Fatal("there is an archive of nothing")
	}
	p.inStep()
	if err := p.end(); err != nil {
		t.Error(err)
	}
	want := []string{
		"begin IsValidPath", "end IsValidPath false", "begin QueryPathInfo", "end QueryPathInfo false",
		"begin NarFromPath", "end NarFromPath true", "begin IsValidPath", "end IsValidPath false",
	}
	if !slices.Equal(eye.events, want) {
		t.Errorf("told %q, want %q", eye.events, want)
	}
}
