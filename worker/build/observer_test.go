package build

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/derivation"
)

// witness remembers what it is told of builds.
type witness struct {
	mu     sync.Mutex
	events []string
	ends   []EndedBuild
}

var _ Observer = (*witness)(nil)

func (w *witness) add(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events = append(w.events, fmt.Sprintf(format, args...))
}

func (w *witness) BuildQueued(b QueuedBuild) {
	w.add("%d queued %s for %s", b.ID, b.Drv.Name(), b.For.User)
}
func (w *witness) BuildWaits(id BuildID, reason string)  { w.add("%d waits for %s", id, reason) }
func (w *witness) BuildRuns(id BuildID)                  { w.add("%d runs", id) }
func (w *witness) BuildBegan(id BuildID, machine string) { w.add("%d began on %q", id, machine) }
func (w *witness) BuildPhase(id BuildID, phase string)   { w.add("%d phase %s", id, phase) }
func (w *witness) BuildEnded(id BuildID, b EndedBuild) {
	w.add("%d ended %d %v", id, b.Status, b.Err)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ends = append(w.ends, b)
}

// of are the events of one build.
func (w *witness) of(id BuildID) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var events []string
	for _, e := range w.events {
		if rest, ok := strings.CutPrefix(e, fmt.Sprint(id, " ")); ok {
			events = append(events, rest)
		}
	}
	return events
}

func TestObserver(t *testing.T) {
	eye := &witness{}
	w := newWorld(t, func(o *Options) { o.Observer = eye })
	good := w.drv("good", `echo '@nix {"action":"setPhase","phase":"buildPhase"}'; echo hello; echo > $out`)
	w.mustBuild(good)
	bad := w.drv("bad", "exit 3")
	w.mustFail(bad, derivation.StatusPermanentFailure)
	if got, want := eye.of(1), []string{"queued good.drv for alice", "waits for slot", "runs", `began on ""`, "phase buildPhase", "ended 0 <nil>"}; !slices.Equal(got, want) {
		t.Errorf("told %q, want %q", got, want)
	}
	if got := eye.of(2); !strings.HasPrefix(got[len(got)-1], "ended 3 builder for '") {
		t.Errorf("told %q", got)
	}
	end := eye.ends[0]
	if end.Drv != good || end.Began.IsZero() || end.Ended.Before(end.Began) || end.Began.Before(end.Time) || end.CPUUser+end.CPUSystem <= 0 ||
		end.LogSize < uint64(len("hello\n")) || !slices.Equal(end.Clients, []ClientID{{"alice", 1}}) {
		t.Errorf("told %+v", end)
	}
}

// TestObserverOfWaiting tells of slots and locks, and of builds that nobody wants any more.
func TestObserverOfWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		eye := &witness{}
		f := newFarm(t, 1)
		defer f.close()
		f.sched.observer = eye
		f.waits("waiter", "lock on it")
		done := f.request(context.Background(), f.session("alice", 1, 1), f.drv("waiter"))
		ctx, cancel := context.WithCancel(context.Background())
		synctest.Wait()
		never := f.request(ctx, f.session("bob", 2, 1), f.drv("never"))
		synctest.Wait()
		cancel()
		<-never
		if err := <-done; err != nil {
			t.Error(err)
		}
		if got, want := eye.of(1), []string{"queued waiter.drv for alice", "waits for slot", "runs", "waits for lock on it",
			"waits for slot", "runs", "ended 0 <nil>"}; !slices.Equal(got, want) {
			t.Errorf("told %q, want %q", got, want)
		}
		if got, want := eye.of(2), []string{"queued never.drv for bob", "waits for slot", "ended 0 context canceled"}; !slices.Equal(got, want) {
			t.Errorf("told %q, want %q", got, want)
		}
		if len(eye.ends[0].Clients) != 0 || eye.ends[0].For.User != "bob" {
			t.Errorf("told %+v", eye.ends[0])
		}
	})
}

// TestStatusOfBuilder tells what only the builder knows.
func TestStatusOfBuilder(t *testing.T) {
	w := newWorld(t)
	release := filepath.Join(t.TempDir(), "go-on")
	drv := w.drv("talker", `echo first; echo '@nix {"action":"setPhase","phase":"checkPhase"}'; echo second
until [ -e `+release+` ]; do sleep 0.05; done; echo > $out`)
	done := w.request(w.ctx, drv)
	w.until(func() bool { b := w.sched.Status().Builds; return len(b) == 1 && b[0].LastLine == "second" })
	b := w.sched.Status().Builds[0]
	if b.Phase != "checkPhase" || b.State != "running" || b.Began.IsZero() || b.ID != 1 || b.LogSize == 0 {
		t.Errorf("status %+v", b)
	}
	if err := os.WriteFile(release, nil, 0o644); err != nil {
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestLogLineCost has nothing allocated for a line only because somebody may look.
func TestLogLineCost(t *testing.T) {
	fields := []activity.Field{activity.Text("a line")}
	var f feed
	f.latest.phases = func(string) {}
	if n := testing.AllocsPerRun(100, func() { f.latest.note(activity.BuildLogLine, fields) }); n != 0 {
		t.Errorf("%v allocations for a line", n)
	}
}

func BenchmarkLogLine(b *testing.B) {
	fields := []activity.Field{activity.Text(strings.Repeat("x", 80))}
	var f feed
	b.ReportAllocs()
	for b.Loop() {
		f.Result(1, activity.BuildLogLine, fields)
	}
}

func TestMicroseconds(t *testing.T) {
	n := int64(1500)
	if microseconds(nil) != 0 || microseconds(&n) != 1500*time.Microsecond {
		t.Errorf("%v, %v", microseconds(nil), microseconds(&n))
	}
}
