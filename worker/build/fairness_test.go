package build

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker/session"
)

// many are derivations without inputs.
func (f *farm) many(prefix string, n int) []storepath.Path {
	drvs := make([]storepath.Path, n)
	for i := range drvs {
		drvs[i] = f.drv(fmt.Sprintf("%s%04d", prefix, i))
	}
	return drvs
}

// started are the builds that have begun so far, in their order.
func (f *farm) started() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.order)
}

// position is the place in the order of starts at which the first build with a prefix stands.
func (f *farm) position(prefix string) int {
	return slices.IndexFunc(f.started(), func(name string) bool { return strings.HasPrefix(name, prefix) })
}

// TestLatecomerIsSoonServed lets a user with 500 derivations fill all slots before another comes with one. That one
// gets the very next slot and is done when its own time is over, not after 500 others.
func TestLatecomerIsSoonServed(t *testing.T) {
	for _, slots := range []int{1, 2, 8} {
		synctest.Test(t, func(t *testing.T) {
			f := newFarm(t, slots)
			defer f.close()
			ctx, cancel := context.WithCancel(context.Background())
			a := f.request(ctx, f.session("alice", 1, 16), f.many("alice", 500)...)
			time.Sleep(2500 * time.Millisecond) // of the farm's clock: every build takes one second
			came, running := time.Now(), len(f.started())
			b := f.request(context.Background(), f.session("bob", 2, 16), f.drv("bob"))
			if err := <-b; err != nil {
				t.Error(err)
			}
			// Half a second until a slot is free, then the build itself.
			if took := time.Since(came); took != 1500*time.Millisecond {
				t.Errorf("%d slots: bob's build took %s", slots, took)
			}
			if at := f.position("bob"); at < running || at > running+slots {
				t.Errorf("%d slots: bob's build was the %dth to start, %d ran", slots, at, running)
			}
			cancel()
			<-a
		})
	}
}

// TestFairnessIsBetweenUsers lets one user come with many connections: that does not get them more slots.
func TestFairnessIsBetweenUsers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFarm(t, 2)
		defer f.close()
		var waits []<-chan error
		for client := range 10 {
			waits = append(waits, f.request(context.Background(), f.session("alice", uint64(client), 4), f.many(fmt.Sprintf("alice%d-", client), 10)...))
		}
		waits = append(waits, f.request(context.Background(), f.session("bob", 99, 4), f.many("bob", 20)...))
		time.Sleep(20500 * time.Millisecond)
		bob, started := 0, f.started()
		for _, name := range started {
			if strings.HasPrefix(name, "bob") {
				bob++
			}
		}
		// Two slots, twenty seconds: half of forty, give or take how it began.
		if bob < 18 || bob > 20 {
			t.Errorf("bob got %d of %d slots", bob, len(started))
		}
		for _, done := range waits {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	})
}

// TestJoinedAcrossUsers lets two users want the same derivations: each is built once, on either's share, and one
// user's leaving does not end what the other wants.
func TestJoinedAcrossUsers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFarm(t, 1)
		defer f.close()
		shared := f.many("shared", 10)
		own := f.many("alice", 10)
		ctx, cancel := context.WithCancel(context.Background())
		a := f.request(ctx, f.session("alice", 1, 1), slices.Concat(own, shared)...)
		synctest.Wait()
		b := f.request(context.Background(), f.session("bob", 2, 1), shared...)
		carol := f.request(context.Background(), f.session("carol", 3, 1), shared[9])
		time.Sleep(3500 * time.Millisecond)
		cancel()
		if err := <-a; !errors.Is(err, context.Canceled) {
			t.Errorf("alice: %v", err)
		}
		if err := errors.Join(<-b, <-carol); err != nil {
			t.Error(err)
		}
		counts := make(map[string]int)
		for _, name := range f.order {
			counts[name]++
		}
		for i := range shared {
			name := fmt.Sprintf("shared%04d", i)
			if counts[name] != 1 {
				t.Errorf("%s was built %d times", name, counts[name])
			}
		}
		for _, name := range f.killed {
			if strings.HasPrefix(name, "shared") {
				t.Errorf("%s was killed", name)
			}
		}
	})
}

// TestSettingsKeepBuildsApart asks at once for one derivation under settings that change how it is built, or do not.
func TestSettingsKeepBuildsApart(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*session.Session)
		want   int
	}{
		{"the same", func(*session.Session) {}, 1},
		{"how many jobs", func(s *session.Session) { s.Settings.MaxJobs = 7 }, 1},
		{"how much log", func(s *session.Session) { s.Settings.LogLines = 3 }, 1},
		{"keep going", func(s *session.Session) { s.Settings.KeepGoing = true }, 1},
		{"cores", func(s *session.Session) { s.Settings.Cores = 17 }, 2},
		{"keep failed", func(s *session.Session) { s.Settings.KeepFailed = true }, 2},
		{"silence", func(s *session.Session) { s.Settings.MaxSilentTime = 5 }, 2},
		{"log size", func(s *session.Session) { s.Settings.MaxBuildLogSize = 5 }, 2},
		{"hook", func(s *session.Session) { s.Settings.PostBuildHook = "/hook" }, 2},
		{"variables", func(s *session.Session) { s.Settings.ImpureEnv = map[string]string{"a": "b"} }, 2},
		{"external builders", func(s *session.Session) { s.Settings.ExternalBuilders = testExternal("x") }, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFarm(t, 4)
				defer f.close()
				drv := f.drv("d")
				other := f.session("bob", 2, 2)
				tt.change(other)
				a := f.request(context.Background(), f.session("alice", 1, 2), drv)
				b := f.request(context.Background(), other, drv)
				if err := errors.Join(<-a, <-b); err != nil {
					t.Error(err)
				}
				if len(f.order) != tt.want {
					t.Errorf("%d builds, want %d", len(f.order), tt.want)
				}
			})
		})
	}
}

