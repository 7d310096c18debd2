package build

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/storepath"
)

// briefFarm has builds that are over at once, whatever they tell.
func briefFarm(t *testing.T, fails bool) *farm {
	f := newFarm(t, 4)
	ids := new(activity.IDs)
	f.sched = newScheduler(f.store, nil, ids, zerolog.Nop(), 4, func(_ *Scheduler, j *job) outcome {
		id := ids.Next()
		j.feed.Start(id, activity.Info, activity.Build, j.drv.Name, nil, 0)
		j.hasBegun()
		j.feed.Result(id, activity.BuildLogLine, []activity.Field{activity.Text(j.drv.Name)})
		j.feed.Stop(id)
		if fails {
			return failed(failuref(derivation.StatusPermanentFailure, "%s failed", j.drv.Name))
		}
		return outcome{status: derivation.StatusBuilt, outputs: map[string]storepath.Path{"out": j.drv.Outputs["out"].Path}}
	})
	return f
}

// TestBriefBuildIsTold has builds that end before whoever asked for them does anything else: they are told of all the
// same, also when they fail.
func TestBriefBuildIsTold(t *testing.T) {
	for _, fails := range []bool{false, true} {
		t.Run(fmt.Sprintf("fails %t", fails), func(t *testing.T) {
			f := briefFarm(t, fails)
			defer f.close()
			var workers sync.WaitGroup
			for worker := range 2 * runtime.GOMAXPROCS(0) {
				drvs := f.many(fmt.Sprintf("w%d-", worker), 300)
				workers.Go(func() {
					for _, drv := range drvs {
						sess := f.session("alice", uint64(worker), 4)
						log := sess.Log.(*recorder)
						err := f.sched.BuildPaths(context.Background(), sess, []derivation.DerivedPath{built(drv)}, derivation.BuildNormal)
						if (err != nil) != fails {
							t.Errorf("%s: %v", drv, err)
						}
						name := strings.TrimSuffix(drv.Name(), ".drv")
						if diff := cmp.Diff([]string{name}, log.activities(activity.Build)); diff != "" {
							t.Errorf("builds (-want +got):\n%s", diff)
							return
						}
						if diff := cmp.Diff([]string{name}, log.lines()); diff != "" || log.unstopped() != 0 {
							t.Errorf("lines (-want +got):\n%s\n%d activities have not stopped", diff, log.unstopped())
							return
						}
					}
				})
			}
			workers.Wait()
		})
	}
}

// TestLateJoiner comes when the build is over, and its failure holds back what its request's jobs tell.
func TestLateJoiner(t *testing.T) {
	var f feed
	f.Start(5, activity.Info, activity.Build, "building", nil, 0)
	f.Start(6, activity.Info, activity.FileTransfer, "of no interest any more", nil, 5)
	f.Result(5, activity.BuildLogLine, []activity.Field{activity.Text("line")})
	f.Message(activity.Error, "note")
	f.Stop(6)
	f.Stop(5)
	join := func() *recorder {
		log := &recorder{}
		jobs := &jobLog{sink: log}
		jobs.hold()
		f.join(jobs, log)
		jobs.end()
		return log
	}
	before := join()
	f.close()
	for when, log := range map[string]*recorder{"stopped": before, "closed": join()} {
		if diff := cmp.Diff([]string{"building"}, log.activities(activity.Build)); diff != "" || len(log.starts) != 1 || log.unstopped() != 0 {
			t.Errorf("%s: builds (-want +got):\n%s\nstarts %+v", when, diff, log.starts)
		}
		if diff := cmp.Diff([]string{"line"}, log.lines()); diff != "" || log.logged() != "note" {
			t.Errorf("%s: lines (-want +got):\n%s\nmessages %q", when, diff, log.logged())
		}
	}
}

// TestFeedForgetsBuilds: what is kept of builds that machines have begun and failed is bounded.
func TestFeedForgetsBuilds(t *testing.T) {
	var f feed
	for id := range activity.ID(3 * keptBuilds) {
		f.Start(id+1, activity.Info, activity.Build, fmt.Sprint(id), nil, 0)
		f.Stop(id + 1)
	}
	log := &recorder{}
	f.join(log, log)
	if got := log.activities(activity.Build); len(got) != keptBuilds || got[0] != fmt.Sprint(2*keptBuilds) {
		t.Errorf("told of %q", got)
	}
}

// BenchmarkFeed passes on the lines of a long log.
func BenchmarkFeed(b *testing.B) {
	var f feed
	fields := []activity.Field{activity.Text("a line as builders write them")}
	for b.Loop() {
		f.Result(5, activity.BuildLogLine, fields)
	}
}
