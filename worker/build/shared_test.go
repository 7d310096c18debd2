package build

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker/session"
	"nixdaemon/worker/settings"
)

// TestJoin lets two clients ask for one derivation: it is built once and both see all of its log.
func TestJoin(t *testing.T) {
	w := newWorld(t)
	fifo := w.root + "/fifo"
	mkfifo(t, fifo)
	drv := w.drv("slow", "echo first; cat "+fifo+" > $out; echo last")
	other := &recorder{}
	sess2 := &session.Session{User: "bob", Client: 2, Settings: w.sess.Settings, Log: other, Roots: w.sess.Roots}
	first := w.request(w.ctx, drv)
	// Opening the pipe waits for the builder, which has written its first line before.
	pipe, err := os.OpenFile(fifo, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	second := ask(w.ctx, w.sched, sess2, drv)
	w.untilSubscribers(drv, 2)
	if _, err := pipe.WriteString("content"); err != nil {
		t.Fatal(err)
	}
	pipe.Close()
	if err := errors.Join(<-first, <-second); err != nil {
		t.Error(err)
	}
	for name, log := range map[string]*recorder{"first": w.log, "second": other} {
		if diff := cmp.Diff([]string{"first", "last"}, log.lines()); diff != "" {
			t.Errorf("%s client's log (-want +got)\n%s", name, diff)
		}
		if n := log.unstopped(); n != 0 {
			t.Errorf("%s client: %d activities have not stopped", name, n)
		}
	}
}

// untilSubscribers waits until so many requests wait for a derivation.
func (w *world) untilSubscribers(drv storepath.Path, n int) {
	w.until(func() bool {
		w.sched.mu.Lock()
		defer w.sched.mu.Unlock()
		for key, j := range w.sched.jobs {
			if key.drv == drv && len(j.subs) == n {
				return true
			}
		}
		return false
	})
}

// TestCancel gives up the only request for a build: the builder's whole tree must die.
func TestCancel(t *testing.T) {
	w := newWorld(t)
	fifo := w.root + "/fifo"
	mkfifo(t, fifo)
	drv := w.drv("endless", "(while :; do sleep 1; done) & echo $$ $! > "+fifo+"; wait")
	ctx, cancel := context.WithCancel(w.ctx)
	done := w.request(ctx, drv)
	pids, err := os.ReadFile(fifo)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-done; err == nil {
		t.Error("no error")
	}
	w.until(func() bool { return len(w.leftBuildDirs()) == 0 })
	for _, pid := range strings.Fields(string(pids)) {
		if alive(pid) {
			t.Errorf("process %s lives on", pid)
		}
	}
	// The next request is not bothered by it.
	if res := w.build(w.drv("next", "echo > $out")); res.Status != derivation.StatusBuilt {
		t.Errorf("next build: %+v", res)
	}
}

// TestForeignLock lets another process hold the lock of the output.
func TestForeignLock(t *testing.T) {
	w := newWorld(t)
	drv := w.drv("locked", "echo > $out")
	lock := w.store.RealPath(w.out(drv, "out"))
	unlock := foreignLock(t, lock+".lock")
	done := w.begin(drv, derivation.BuildNormal)
	w.until(func() bool { return len(w.log.activities(activity.BuildWaiting)) == 1 })
	want := "waiting for lock on " + ansiMagenta + "'" + lock + "'" + ansiNormal
	if got := w.log.activities(activity.BuildWaiting)[0]; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	// Meanwhile nobody else waits for the slot.
	w.set(func(s *settings.Settings) { s.MaxJobs = 1 })
	if res := w.build(w.drv("free", "echo > $out")); res.Status != derivation.StatusBuilt {
		t.Errorf("other build: %+v", res)
	}
	unlock()
	if res := <-done; res.Status != derivation.StatusBuilt {
		t.Errorf("result %+v", res)
	}
}