// TestNoJobs has a client that allows no local builds beside one that does.
func TestNoJobs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFarm(t, 2)
		defer f.close()
		drv := f.drv("d")
		b := f.request(context.Background(), f.session("bob", 2, 1), drv)
		synctest.Wait()
		err := <-f.request(context.Background(), f.session("alice", 1, 0), drv)
		if err == nil || !strings.Contains(err.Error(), "Reason: local builds are disabled (max-jobs = 0)") {
			t.Errorf("got %v", err)
		}
		if err := <-b; err != nil {
			t.Error(err)
		}
		// What is there needs no job.
		if err := <-f.request(context.Background(), f.session("alice", 1, 0), drv); err != nil {
			t.Errorf("what is there: %v", err)
		}
	})
}

// TestTotalBoundsAll has more clients than slots, each allowed as many jobs as there are slots.
func TestTotalBoundsAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFarm(t, 3)
		defer f.close()
		var waits []<-chan error
		for client := range 5 {
			waits = append(waits, f.request(context.Background(), f.session(fmt.Sprint("user", client), uint64(client), 3), f.many(fmt.Sprintf("c%d-", client), 6)...))
		}
		start := time.Now()
		for _, done := range waits {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if took := time.Since(start); f.most != 3 || took != 10*time.Second {
			t.Errorf("%d at once, 30 builds of a second in %s", f.most, took)
		}
	})
}

// countingStore counts what is asked of a store.
type countingStore struct {
	*fakeStore
	calls atomic.Int64
}

func (s *countingStore) IsValid(ctx context.Context, p storepath.Path) (bool, error) {
	s.calls.Add(1)
	return s.fakeStore.IsValid(ctx, p)
}

func (s *countingStore) ReadDerivation(ctx context.Context, p storepath.Path) (*derivation.Derivation, error) {
	s.calls.Add(1)
	return s.fakeStore.ReadDerivation(ctx, p)
}

// countingSink counts what a client is sent.
type countingSink struct {
	activity.Discard
	results *atomic.Int64
}

func (s countingSink) Result(activity.ID, activity.ResultType, []activity.Field) { s.results.Add(1) }

// costs is what the scheduler alone spends on a request, its executor being done at once.
type costs struct {
	calls, results, allocs, bytes float64 // per build
	elapsed                       time.Duration
}

func measureRequest(tb testing.TB, n int) costs {
	tb.Helper()
	f := &farm{store: &fakeStore{drvs: make(map[storepath.Path]*derivation.Derivation), valid: make(map[storepath.Path]bool)}}
	store := &countingStore{fakeStore: f.store}
	f.sched = newScheduler(store, nil, new(activity.IDs), zerolog.Nop(), 2, func(_ *Scheduler, j *job) outcome {
		j.hasBegun()
		out := j.drv.Outputs["out"].Path
		f.store.setValid(out)
		return outcome{status: derivation.StatusBuilt, outputs: map[string]storepath.Path{"out": out}}
	})
	var paths []derivation.DerivedPath
	for _, drv := range f.many("d", n) {
		paths = append(paths, built(drv))
	}
	sess := f.session("alice", 1, 2)
	var results atomic.Int64
	sess.Log = countingSink{results: &results}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	start := time.Now()
	if err := f.sched.BuildPaths(context.Background(), sess, paths, derivation.BuildNormal); err != nil {
		tb.Fatal(err)
	}
	took := time.Since(start)
	runtime.ReadMemStats(&after)
	if err := f.sched.Close(context.Background()); err != nil {
		tb.Fatal(err)
	}
	per := func(v float64) float64 { return v / float64(n) }
	return costs{calls: per(float64(store.calls.Load())), results: per(float64(results.Load())),
		allocs: per(float64(after.Mallocs - before.Mallocs)), bytes: per(float64(after.TotalAlloc - before.TotalAlloc)), elapsed: took}
}

// TestCostIsLinear asks for 5,000 trivial derivations at once: each costs what it costs among 75.
func TestCostIsLinear(t *testing.T) {
	few, many := measureRequest(t, 75), measureRequest(t, 5000)
	t.Logf("per build: 75 %+v, 5000 %+v", few, many)
	for what, v := range map[string][2]float64{
		"questions to the store": {few.calls, many.calls},
		"results to the client":  {few.results, many.results},
		"allocations":            {few.allocs, many.allocs},
		"bytes allocated":        {few.bytes, many.bytes},
	} {
		if v[1] > 1.3*v[0]+1 {
			t.Errorf("%s per build: %.1f among 5,000, %.1f among 75", what, v[1], v[0])
		}
	}
}

// BenchmarkScheduler is the scheduler's part of a request for independent derivations.
func BenchmarkScheduler(b *testing.B) {
	for _, n := range []int{75, 1200, 5000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			var sum time.Duration
			for range b.N {
				sum += measureRequest(b, n).elapsed
			}
			b.ReportMetric(float64(sum.Microseconds())/float64(n)/float64(b.N), "us/build")
		})
	}
}
