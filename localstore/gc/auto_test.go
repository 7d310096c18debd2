package gc

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// disk is a file system whose free space is what a test says.
type disk struct{ free atomic.Uint64 }

func (d *disk) available() (uint64, error) {
	return d.free.Load(), nil
}

// grows has every deletion of a path free n bytes.
func (d *disk) grows(f *fixture, n uint64) *Collector {
	store := &meddler{Store: f.Store, delete: func(string) { d.free.Add(n) }}
	return New(Options{Store: store})
}

// chain is a number of dead paths, each of which refers to the one before.
func chain(n int) *shape {
	s := &shape{n: n, refs: map[int][]int{}}
	for i := 1; i < n; i++ {
		s.refs[i] = []int{i - 1}
	}
	return s
}

func autoFor(t *testing.T, c *Collector, d *disk) (*Auto, *messages) {
	log := new(messages)
	a := NewAuto(c, d.available, log)
	t.Cleanup(a.Close)
	return a, log
}

func count(log *messages, prefix string) (n int) {
	for _, m := range log.all() {
		if strings.HasPrefix(m, prefix) {
			n++
		}
	}
	return n
}

const started = "3 running auto-GC to free "

// Sixteen clients that find the disk full at the same time wait for one collection, which frees what is wanted and no more.
func TestAutoOnceForAll(t *testing.T) {
	f := newFixture(t, chain(10))
	d := new(disk)
	d.free.Store(900)
	a, log := autoFor(t, d.grows(f, 150), d)
	heard := new(messages)
	var clients sync.WaitGroup
	for range 16 {
		clients.Go(func() {
			if err := a.Wait(t.Context(), Limits{MinFree: 1000, MaxFree: 1150}, heard); err != nil {
				t.Error(err)
			}
			if d.free.Load() < 1150 {
				t.Error("went on before there was space")
			}
		})
	}
	clients.Wait()
	if count(log, started) != 1 || count(heard, "3 running auto-GC to free 250 bytes") != 1 {
		t.Errorf("the daemon says %q, the clients hear %q", log.all(), heard.all())
	}
	// The first has 200 bytes, the second 100: then more than 250 are freed.
	if left := len(f.onDisk()); left != 8 {
		t.Errorf("%d paths are left", left)
	}
	f.verify()
}

func TestAutoWhenToLook(t *testing.T) {
	f := newFixture(t, chain(4))
	d := new(disk)
	a, log := autoFor(t, f.collector(nil), d)
	wait := func(l Limits) {
		t.Helper()
		if err := a.Wait(t.Context(), l, nil); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		name string
		free uint64
		l    Limits
		want int // collections
		left int
	}{
		{"turned off", 0, Limits{MaxFree: 2000}, 0, 4},
		{"enough", 1000, Limits{MinFree: 1000, MaxFree: 2000}, 0, 4},
		{"enough for the maximum", 500, Limits{MinFree: 1000, MaxFree: 500}, 0, 4},
		{"looked just now", 0, Limits{MinFree: 1000, MaxFree: 2000, Interval: time.Hour}, 0, 4},
		{"too little", 500, Limits{MinFree: 1000, MaxFree: 550}, 1, 3},
		{"as before", 490, Limits{MinFree: 1000, MaxFree: 2000}, 0, 3},
		{"more than before", 600, Limits{MinFree: 500, MaxFree: 2000}, 0, 3},
		{"less than between", 580, Limits{MinFree: 1000, MaxFree: 2000}, 1, 0},
	} {
		d.free.Store(tt.free)
		before := count(log, started)
		wait(tt.l)
		if got := count(log, started) - before; got != tt.want || len(f.onDisk()) != tt.left {
			t.Errorf("%s: %d collections, left %v", tt.name, got, f.onDisk())
		}
	}
}

// Space that others made while the lock was waited for is enough.
func TestAutoLooksAgainBeforeItStarts(t *testing.T) {
	f := newFixture(t, chain(4))
	d := new(disk)
	d.free.Store(10)
	var a *Auto
	looked, waited := make(chan struct{}, 2), make(chan error, 1)
	other := f.collector(nil)
	other.o.Step = func(step string) error {
		if step != "locked" {
			return nil
		}
		go func() { waited <- a.Wait(context.Background(), Limits{MinFree: 1000, MaxFree: 2000}, nil) }()
		<-looked
		d.free.Store(1000)
		return nil
	}
	log := new(messages)
	a = NewAuto(other, func() (uint64, error) {
		free := d.free.Load()
		select {
		case looked <- struct{}{}:
		default:
		}
		return free, nil
	}, log)
	defer a.Close()
	if _, err := other.Collect(t.Context(), Request{Action: ReturnLive, WholeStore: true, MaxFreed: 1}); err != nil {
		t.Fatal(err)
	}
	if err := <-waited; err != nil {
		t.Fatal(err)
	}
	if count(log, started) != 1 || len(f.onDisk()) != 4 {
		t.Errorf("messages %q, left %v", log.all(), f.onDisk())
	}
}

// Whoever hangs up waits no longer; the end of the daemon ends the collection, what was deleted until then is consistent.
func TestAutoInterrupted(t *testing.T) {
	f := newFixture(t, chain(600))
	d := new(disk)
	blocked, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	store := &meddler{Store: f.Store, delete: func(string) {
		once.Do(func() { close(blocked) })
		<-release
	}}
	a, log := autoFor(t, New(Options{Store: store}), d)
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("hung up")
	go func() { <-blocked; cancel(gone) }()
	if err := a.Wait(ctx, Limits{MinFree: 1, MaxFree: 1 << 40}, nil); !errors.Is(err, gone) {
		t.Errorf("got %v", err)
	}
	stop := a.Watch(Limits{MinFree: 1, MaxFree: 1 << 40}, nil)
	go func() { <-a.ctx.Done(); close(release) }()
	a.Close()
	stop()
	if left := len(f.onDisk()); left == 0 || left == 600 {
		t.Errorf("%d paths are left", left)
	}
	if n := count(log, "0 "); n != 0 {
		t.Errorf("complained: %q", log.all())
	}
	f.verify()
	if err := a.Wait(t.Context(), Limits{MinFree: 1, MaxFree: 2}, nil); err != nil {
		t.Errorf("after the end: %v", err)
	}
}

func TestAutoCannotLook(t *testing.T) {
	broken := errors.New("no such disk")
	a := NewAuto(nil, func() (uint64, error) { return 0, broken }, nil)
	defer a.Close()
	if err := a.Wait(t.Context(), Limits{MinFree: 1, MaxFree: 2}, nil); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}

func TestAvailable(t *testing.T) {
	free, err := Available(t.TempDir())
	if err != nil || free == 0 {
		t.Errorf("got %d, %v", free, err)
	}
	if _, err := Available(t.TempDir() + "/none"); err == nil {
		t.Error("no error")
	}
}
