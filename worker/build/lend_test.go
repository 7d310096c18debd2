package build

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/storepath"
)

// ask is a builder that has derivations built for it, one request for all.
func (f *farm) ask(j *job) error {
	drvs := f.within[j.drv.Name]
	if len(drvs) == 0 {
		return nil
	}
	user, client := f.sched.chargedTo(j)
	r, err := f.sched.newNestedRequest(j.ctx, f.session(user, client, j.settings.MaxJobs), j)
	if err != nil {
		return err
	}
	defer r.end()
	var paths []derivation.DerivedPath
	for _, drv := range drvs {
		paths = append(paths, built(drv))
	}
	results, err := r.withResults(paths, derivation.BuildNormal)
	for _, res := range results {
		if !res.Status.Success() {
			err = errors.Join(err, errors.New(res.ErrorMsg))
		}
	}
	return err
}

// TestWithin has builders ask for builds, which ask for builds, with fewer slots than builders. Each of those that wait
// lends its slot to one other.
func TestWithin(t *testing.T) {
	for _, tt := range []struct {
		name  string
		slots int
		jobs  uint
		outer int // so many builders, each with a middle one and two leaves in that
		most  int // builders at once, those that wait included
	}{
		{"one slot", 1, 1, 1, 3},
		{"one job of many slots", 4, 1, 1, 3},
		{"every slot held by a builder that waits", 2, 2, 2, 6},
		{"free slots are used", 3, 3, 1, 4},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFarm(t, tt.slots)
				defer f.close()
				f.within = make(map[string][]storepath.Path)
				var outer []storepath.Path
				for i := range tt.outer {
					id := string(rune('a' + i))
					f.within["middle-"+id] = []storepath.Path{f.drv("leaf-1-" + id), f.drv("leaf-2-" + id)}
					f.within["outer-"+id] = []storepath.Path{f.drv("middle-" + id)}
					outer = append(outer, f.drv("outer-"+id))
				}
				if err := <-f.request(context.Background(), f.session("alice", 1, tt.jobs), outer...); err != nil {
					t.Fatal(err)
				}
				if len(f.order) != 4*tt.outer || f.most != tt.most {
					t.Errorf("started %q, %d at once, want %d", f.order, f.most, tt.most)
				}
			})
		})
	}
}

// TestWithinGoesBeforeStrangers: who queued for the slot while a builder held it does not come between.
func TestWithinGoesBeforeStrangers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFarm(t, 1)
		defer f.close()
		f.within = map[string][]storepath.Path{"outer": {f.drv("inner-1"), f.drv("inner-2")}}
		outer, stranger := f.drv("outer"), f.drv("stranger")
		hold := make(chan struct{})
		f.play = func(name string) outcome {
			if name == "outer" {
				<-hold
			}
			return outcome{}
		}
		a := f.request(context.Background(), f.session("alice", 1, 1), outer)
		synctest.Wait()
		b := f.request(context.Background(), f.session("bob", 2, 1), stranger)
		synctest.Wait()
		close(hold)
		if err := errors.Join(<-a, <-b); err != nil {
			t.Error(err)
		}
		if want := []string{"outer", "inner-1", "inner-2", "stranger"}; !slices.Equal(f.order, want) {
			t.Errorf("order %q, want %q", f.order, want)
		}
	})
}

// TestWithinItself has a builder ask for what it builds, at once and by way of another builder.
func TestWithinItself(t *testing.T) {
	for _, inner := range []string{"outer", "other"} {
		synctest.Test(t, func(t *testing.T) {
			f := newFarm(t, 1)
			defer f.close()
			outer, other := f.drv("outer"), f.drv("other")
			f.within = map[string][]storepath.Path{"outer": {map[string]storepath.Path{"outer": outer, "other": other}[inner]}, "other": {outer}}
			err := <-f.request(context.Background(), f.session("alice", 1, 1), outer)
			if err == nil || !strings.Contains(err.Error(), "is being built by the builder that asks for it") {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestWithinEachOther has two builders that run already ask for each other: one of them must be told.
func TestWithinEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFarm(t, 2)
		defer f.close()
		a, b := f.drv("a"), f.drv("b")
		f.within = map[string][]storepath.Path{"a": {b}, "b": {a}}
		hold := make(chan struct{})
		f.play = func(string) outcome {
			<-hold
			return outcome{}
		}
		first := f.request(context.Background(), f.session("alice", 1, 1), a)
		second := f.request(context.Background(), f.session("bob", 2, 1), b)
		synctest.Wait()
		close(hold)
		if err := errors.Join(<-first, <-second); err == nil || !strings.Contains(err.Error(), "by the builder that asks for it") {
			t.Errorf("got %v", err)
		}
	})
}

// TestLenderEnds gives up a builder whose slot is lent to a build that somebody else waits for, too: that keeps the slot,
// and no more than there are slots are in use.
func TestLenderEnds(t *testing.T) {
	for _, deep := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			f := newFarm(t, 1)
			defer f.close()
			shared, other, next := f.drv("shared"), f.drv("other"), f.drv("next")
			f.within = map[string][]storepath.Path{"outer": {shared}}
			top := f.drv("outer")
			if deep {
				f.within["top"] = []storepath.Path{top}
				top = f.drv("top")
			}
			hold := make(chan struct{})
			f.play = func(name string) outcome {
				if name == "shared" {
					<-hold
				}
				return outcome{}
			}
			ctx, cancel := context.WithCancel(context.Background())
			a := f.request(ctx, f.session("alice", 1, 1), top)
			synctest.Wait()
			b := f.request(context.Background(), f.session("bob", 2, 1), shared, other)
			c := f.request(context.Background(), f.session("carol", 3, 1), next)
			synctest.Wait()
			cancel()
			if err := <-a; !errors.Is(err, context.Canceled) {
				t.Errorf("cancelled request: %v", err)
			}
			synctest.Wait()
			f.sched.mu.Lock()
			if f.sched.slots.running != 1 || slices.Contains(f.order, "next") || slices.Contains(f.order, "other") {
				t.Errorf("%d slots are in use, started %q", f.sched.slots.running, f.order)
			}
			f.sched.mu.Unlock()
			close(hold)
			if err := errors.Join(<-b, <-c); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestWithinWhileClosing: the end of the daemon waits for a build, and so for what that needs.
func TestWithinWhileClosing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFarm(t, 1)
		f.within = map[string][]storepath.Path{"outer": {f.drv("inner")}}
		f.play = func(name string) outcome {
			if name == "outer" {
				time.Sleep(time.Second)
			}
			return outcome{}
		}
		done := f.request(context.Background(), f.session("alice", 1, 1), f.drv("outer"))
		synctest.Wait()
		f.close()
		if err := <-done; err != nil || !slices.Equal(f.order, []string{"outer", "inner"}) {
			t.Errorf("got %v, started %q", err, f.order)
		}
	})
}

// TestNestedLog: what builds within say is told to all, but it is not the end of the outer one's log.
func TestNestedLog(t *testing.T) {
	var f feed
	var told recorder
	f.join(&told, &told)
	say := func(to activity.Sink, text string) {
		to.Result(1, activity.BuildLogLine, []activity.Field{activity.Text(text)})
	}
	say(&f, "outer")
	say(nestedLog{&f}, "inner")
	if got := f.tail(10); !slices.Equal(got, []string{"outer"}) {
		t.Errorf("end of the log is %q", got)
	}
	if got := told.lines(); !slices.Equal(got, []string{"outer", "inner"}) {
		t.Errorf("told %q", got)
	}
}
