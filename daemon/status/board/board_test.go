package board

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"nixdaemon/daemon/status"
	"nixdaemon/localstore/gc"
	"nixdaemon/protocol"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/storepath"
	"nixdaemon/sandbox"
	"nixdaemon/worker/build"
	"nixdaemon/worker/substitute"
)

func path(t testing.TB, name string) storepath.Path {
	t.Helper()
	p, err := storepath.ParseBase(strings.Repeat("a", 32) + "-" + name)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestServer(t *testing.T) {
	b := New("1.2.3")
	drv, out := path(t, "thing.drv"), path(t, "thing")
	now := time.Now()
	b.Watch(Sources{
		Dir: storepath.DefaultDir,
		Builds: func() build.Status {
			return build.Status{Slots: 4, Running: 1, Builds: []build.BuildStatus{{
				ID: 7, Drv: drv, Mode: derivation.BuildCheck, State: "running", Since: now, Queued: now, Began: now, Phase: "checkPhase",
				LastLine: "ok", LogSize: 9, PID: os.Getpid(), Clients: []build.ClientID{{User: "alice", Client: 1}, {User: "alice", Client: 2}, {User: "bob", Client: 3}},
			}, {ID: 8, Drv: drv, State: "queued", Cgroup: t.TempDir()}},
				Requests: []build.RequestStatus{{ClientID: build.ClientID{User: "alice", Client: 1}, Counts: build.Counts{Builds: build.Count{Open: 3}}}}}
		},
		Waits: func(most int) ([]build.Wait, int) {
			alice, bob := build.ClientID{User: "alice"}, build.ClientID{User: "bob"}
			return []build.Wait{
				{ClientID: alice, Path: drv, Reason: "inputs", Open: 1, For: []build.Cause{{Path: out, Fetch: true, State: "running"}}},
				{ClientID: bob, Path: drv, Reason: "inputs", Open: 1}, {ClientID: bob, Path: drv, Fetch: true, Reason: "substitution slot"},
			}, 5
		},
		Fetches: func() []substitute.FetchStatus {
			return []substitute.FetchStatus{{Fetch: substitute.Fetch{Path: out, Cache: "file:///c", NarSize: 10, User: "bob"}, Done: 4}}
		},
		Garbage: func() *gc.Progress {
			return &gc.Progress{Collection: gc.Collection{Action: gc.DeleteDead, For: "root", MaxFreed: 1<<64 - 1}, Step: "deleting", Dead: 5, Deleted: 2, BytesFreed: 30}
		},
	})
	s := b.Server()
	if s.PID != os.Getpid() || s.Release != "1.2.3" || s.State != "serving" || s.Slots != 4 || s.Memory == 0 {
		t.Errorf("server %+v", s)
	}
	one := s.Builds[0]
	if one.ID != fmt.Sprint(os.Getpid(), "-7") || one.Derivation != "/nix/store/"+drv.Base() || one.Mode != "check" || one.Phase != "checkPhase" ||
		one.LastLine != "ok" || fmt.Sprint(one.Users) != "[alice bob]" || one.Memory == 0 || one.Processes == 0 || !one.Began.Equal(now) {
		t.Errorf("build %+v", one)
	}
	if two := s.Builds[1]; two.Began != nil || two.Memory != 0 || two.Mode != "" {
		t.Errorf("build %+v", two)
	}
	if f := s.Substitutions[0]; f.Path != "/nix/store/"+out.Base() || f.Done != 4 || f.Size != 10 || f.Cache != "file:///c" || f.User != "bob" {
		t.Errorf("substitution %+v", f)
	}
	if c := s.Collection; c.Action != "delete-dead" || c.Step != "deleting" || c.Dead != 5 || c.Deleted != 2 || c.Freed != 30 || c.MaxFreed != 0 {
		t.Errorf("collection %+v", c)
	}
	if r := s.Requests[0]; r.User != "alice" || r.Builds.Open != 3 {
		t.Errorf("request %+v", r)
	}
	b.AddWaits(&s)
	if got, want := fmt.Sprint(s.Waiting, s.MoreWaiting), fmt.Sprintf("[{build %[1]s inputs 1 [{substitution %[2]s running}] [alice bob] 0} {substitution %[1]s substitution slot 0 [] [bob] 0}] 2",
		"/nix/store/"+drv.Base(), "/nix/store/"+out.Base()); got != want {
		t.Errorf("waiting %s, want %s", got, want)
	}
	b.Drain()
	if s := b.Server(); s.State != "draining" {
		t.Errorf("state %q", s.State)
	}
}

func TestClients(t *testing.T) {
	b := New("")
	c := b.Connect(status.Connection{Client: 5, User: "alice", PID: 99})
	c.OpBegan(protocol.OpBuildPaths)
	got := b.Server().Connections
	if len(got) != 1 || got[0].User != "alice" || got[0].Operation != "BuildPaths" || got[0].Began == nil || got[0].Operations != 1 {
		t.Errorf("connections %+v", got)
	}
	c.OpEnded(protocol.OpBuildPaths, nil)
	if got := b.Server().Connections; got[0].Operation != "" || got[0].Began != nil {
		t.Errorf("connections %+v", got)
	}
	c.Disconnected(nil)
	if got := b.Server().Connections; len(got) != 0 {
		t.Errorf("connections %+v", got)
	}
}

func TestRecent(t *testing.T) {
	b := New("")
	b.Watch(Sources{Dir: storepath.DefaultDir})
	began := time.Now()
	drv := path(t, "thing.drv")
	queued := build.QueuedBuild{Drv: drv, For: build.ClientID{User: "alice"}, Time: began}
	b.BuildEnded(1, build.EndedBuild{QueuedBuild: queued})                                                                           // was there
	b.BuildEnded(2, build.EndedBuild{QueuedBuild: queued, Began: began, Clients: []build.ClientID{{User: "bob"}}})                   // built
	b.BuildEnded(3, build.EndedBuild{QueuedBuild: queued, Err: fmt.Errorf("no: %w", context.Canceled)})                              // given up
	b.FetchEnded(substitute.Fetch{Path: drv, User: "bob"}, substitute.FetchEnd{Done: 9, Err: errors.New(strings.Repeat("x", 5000))}) // failed
	b.CollectionEnded(gc.Collection{Action: gc.ReturnDead}, gc.CollectionEnd{})
	b.CollectionEnded(gc.Collection{Action: gc.DeleteDead, For: "root"}, gc.CollectionEnd{BytesFreed: 4})
	var got []string
	for _, e := range b.Server().Recent {
		got = append(got, fmt.Sprint(e.Kind, " ", e.What, " ", e.Outcome, " ", e.Users, " ", e.Bytes, " ", len(e.Error)))
	}
	want := []string{
		"collection  succeeded [root] 4 0", "substitution /nix/store/" + drv.Base() + " failed [bob] 9 1024",
		"build /nix/store/" + drv.Base() + " given up [alice] 0 0", "build /nix/store/" + drv.Base() + " succeeded [bob alice] 0 0",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for i := range 3 * mostRecent {
		b.FetchEnded(substitute.Fetch{Path: drv}, substitute.FetchEnd{Done: uint64(i)})
	}
	recent := b.Server().Recent
	if len(recent) != mostRecent {
		t.Fatalf("%d are remembered", len(recent))
	}
	for i, e := range recent {
		if e.Bytes != uint64(3*mostRecent-1-i) {
			t.Fatalf("%d is %+v", i, e)
		}
	}
}

// TestTogether has many come, work and look at once, for the race detector.
func TestTogether(t *testing.T) {
	b := New("")
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for range 50 {
				c := b.Connect(status.Connection{Client: uint64(i), Since: time.Now()})
				c.OpBegan(protocol.OpBuildPaths)
				b.FetchEnded(substitute.Fetch{}, substitute.FetchEnd{})
				if s := b.Server(); len(s.Connections) < 1 {
					t.Error("we are not there")
				}
				c.OpEnded(protocol.OpBuildPaths, nil)
				c.Disconnected(nil)
			}
		})
	}
	all.Wait()
	if s := b.Server(); len(s.Connections) != 0 || len(s.Recent) != mostRecent {
		t.Errorf("left: %+v", s)
	}
}

