package build

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"nixdaemon/localstore"
	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker/session"
)

// fakeStore holds derivations and which paths are valid.
type fakeStore struct {
	Store // for what is not used
	mu    sync.Mutex
	drvs  map[storepath.Path]*derivation.Derivation
	valid map[storepath.Path]bool
}

func (s *fakeStore) Dir() storepath.Dir { return storepath.DefaultDir }

func (s *fakeStore) IsValid(_ context.Context, p storepath.Path) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.valid[p] || s.drvs[p] != nil, nil
}

func (s *fakeStore) ReadDerivation(_ context.Context, p storepath.Path) (*derivation.Derivation, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if drv := s.drvs[p]; drv != nil {
		return drv, nil
	}
	return nil, &localstore.NotValidError{Path: p.Base()}
}

func (s *fakeStore) setValid(p storepath.Path) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.valid[p] = true
}

// farm is a scheduler whose builds are played by the test.
type farm struct {
	t     *testing.T
	store *fakeStore
	sched *Scheduler
	n     int

	mu      sync.Mutex
	order   []string // names in the order of their start
	running int
	most    int
	killed  []string
	// play decides how a build ends; by default each takes one second and succeeds.
	play func(name string) outcome
	// within is what builders, by name, have built for them before they do their own work.
	within map[string][]storepath.Path
}

func newFarm(t *testing.T, slots int) *farm {
	f := &farm{t: t, store: &fakeStore{drvs: make(map[storepath.Path]*derivation.Derivation), valid: make(map[storepath.Path]bool)}}
	f.sched = newScheduler(f.store, nil, new(activity.IDs), zerolog.Nop(), slots, f.run)
	return f
}

// waits has a build give its slot back, and ask for one again, before it runs.
func (f *farm) waits(name, reason string) {
	f.sched.run = func(s *Scheduler, j *job) outcome {
		if j.drv.Name == name {
			s.giveSlotBack(j, reason)
			if err := s.takeSlot(j); err != nil {
				return outcome{err: err}
			}
		}
		return f.run(s, j)
	}
}

func (f *farm) run(_ *Scheduler, j *job) outcome {
	f.mu.Lock()
	f.order = append(f.order, j.drv.Name)
	f.running++
	f.most = max(f.most, f.running)
	f.mu.Unlock()
	j.hasBegun()
	defer func() {
		f.mu.Lock()
		f.running--
		f.mu.Unlock()
	}()
	if f.play != nil {
		if out := f.play(j.drv.Name); out.failure != nil || out.err != nil {
			return out
		}
	}
	if err := f.ask(j); err != nil && j.ctx.Err() == nil {
		return failed(err)
	}
	select {
	case <-time.After(time.Second):
	case <-j.ctx.Done():
		f.mu.Lock()
		f.killed = append(f.killed, j.drv.Name)
		f.mu.Unlock()
		return outcome{err: j.ctx.Err()}
	}
	out := j.drv.Outputs["out"].Path
	f.store.setValid(out)
	return outcome{status: derivation.StatusBuilt, outputs: map[string]storepath.Path{"out": out}}
}

func (f *farm) drv(name string, inputs ...storepath.Path) storepath.Path {
	f.n++
	drv := &derivation.Derivation{
		BasicDerivation: derivation.BasicDerivation{Name: name, Platform: "x86_64-linux", Builder: "/bin/sh",
			Outputs: map[string]derivation.Output{"out": {Kind: derivation.InputAddressed, Path: testPath(f.n, name)}}},
		InputDrvs: make(map[storepath.Path]*derivation.InputOutputs),
	}
	for _, input := range inputs {
		drv.InputDrvs[input] = &derivation.InputOutputs{Outputs: []string{"out"}}
	}
	p := testPath(f.n, name+".drv")
	f.store.mu.Lock()
	defer f.store.mu.Unlock()
	f.store.drvs[p] = drv
	return p
}

type noRoots struct{}

func (noRoots) Add(context.Context, ...storepath.Path) error { return nil }

func (f *farm) session(user string, client uint64, jobs uint) *session.Session {
	s := testSettings()
	s.MaxJobs = jobs
	return &session.Session{User: user, Client: client, Settings: s, Log: &recorder{}, Roots: noRoots{}}
}

// request starts a request for the derivations; the result comes later.
func (f *farm) request(ctx context.Context, sess *session.Session, drvs ...storepath.Path) <-chan error {
	return ask(ctx, f.sched, sess, drvs...)
}

func (f *farm) close() {
	if err := f.sched.Close(context.Background()); err != nil {
		f.t.Error(err)
	}
	f.sched.mu.Lock()
	defer f.sched.mu.Unlock()
	if len(f.sched.jobs) != 0 || f.sched.slots.running != 0 || len(f.sched.slots.users.items) != 0 {
		f.t.Errorf("left behind: %d jobs, %d slots, %d users", len(f.sched.jobs), f.sched.slots.running, len(f.sched.slots.users.items))
	}
}

