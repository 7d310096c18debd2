package worker

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"nixdaemon/protocol"
	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/wire"
)

// gate is a client's socket that can be full.
type gate struct {
	open   chan struct{} // a write waits for a token, or for ever once closed
	mu     sync.Mutex
	got    bytes.Buffer
	writes int
}

func (g *gate) Write(p []byte) (int, error) {
	if g.open != nil {
		<-g.open
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.writes++
	return g.got.Write(p)
}

func (g *gate) count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.writes
}

func (g *gate) told(t *testing.T) *recorder {
	t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	r := protocol.NewReader(wire.NewReader(bytes.NewReader(g.got.Bytes())), "/s", minor(38))
	var told recorder
	for {
		tag, err := r.Frame()
		if err == io.EOF {
			return &told
		}
		if known, e := r.Tell(tag, &told); err != nil || e != nil || !known {
			t.Fatal("frames are broken: ", tag, err, e)
		}
	}
}

func newTestTunnel(g *gate) *tunnel {
	return newTunnel(protocol.NewWriter(wire.NewWriter(g), "/s", minor(38)), activity.Info)
}

// TestGathering: a lone message goes out at once, many together soon.
func TestGathering(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &gate{}
		tn := newTestTunnel(g)
		tn.startWork()
		tn.Message(activity.Info, "first")
		synctest.Wait()
		if g.count() != 1 {
			t.Error("first message waits")
		}
		for i := range 1000 {
			tn.Message(activity.Info, fmt.Sprint(i))
		}
		synctest.Wait()
		if g.count() != 1 {
			t.Error("messages were not gathered: ", g.count())
		}
		time.Sleep(flushDelay)
		synctest.Wait()
		if n := len(g.told(t).lines); n != 1001 || g.count() > 4 {
			t.Errorf("%d lines in %d writes", n, g.count())
		}
		tn.Message(activity.Info, "last")
		tn.stopWork()
		tn.out.Flush()
		if lines := g.told(t).lines; lines[len(lines)-1] != "last" {
			t.Error("last message is missing")
		}
	})
}

// TestStalledClient: who logs waits for a client that reads nothing only once,
// and it is told what it has missed.
func TestStalledClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &gate{open: make(chan struct{})}
		tn := newTestTunnel(g)
		tn.startWork()
		line := strings.Repeat("x", 10<<10)
		start := time.Now()
		const lines = 1000
		tn.Start(1, 0, activity.Build, "", nil, 0)
		for range lines {
			tn.Message(activity.Info, line)
		}
		tn.Stop(1)
		if waited := time.Since(start); waited > stallTime+time.Second {
			t.Error("waited for a stalled client for ", waited)
		}
		if size := len(tn.queue); size > maxQueue+20<<10 {
			t.Error("queue holds ", size)
		}
		close(g.open) // it reads again
		tn.stopWork()
		if err := tn.out.Flush(); err != nil {
			t.Fatal(err)
		}
		told := g.told(t)
		last := told.lines[len(told.lines)-1]
		if want := fmt.Sprintf("warning: %d log messages were dropped because they were not read in time", lines-len(told.lines)+1); last != want {
			t.Errorf("got %q, want %q", last, want)
		}
		if len(told.kinds) != 1 || told.stops != 1 {
			t.Error("activities were dropped: ", told.kinds, told.stops)
		}
	})
}

// TestSlowClient gets everything: who logs is slowed down.
func TestSlowClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &gate{open: make(chan struct{})}
		done := make(chan struct{})
		var reader sync.WaitGroup
		reader.Go(func() {
			for {
				time.Sleep(stallTime / 10)
				select {
				case g.open <- struct{}{}:
				case <-done:
					return
				}
			}
		})
		tn := newTestTunnel(g)
		tn.startWork()
		const lines = 1000
		for i := range lines {
			tn.Message(activity.Info, fmt.Sprint(i, strings.Repeat("x", 10<<10)))
		}
		tn.stopWork()
		if err := tn.out.Flush(); err != nil {
			t.Fatal(err)
		}
		close(done)
		reader.Wait()
		told := g.told(t)
		if len(told.lines) != lines || !slices.IsSortedFunc(told.lines, func(a, b string) int {
			var x, y int
			fmt.Sscan(a[:strings.IndexByte(a, 'x')], &x)
			fmt.Sscan(b[:strings.IndexByte(b, 'x')], &y)
			return x - y
		}) {
			t.Error("lines are missing or out of order: ", len(told.lines))
		}
	})
}

// TestOutsideOfWork keeps a bounded number of messages.
func TestOutsideOfWork(t *testing.T) {
	g := &gate{}
	tn := newTestTunnel(g)
	for range 1000 {
		tn.Message(activity.Info, strings.Repeat("x", 10<<10))
	}
	if len(tn.queue) > maxQueue+20<<10 || g.count() != 0 {
		t.Error(len(tn.queue), g.count())
	}
	tn.startWork()
	tn.stopWork()
	tn.out.Flush()
	if n := len(g.told(t).lines); n < 50 {
		t.Error(n)
	}
}

// TestBrokenClient: what cannot be written is dropped, and nobody waits.
func TestBrokenClient(t *testing.T) {
	r, w := io.Pipe()
	r.Close()
	tn := newTunnel(protocol.NewWriter(wire.NewWriter(w), "/s", minor(38)), activity.Info)
	tn.startWork()
	for range 1000 {
		tn.Message(activity.Info, strings.Repeat("x", 10<<10))
	}
	tn.stopWork()
	if err := tn.out.Flush(); !isGone(err) {
		t.Error(err)
	}
}

func BenchmarkMessage(b *testing.B) {
	tn := newTunnel(protocol.NewWriter(wire.NewWriter(io.Discard), "/s", minor(38)), activity.Info)
	tn.startWork()
	b.ReportAllocs()
	for b.Loop() {
		tn.Message(activity.Info, "building something that takes a while")
	}
	tn.stopWork()
}
