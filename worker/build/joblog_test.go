package build

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker/settings"
)

func TestJobLogHolds(t *testing.T) {
	log := &recorder{}
	l := &jobLog{sink: log}
	l.Start(1, activity.Info, activity.Build, "early", nil, 0)
	l.hold()
	l.Start(2, activity.Info, activity.Build, "late", nil, 0)
	l.Message(activity.Info, "said")
	if len(log.starts) != 1 || log.logged() != "" {
		t.Errorf("not held: %+v, %q", log.starts, log.logged())
	}
	l.release(1)
	if len(log.starts) != 2 || log.logged() != "said" {
		t.Errorf("not released: %+v, %q", log.starts, log.logged())
	}
	l.hold()
	l.Stop(1)
	l.Start(3, activity.Info, activity.Build, "never", nil, 0)
	l.Result(3, activity.SetPhase, []activity.Field{activity.Text("phase")})
	l.end()
	l.hold()
	l.Stop(3)
	l.Stop(2)
	if len(log.starts) != 2 || len(log.results) != 0 || log.unstopped() != 0 {
		t.Errorf("after the end: %+v, %+v", log.starts, log.results)
	}
}

// TestJobLogTells what has begun, though another job that has failed since holds the log.
func TestJobLogTells(t *testing.T) {
	log := &recorder{}
	l := &jobLog{sink: log}
	l.hold()
	l.Start(1, activity.Info, activity.Build, "second", nil, 0)
	l.hold()
	l.Stop(1)
	l.release(1)
	if len(log.starts) != 0 {
		t.Errorf("not held: %+v", log.starts)
	}
	l.tell()
	l.end()
	if len(log.starts) != 1 || log.unstopped() != 0 {
		t.Errorf("told of %+v, %d have not stopped", log.starts, log.unstopped())
	}
}

// TestJobLogIsBounded: what is held is not without end, and nothing is lost or changes places.
func TestJobLogIsBounded(t *testing.T) {
	log := &recorder{}
	l := &jobLog{sink: log}
	l.hold()
	var want []string
	for i := range 2*maxHeld + 10 {
		want = append(want, fmt.Sprint(i))
		l.Message(activity.Info, want[i])
		if len(l.queue) > maxHeld {
			t.Fatalf("%d calls are held", len(l.queue))
		}
	}
	l.release(1)
	if diff := cmp.Diff(want, log.messages); diff != "" {
		t.Errorf("messages (-want +got)\n%s", diff)
	}
}

// TestNextBuildAfterFailure has one job at a time: the second begins when the first has failed only if its request goes
// on, or if the failure takes a while to reach what was asked for.
func TestNextBuildAfterFailure(t *testing.T) {
	for _, tt := range []struct {
		name             string
		asked, keepGoing bool // for both of them rather than for what needs them
		want             int
	}{
		{"asked for", true, false, 1},
		{"needed", false, false, 2},
		{"asked for, keep going", true, true, 2},
		{"needed, keep going", false, true, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.set(func(s *settings.Settings) { s.MaxJobs, s.KeepGoing = 1, tt.keepGoing })
			for i := range 10 {
				w.log.forget()
				script := fmt.Sprintf("exit 1 # %d", i)
				one, two := w.drv("a-fails", script), w.drv("b-fails", script)
				wanted := []derivation.DerivedPath{built(one), built(two)}
				if !tt.asked {
					wanted = []derivation.DerivedPath{built(w.drv("needs", script, func(d *derivation.Derivation) {
						for _, p := range []storepath.Path{one, two} {
							d.InputDrvs[p] = &derivation.InputOutputs{Outputs: []string{"out"}}
						}
					}))}
				}
				err := w.sched.BuildPaths(w.ctx, w.sess, wanted, derivation.BuildNormal)
				if err == nil || errors.Is(err, errStuck) {
					t.Fatal(err)
				}
				if got := w.log.activities(activity.Build); len(got) != tt.want || !strings.Contains(got[0], "-fails") {
					t.Errorf("builds %q, want %d", got, tt.want)
				}
				if n := w.log.unstopped(); n != 0 {
					t.Errorf("%d activities have not stopped", n)
				}
			}
		})
	}
}

func (r *recorder) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.messages, r.starts, r.stops, r.results = nil, nil, nil, nil
}