// BenchmarkOperation is what a request costs because somebody may look.
// TestUsagesAreNotLookedForAgain: however many ask and whatever begins meanwhile, processes are looked at so often only.
func TestUsagesAreNotLookedForAgain(t *testing.T) {
	looks := 0
	u := usages{look: func(pids []int) map[int]sandbox.Usage {
		looks++
		return map[int]sandbox.Usage{pids[0]: {Memory: uint64(pids[0])}}
	}}
	if u.of(nil) != nil || looks != 0 {
		t.Error("looks for nobody")
	}
	if got := u.of([]int{7}); got[7].Memory != 7 || looks != 1 {
		t.Errorf("got %v after %d looks", got, looks)
	}
	u.until = time.Now().Add(time.Hour)
	for pid := range 100 {
		u.of([]int{7, 8 + pid})
	}
	if looks != 1 {
		t.Errorf("%d looks", looks)
	}
	u.until = time.Now()
	if got := u.of([]int{9}); got[9].Memory != 9 || looks != 2 {
		t.Errorf("later: got %v after %d looks", got, looks)
	}
}

func BenchmarkOperation(b *testing.B) {
	c := New("").Connect(status.Connection{})
	b.ReportAllocs()
	for b.Loop() {
		c.OpBegan(protocol.OpIsValidPath)
		c.OpEnded(protocol.OpIsValidPath, nil)
	}
}
