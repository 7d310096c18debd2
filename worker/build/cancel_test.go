package build

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"nixdaemon/protocol/derivation"
)

// wantCancelled wants the error of a request whose build was cancelled by a user.
func wantCancelled(t *testing.T, err error, by string) {
	t.Helper()
	f, ok := err.(*Failure)
	if !ok || f.Status != derivation.StatusMiscFailure || !strings.HasSuffix(f.Error(), "' was cancelled by user '"+by+"'") {
		t.Errorf("got %v, want cancelled by %s", err, by)
	}
}

func TestCancelBuild(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		eye := &witness{}
		f := newFarm(t, 1)
		defer f.close()
		f.sched.observer = eye
		one, two := f.drv("one"), f.drv("two")
		alice := f.request(context.Background(), f.session("alice", 1, 1), one)
		synctest.Wait()
		bob := f.request(context.Background(), f.session("bob", 2, 1), two)
		synctest.Wait()
		for _, tt := range []struct {
			id   BuildID
			by   string
			want error
		}{{3, "alice", ErrNoBuild}, {1, "bob", ErrNotYours}, {2, "alice", ErrNotYours}} {
			if err := f.sched.Cancel(tt.id, tt.by, true); !errors.Is(err, tt.want) {
				t.Errorf("%s cancels %d: %v, want %v", tt.by, tt.id, err, tt.want)
			}
		}
		// One that waits, then one that runs.
		if err := f.sched.Cancel(2, "root", false); err != nil {
			t.Error(err)
		}
		wantCancelled(t, <-bob, "root")
		if err := f.sched.Cancel(1, "alice", true); err != nil {
			t.Error(err)
		}
		wantCancelled(t, <-alice, "alice")
		if !slices.Equal(f.killed, []string{"one"}) || !slices.Equal(f.order, []string{"one"}) {
			t.Errorf("killed %q of %q", f.killed, f.order)
		}
		for _, id := range []BuildID{1, 2} {
			if got := eye.of(id); !strings.Contains(got[len(got)-1], "was cancelled") {
				t.Errorf("%d: told %q", id, got)
			}
		}
		// It can be built again.
		if err := <-f.request(context.Background(), f.session("alice", 1, 1), one); err != nil {
			t.Error(err)
		}
		if st := f.sched.Status(); len(st.Builds)+len(st.Clients)+len(st.Requests) != 0 || st.Running != 0 {
			t.Errorf("left over: %+v", st)
		}
	})
}

// TestCancelMine leaves a build to others who want it.
func TestCancelBuildMine(t *testing.T) {
	for _, running := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			f := newFarm(t, 1)
			defer f.close()
			first := f.drv("first")
			shared := f.drv("shared")
			if !running {
				f.request(context.Background(), f.session("carol", 3, 1), first)
				synctest.Wait()
			}
			alice := f.request(context.Background(), f.session("alice", 1, 1), shared)
			bob := f.request(context.Background(), f.session("bob", 2, 1), shared)
			synctest.Wait()
			builds := f.sched.Status().Builds
			id := builds[len(builds)-1].ID
			if err := f.sched.Cancel(id, "alice", true); err != nil {
				t.Error(err)
			}
			wantCancelled(t, <-alice, "alice")
			if err := f.sched.Cancel(id, "alice", true); !errors.Is(err, ErrNotYours) {
				t.Errorf("cancelled again: %v", err)
			}
			if err := <-bob; err != nil {
				t.Errorf("who had not cancelled: %v", err)
			}
		})
	}
}

// TestCancelWithKeepGoing fails what needs the build and goes on with the rest.
func TestCancelBuildWithKeepGoing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFarm(t, 1)
		defer f.close()
		leaf := f.drv("leaf")
		sess := f.session("alice", 1, 1)
		sess.Settings.KeepGoing = true
		done := f.request(context.Background(), sess, f.drv("needs", leaf), f.drv("other"))
		synctest.Wait()
		for _, b := range f.sched.Status().Builds {
			if b.Drv == leaf {
				if err := f.sched.Cancel(b.ID, "alice", true); err != nil {
					t.Error(err)
				}
			}
		}
		if err := <-done; err == nil {
			t.Error("nothing failed")
		}
		if !slices.Contains(f.order, "other") || slices.Contains(f.order, "needs") {
			t.Errorf("built %q", f.order)
		}
	})
}

func TestRequestCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFarm(t, 1)
		defer f.close()
		leaf := f.drv("leaf")
		done := f.request(context.Background(), f.session("alice", 1, 1), f.drv("needs", leaf), f.drv("other"))
		synctest.Wait()
		st := f.sched.Status()
		if len(st.Requests) != 1 || st.Requests[0].User != "alice" || st.Requests[0].Builds != (Count{Open: 3, Running: 1}) {
			t.Errorf("requests %+v", st.Requests)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		if n := len(f.sched.Status().Requests); n != 0 {
			t.Errorf("%d requests are left", n)
		}
	})
}
