package build

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/storepath"
)

// printWaits has a line for each.
func printWaits(list []Wait, all int) string {
	var lines []string
	for _, w := range list {
		line := fmt.Sprintf("%s %v: %s, %d %s:", w.User, w.Fetch, w.Path.Name(), w.Open, w.Reason)
		for _, c := range w.For {
			line += fmt.Sprintf(" %s %v %s", c.Path.Name(), c.Fetch, c.State)
		}
		lines = append(lines, line)
	}
	return strings.Join(append(lines, fmt.Sprint(all)), "\n")
}

// TestWaits: what waits for inputs is listed with the work at the bottom, as far as wanted, and not when it is queued.
func TestWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFarm(t, 1)
		defer f.close()
		a, b := f.drv("a"), f.drv("b")
		mid := f.drv("mid", a, b)
		top := f.drv("top", mid)
		if got := printWaits(f.sched.Waits(9)); got != "0" {
			t.Errorf("nobody wants anything, got\n%s", got)
		}
		done := f.request(context.Background(), f.session("alice", 1, 9), top)
		synctest.Wait()
		const want = "alice false: top.drv, 1 inputs: a.drv false running b.drv false queued\n" +
			"alice false: mid.drv, 2 inputs: a.drv false running b.drv false queued\n2"
		if got := printWaits(f.sched.Waits(9)); got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
		if got := printWaits(f.sched.Waits(1)); got != want {
			t.Errorf("asked again at once it is looked at again:\n%s", got)
		}
		time.Sleep(waitsAge)
		if got := printWaits(f.sched.Waits(1)); got != strings.Split(want, "\n")[0]+"\n2" {
			t.Errorf("one of them: got\n%s", got)
		}
		time.Sleep(2*time.Second + waitsAge)
		if got, want := printWaits(f.sched.Waits(9)), "alice false: top.drv, 1 inputs: mid.drv false running\n1"; got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestWaitsOfFetches: a path waits for references, and for its turn.
func TestWaitsOfFetches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, c, sess := newCachedFarm(t)
		defer f.close()
		low, high, other := testPath(901, "low"), testPath(902, "high"), testPath(903, "other")
		c.has[low], c.has[other], c.has[high] = nil, nil, []storepath.Path{low}
		sess.Settings.MaxSubstitutionJobs = 1
		done := make(chan error, 1)
		go func() {
			done <- f.sched.BuildPaths(context.Background(), sess, []derivation.DerivedPath{{Path: high}, {Path: other}}, derivation.BuildNormal)
		}()
		synctest.Wait()
		got, all := f.sched.Waits(9)
		var reasons []string
		for _, w := range got {
			if !w.Fetch {
				t.Errorf("%+v is no path", w)
			}
			reasons = append(reasons, w.Path.Name()+" "+w.Reason)
		}
		// Either of the two that can be fetched is first.
		first, second := "low", "other"
		if strings.Contains(strings.Join(reasons, ","), "low substitution slot") {
			first, second = second, first
		}
		if want := second + " substitution slot,high references"; strings.Join(reasons, ",") != want || all != 2 || len(got[1].For) != 1 || got[1].For[0].Path != low {
			t.Errorf("while %s is fetched: %v, %+v, want %s", first, reasons, got, want)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestWaitsOfBusyRequest: one that is at work does not hold up who looks, and is asked once.
func TestWaitsOfBusyRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newFarm(t, 1).sched
		r := &request{s: s, inbox: inbox{signal: make(chan struct{}, 1)}}
		s.requests[r] = struct{}{}
		for range 3 {
			began := time.Now()
			if list, all := s.Waits(9); list != nil || all != 0 || time.Since(began) != waitsPatience {
				t.Errorf("got %v, %d after %v", list, all, time.Since(began))
			}
		}
		notices := r.inbox.take()
		if len(notices) != 1 {
			t.Fatalf("asked %d times", len(notices))
		}
		r.waits.answer([]Wait{{Reason: waitInputs}}, 7)
		if list, all := s.Waits(9); len(list) != 1 || all != 7 {
			t.Errorf("got %v, %d", list, all)
		}
	})
}

// BenchmarkWaits is what a look costs where five thousand builds wait.
func BenchmarkWaits(b *testing.B) {
	f := &farm{store: &fakeStore{drvs: make(map[storepath.Path]*derivation.Derivation), valid: make(map[storepath.Path]bool)}}
	f.sched = newScheduler(f.store, nil, new(activity.IDs), zerolog.Nop(), 1, f.run)
	first := f.drv("first")
	var drvs []storepath.Path
	for i := range 5000 {
		inputs := []storepath.Path{first}
		if i > 10 {
			inputs = append(inputs, drvs[i-1], drvs[i/2])
		}
		drvs = append(drvs, f.drv(fmt.Sprint("d", i), inputs...))
	}
	ended := make(chan struct{})
	f.play = func(string) outcome { <-ended; return outcome{err: context.Canceled} }
	ctx, cancel := context.WithCancel(context.Background())
	done := f.request(ctx, f.session("alice", 1, 1), drvs...)
	for all := 0; all != 5000; _, all = f.sched.Waits(100) {
		time.Sleep(time.Millisecond)
	}
	var r *request
	for r = range f.sched.requests {
	}
	b.ReportAllocs()
	for b.Loop() { // it sleeps, so it may be looked at from here
		if list, all := r.waiting(100); len(list) != 100 || all != 5000 {
			b.Fatal(len(list), all)
		}
	}
	cancel()
	close(ended)
	<-done
}
