package build

import (
	"context"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/derivation"
	"nixdaemon/worker/settings"
)

func (w *world) hook(script string) {
	w.Helper()
	name := w.root + "/hook"
	if err := os.WriteFile(name, []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		w.Fatal(err)
	}
	w.set(func(s *settings.Settings) { s.PostBuildHook = name })
}

func (r *recorder) hookLines() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var lines []string
	for _, e := range r.results {
		if e.kind == activity.PostBuildLogLine {
			lines = append(lines, e.fields[0].Text)
		}
	}
	return lines
}

func twoOutputs(d *derivation.Derivation) {
	d.Outputs["dev"] = derivation.Output{Kind: derivation.Deferred}
	d.Env["dev"] = ""
}

func TestPostBuildHook(t *testing.T) {
	w := newWorld(t)
	w.hook("echo $DRV_PATH; echo $OUT_PATHS >&2; echo \"$NIX_CONFIG\" | /bin/grep ^max-jobs; /bin/printf end; /bin/test -e $OUT_PATHS 2>/dev/null")
	drv := w.drv("hooked", "echo > $out")
	want := []string{w.print(drv), w.print(w.out(drv, "out")), "max-jobs = 2", "end\n"}
	w.mustBuild(drv)
	if diff := cmp.Diff(want, w.log.hookLines()); diff != "" {
		t.Errorf("lines (-want +got)\n%s", diff)
	}
	// What is there already was not built; what is checked was.
	w.mustBuild(drv)
	if n := len(w.log.hookLines()); n != 4 {
		t.Errorf("%d lines after nothing was built", n)
	}
	if err := w.sched.BuildPaths(w.ctx, w.sess, []derivation.DerivedPath{built(drv)}, derivation.BuildCheck); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(append(want, want...), w.log.hookLines()); diff != "" {
		t.Errorf("lines after a check (-want +got)\n%s", diff)
	}
	if diff := cmp.Diff([]string{"running post-build-hook '" + w.root + "/hook'", "running post-build-hook '" + w.root + "/hook'"},
		w.log.activities(activity.PostBuildHook)); diff != "" {
		t.Errorf("activities (-want +got)\n%s", diff)
	}
}

func TestPostBuildHookOutputs(t *testing.T) {
	w := newWorld(t)
	w.hook("echo $OUT_PATHS")
	drv := w.drv("hooked", "echo > $out; echo > $dev", twoOutputs)
	w.mustBuild(drv)
	lines := w.log.hookLines()
	if len(lines) != 1 || len(strings.Fields(lines[0])) != 2 {
		t.Errorf("lines %q", lines)
	}
}

// TestPostBuildHookLeavesWork has a hook that is done while something that it
// started still has its output open.
func TestPostBuildHookLeavesWork(t *testing.T) {
	w := newWorld(t)
	w.hook("/bin/sleep 20 &\necho $! > " + w.root + "/left\n")
	w.mustBuild(w.drv("hooked", "echo > $out"))
	text, err := os.ReadFile(w.root + "/left")
	if err != nil {
		t.Fatal(err)
	}
	if pid, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
		syscall.Kill(pid, syscall.SIGKILL)
	}
}

func TestPostBuildHookFails(t *testing.T) {
	w := newWorld(t)
	for _, tt := range []struct{ script, want string }{
		{"exit 3", "failed with exit code 3"},
		{"kill -9 $$", "failed due to signal 9 (Killed)"},
	} {
		w.hook(tt.script)
		drv := w.drv("hooked", "echo > $out # "+tt.want)
		err := w.sched.BuildPaths(w.ctx, w.sess, []derivation.DerivedPath{built(drv)}, derivation.BuildNormal)
		if want := "program \"" + w.root + "/hook\" " + tt.want; err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
		if valid, err := w.store.IsValid(w.ctx, w.out(drv, "out")); err != nil || !valid {
			t.Errorf("output valid %v, %v", valid, err)
		}
	}
}

func TestPostBuildHookMissing(t *testing.T) {
	w := newWorld(t)
	w.set(func(s *settings.Settings) { s.PostBuildHook = "/no/such/hook" })
	err := w.sched.BuildPaths(w.ctx, w.sess, []derivation.DerivedPath{built(w.drv("hooked", "echo > $out"))}, derivation.BuildNormal)
	if want := `program "/no/such/hook" failed with exit code 1`; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if lines := w.log.hookLines(); len(lines) != 1 || !strings.HasSuffix(lines[0], "No such file or directory\x1b[0m") {
		t.Errorf("lines %q", lines)
	}
}

// TestPostBuildHookKilled ends a build while its hook, and what that has started, runs.
func TestPostBuildHookKilled(t *testing.T) {
	w := newWorld(t)
	fifo := w.root + "/started"
	mkfifo(t, fifo)
	w.hook("/bin/sleep 1000 & echo $! > " + fifo + "; wait")
	drv := w.drv("hooked", "echo > $out")
	ctx, cancel := context.WithCancel(w.ctx)
	done := w.request(ctx, drv)
	if text, err := os.ReadFile(fifo); err != nil || len(text) == 0 {
		t.Fatalf("hook has started: %q, %v", text, err)
	}
	cancel()
	if err := <-done; err != context.Canceled {
		t.Errorf("got %v", err)
	}
	if err := w.sched.Close(w.ctx); err != nil {
		t.Error(err)
	}
}