func TestFairSlots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFarm(t, 1)
		defer f.close()
		var alice, bob1, bob2 []storepath.Path
		for i := range 6 {
			alice = append(alice, f.drv(fmt.Sprintf("alice%d", i)))
		}
		for i := range 2 {
			bob1 = append(bob1, f.drv(fmt.Sprintf("bob1-%d", i)))
			bob2 = append(bob2, f.drv(fmt.Sprintf("bob2-%d", i)))
		}
		ctx := context.Background()
		a := f.request(ctx, f.session("alice", 1, 4), alice...)
		synctest.Wait()
		b := f.request(ctx, f.session("bob", 2, 4), bob1...)
		synctest.Wait()
		c := f.request(ctx, f.session("bob", 3, 4), bob2...)
		for _, done := range []<-chan error{a, b, c} {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		// alice0 ran before bob came; then the users take turns, and so do bob's clients.
		want := []string{"alice0", "bob1-0", "alice1", "bob2-0", "alice2", "bob1-1", "alice3", "bob2-1", "alice4", "alice5"}
		if !slices.Equal(f.order, want) {
			t.Errorf("order %q, want %q", f.order, want)
		}
		if f.most != 1 {
			t.Errorf("%d at once with one slot", f.most)
		}
	})
}

func TestCaps(t *testing.T) {
	for _, tt := range []struct {
		total int
		jobs  uint
		want  int
	}{{4, 2, 2}, {2, 8, 2}, {3, 3, 3}} {
		synctest.Test(t, func(t *testing.T) {
			f := newFarm(t, tt.total)
			defer f.close()
			var drvs []storepath.Path
			for i := range 10 {
				drvs = append(drvs, f.drv(fmt.Sprintf("d%d", i)))
			}
			if err := <-f.request(context.Background(), f.session("alice", 1, tt.jobs), drvs...); err != nil {
				t.Error(err)
			}
			if f.most != tt.want {
				t.Errorf("%d slots, max-jobs %d: %d at once, want %d", tt.total, tt.jobs, f.most, tt.want)
			}
		})
	}
}

// TestCapLeavesSlotsToOthers has one client at its limit while slots are free.
func TestCapLeavesSlotsToOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFarm(t, 2)
		defer f.close()
		a := f.request(context.Background(), f.session("alice", 1, 1), f.drv("a0"), f.drv("a1"), f.drv("a2"))
		synctest.Wait()
		b := f.request(context.Background(), f.session("alice", 2, 1), f.drv("b0"))
		synctest.Wait()
		st := f.sched.Status()
		if st.Running != 2 || len(st.Builds) != 4 || st.Builds[0].State != "running" || st.Builds[3].State != "queued" || len(st.Clients) != 2 {
			t.Errorf("status %+v", st)
		}
		if err := errors.Join(<-a, <-b); err != nil {
			t.Error(err)
		}
	})
}

func TestJoinedJobIsBuiltOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFarm(t, 4)
		defer f.close()
		drv := f.drv("shared")
		var waits []<-chan error
		for i := range 5 {
			waits = append(waits, f.request(context.Background(), f.session("user", uint64(i), 2), drv))
		}
		synctest.Wait()
		// A client with other settings does not share the outcome.
		other := f.session("user", 9, 2)
		other.Settings.Timeout = 7
		waits = append(waits, f.request(context.Background(), other, drv))
		for _, done := range waits {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if len(f.order) != 2 {
			t.Errorf("started %q, want two builds", f.order)
		}
	})
}

func TestJobLivesAsLongAsAnybodyWantsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFarm(t, 4)
		defer f.close()
		shared, alone, queued := f.drv("shared"), f.drv("alone"), f.drv("zqueued")
		ctx, cancel := context.WithCancel(context.Background())
		a := f.request(ctx, f.session("alice", 1, 2), shared, alone, queued)
		synctest.Wait()
		b := f.request(context.Background(), f.session("bob", 2, 2), shared)
		synctest.Wait()
		cancel()
		if err := <-a; !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled request: %v", err)
		}
		if err := <-b; err != nil {
			t.Errorf("other request: %v", err)
		}
		synctest.Wait()
		if !slices.Equal(f.killed, []string{"alone"}) || slices.Contains(f.order, "zqueued") {
			t.Errorf("killed %q, started %q", f.killed, f.order)
		}
	})
}

func failing(names ...string) func(string) outcome {
	return func(name string) outcome {
		if slices.Contains(names, name) {
			return outcome{failure: failuref(derivation.StatusPermanentFailure, "'%s' is broken", name)}
		}
		return outcome{}
	}
}

func TestFailureEndsTheRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFarm(t, 4)
		defer f.close()
		f.play = failing("bad")
		bad, slow := f.drv("bad"), f.drv("slow")
		top := f.drv("top", bad, slow)
		err := <-f.request(context.Background(), f.session("alice", 1, 4), top)
		var failure *Failure
		if !errors.As(err, &failure) || failure.Status != derivation.StatusDependencyFailed {
			t.Fatalf("got %v", err)
		}
		synctest.Wait()
		if !slices.Equal(f.killed, []string{"slow"}) || slices.Contains(f.order, "top") {
			t.Errorf("killed %q, started %q", f.killed, f.order)
		}
	})
}

func TestKeepGoing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFarm(t, 4)
		defer f.close()
		f.play = failing("bad")
		bad, good := f.drv("bad"), f.drv("good")
		sess := f.session("alice", 1, 4)
		sess.Settings.KeepGoing = true
		err := <-f.request(context.Background(), sess, f.drv("top", bad, good), f.drv("other"))
		if err == nil || !strings.Contains(err.Error(), "Reason: 1 dependency failed.") {
			t.Errorf("got %v", err)
		}
		if len(f.killed) != 0 || !slices.Contains(f.order, "other") || !slices.Contains(f.order, "good") {
			t.Errorf("killed %q, started %q", f.killed, f.order)
		}
		// The failure of the dependency was shown when it happened.
		if got := withoutColours(sess.Log.(*recorder).logged()); got != "error: 'bad' is broken" {
			t.Errorf("logged %q", got)
		}
	})
}

func TestErrorsEndTheRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFarm(t, 4)
		defer f.close()
		f.play = func(name string) outcome { return outcome{err: errors.New("disk on fire")} }
		if err := <-f.request(context.Background(), f.session("alice", 1, 4), f.drv("a")); err == nil || err.Error() != "disk on fire" {
			t.Errorf("got %v", err)
		}
		f.play = func(string) outcome { panic("bug") }
		if err := <-f.request(context.Background(), f.session("alice", 1, 4), f.drv("b")); err == nil || !strings.Contains(err.Error(), "internal error") {
			t.Errorf("got %v", err)
		}
	})
}

// TestSlotIsGivenBack lets a build wait for somebody else: another one runs meanwhile, and the first goes on later.
func TestSlotIsGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFarm(t, 1)
		defer f.close()
		var steps []string
		f.sched.run = func(s *Scheduler, j *job) outcome {
			if j.drv.Name == "waiter" {
				s.giveSlotBack(j, "a lock")
				time.Sleep(500 * time.Millisecond)
				if err := s.takeSlot(j); err != nil {
					return outcome{err: err}
				}
				steps = append(steps, fmt.Sprint("resumed with ", f.running))
			}
			return f.run(s, j)
		}
		sess := f.session("alice", 1, 1)
		done := f.request(context.Background(), sess, f.drv("waiter"), f.drv("xother"))
		synctest.Wait()
		if st := f.sched.Status(); st.Builds[1].State != "waiting" || st.Builds[1].Reason != "a lock" {
			t.Errorf("status %+v", st.Builds)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		if !slices.Equal(f.order, []string{"xother", "waiter"}) || !slices.Equal(steps, []string{"resumed with 0"}) || f.most != 1 {
			t.Errorf("order %q, steps %q, %d at once", f.order, steps, f.most)
		}
	})
}

// TestWaitingForSlotIsGivenUp cancels a build that waits to go on.
func TestWaitingForSlotIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFarm(t, 1)
		defer f.close()
		f.waits("waiter", "a lock")
		ctx, cancel := context.WithCancel(context.Background())
		other := f.drv("aother")
		a := f.request(ctx, f.session("alice", 1, 1), f.drv("waiter"))
		b := f.request(context.Background(), f.session("bob", 2, 1), other)
		synctest.Wait()
		cancel()
		<-a
		if err := <-b; err != nil {
			t.Error(err)
		}
	})
}

func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFarm(t, 1)
		done := f.request(context.Background(), f.session("alice", 1, 1), f.drv("a"))
		synctest.Wait()
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		if err := f.sched.Close(ctx); err != nil {
			t.Error(err)
		}
		if err := <-done; err == nil {
			t.Error("the request has survived the end")
		}
		if err := <-f.request(context.Background(), f.session("alice", 1, 1), f.drv("b")); err != ErrClosed {
			t.Errorf("after the end: %v", err)
		}
	})
}

// TestLargeGraph builds many derivations that share inputs, each once.
func TestLargeGraph(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFarm(t, 64)
		defer f.close()
		var layer []storepath.Path
		for i := range 50 {
			var next []storepath.Path
			for j := range 40 {
				inputs := layer
				if len(inputs) > 5 {
					inputs = inputs[j%35 : j%35+5]
				}
				next = append(next, f.drv(fmt.Sprintf("d%d-%d", i, j), inputs...))
			}
			layer = next
		}
		if err := <-f.request(context.Background(), f.session("alice", 1, 64), layer...); err != nil {
			t.Fatal(err)
		}
		if len(f.order) != len(slices.Compact(slices.Sorted(slices.Values(f.order)))) {
			t.Error("something was built twice")
		}
	})
}
