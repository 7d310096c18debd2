package build

import (
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"nixdaemon/protocol/derivation"
	"nixdaemon/worker/settings"
)

// TestHostileOutputs has builders leave behind what must not get into a store.
func TestHostileOutputs(t *testing.T) {
	w := newWorld(t)
	tests := []struct{ name, script, want string }{
		{"writable", "echo > $out; chmod g+w $out", "suspicious ownership or permission on \"OUT\" for output 'out'; rejecting this build output"},
		{"writable-directory", "mkdir $out; chmod 777 $out", "suspicious ownership or permission on \"OUT\" for output 'out'; rejecting this build output"},
		{"fifo", "mkfifo $out", "fifo or unsupported"},
		{"fifo-inside", "mkdir $out; mkfifo $out/f", "fifo or unsupported"},
		{"socket-inside", "mkdir $out; mkfifo $out/s", "fifo or unsupported"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			drv := w.drv(tt.name, tt.script)
			out := w.out(drv, "out")
			results, err := w.sched.BuildPathsWithResults(w.ctx, w.sess, []derivation.DerivedPath{built(drv)}, derivation.BuildNormal)
			text := ""
			switch {
			case err != nil:
				text = err.Error()
			case results[0].Status.Success():
				t.Fatalf("built: %+v", results)
			default:
				text = withoutColours(results[0].ErrorMsg)
			}
			text = strings.ReplaceAll(text, w.print(out), "OUT")
			if tt.want != "fifo or unsupported" && text != tt.want || text == "" {
				t.Errorf("got %q, want %q", text, tt.want)
			}
			if valid, err := w.store.IsValid(w.ctx, out); valid || err != nil {
				t.Errorf("valid: %t, %v", valid, err)
			}
			// Nothing is in the way of the next attempt.
			if got := w.build(drv); got.Status.Success() {
				t.Errorf("second attempt: %+v", got)
			}
		})
	}
}

func TestSetIDBitsAreRemoved(t *testing.T) {
	w := newWorld(t)
	out := w.mustBuild(w.drv("setid", "mkdir $out; echo > $out/f; chmod 6755 $out/f; chmod 2755 $out; chmod 1755 $out"))
	for _, name := range []string{"", "/f"} {
		st, err := os.Stat(w.store.RealPath(out) + name)
		if err != nil {
			t.Fatal(err)
		}
		if st.Mode()&(os.ModeSetuid|os.ModeSetgid|os.ModeSticky) != 0 || st.Mode().Perm()&0o222 != 0 || st.ModTime().Unix() != 1 {
			t.Errorf("%q: mode %v, time %v", name, st.Mode(), st.ModTime())
		}
	}
}

// TestSymlinkOutput makes the output a link to something else: the link is the output, what it leads to is left alone.
func TestSymlinkOutput(t *testing.T) {
	w := newWorld(t)
	victim := w.root + "/victim"
	if err := os.WriteFile(victim, []byte("precious"), 0o640); err != nil {
		t.Fatal(err)
	}
	out := w.mustBuild(w.drv("link", "ln -s "+victim+" $out"))
	if target, err := os.Readlink(w.store.RealPath(out)); target != victim {
		t.Errorf("link to %q, %v", target, err)
	}
	if st, err := os.Stat(victim); err != nil || st.Mode().Perm() != 0o640 {
		t.Errorf("the target changed: %v, %v", st.Mode(), err)
	}
}

// TestBuildDirIsReplaced has a builder put a link in the place of its directory: what that leads to is not deleted.
func TestBuildDirIsReplaced(t *testing.T) {
	w := newWorld(t)
	victim := w.root + "/victim"
	if err := os.MkdirAll(victim+"/sub", 0o755); err != nil {
		t.Fatal(err)
	}
	w.mustBuild(w.drv("replace", "cd /; mv $NIX_BUILD_TOP $NIX_BUILD_TOP-gone; ln -s "+victim+" $NIX_BUILD_TOP; echo > $out"))
	if _, err := os.Stat(victim + "/sub"); err != nil {
		t.Errorf("the target of the link is gone: %v", err)
	}
}

// TestLeftoverOutput has something at the output's path before the build: it is not taken for the output.
func TestLeftoverOutput(t *testing.T) {
	w := newWorld(t)
	drv := w.drv("leftover", "test ! -e $out && echo new > $out")
	out := w.out(drv, "out")
	if err := os.MkdirAll(w.store.RealPath(out)+"/sub", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(w.store.RealPath(out), 0o555); err != nil {
		t.Fatal(err)
	}
	w.mustBuild(drv)
	if got := w.read(out); got != "new\n" {
		t.Errorf("output %q", got)
	}
}

func TestDeepTreeIsDeleted(t *testing.T) {
	w := newWorld(t)
	w.mustBuild(w.drv("deep", "i=0; while [ $i -lt 300 ]; do mkdir d; cd d; i=$((i+1)); done; echo > $out"))
	if left := w.leftBuildDirs(); len(left) != 0 {
		t.Errorf("build directories left: %q", left)
	}
}

func TestBuilderFloodsWithActivities(t *testing.T) {
	w := newWorld(t)
	w.mustBuild(w.drv("flood", `i=0; while [ $i -lt 1200 ]; do echo "@nix { \"action\": \"start\", \"id\": $i, \"level\": 3, \"type\": 101, \"text\": \"\" }"; i=$((i+1)); done; echo > $out`))
	if n := len(w.log.activities(101)); n > maxBuilderActivities {
		t.Errorf("%d activities, want at most %d", n, maxBuilderActivities)
	}
	if n := w.log.unstopped(); n != 0 {
		t.Errorf("%d activities have not stopped", n)
	}
}

func TestWorldWritableBuildDir(t *testing.T) {
	dir := t.TempDir()
	if err := checkNotWorldWritable("/proc"); err != nil {
		t.Errorf("/proc: %v", err)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	want := "Path \"" + dir + "\" is world-writable or a symlink. That's not allowed for security."
	if err := checkNotWorldWritable(dir + "/../" + dir[strings.LastIndex(dir, "/")+1:]); err == nil {
		t.Error("accepted through ..")
	}
	if err := checkNotWorldWritable(dir); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	link := t.TempDir() + "/link"
	if err := os.Symlink("/proc", link); err != nil {
		t.Fatal(err)
	}
	if err := checkNotWorldWritable(link); err == nil {
		t.Error("accepted a link")
	}
}

func TestOutputChecks(t *testing.T) {
	w := newWorld(t)
	dep := w.drv("dep", "echo dep > $out")
	depOut := w.print(w.out(dep, "out"))
	attr := func(name, value string) func(*derivation.Derivation) {
		return func(d *derivation.Derivation) { d.Env[name] = value }
	}
	attrs := func(text string) func(*derivation.Derivation) {
		return func(d *derivation.Derivation) {
			d.StructuredAttrs = &text
			d.Env = map[string]string{"out": ""}
			d.Args[1] = strings.ReplaceAll(d.Args[1], "$out", derivation.HashPlaceholder("out"))
		}
	}
	refused := "output 'OUT' is not allowed to refer to the following paths:\n  " + depOut
	tests := []struct {
		name, script string
		change       func(*derivation.Derivation)
		want         string
	}{
		{"allowed-none", "echo " + depOut + " > $out", attr("allowedReferences", ""), refused},
		{"allowed", "echo " + depOut + " > $out", attr("allowedReferences", depOut), ""},
		{"allowed-self", "echo $out > $out", attr("allowedReferences", "out"), ""},
		{"disallowed", "echo " + depOut + " > $out", attr("disallowedReferences", depOut), refused},
		{"disallowed-unused", "echo > $out", attr("disallowedReferences", depOut), ""},
		{"requisites", "echo $out " + depOut + " > $out", attr("allowedRequisites", ""), refused},
		{"no-requisites", "echo " + depOut + " > $out", attr("disallowedRequisites", depOut), refused},
		{"unknown", "echo > $out", attr("allowedReferences", "nothing"), "derivation 'DRV' output check for 'out' contains output name 'nothing'," +
			" but this is not a valid output of this derivation. (Valid outputs are [out].)"},
		{"max-size", "echo > $out", attrs(`{"outputChecks":{"out":{"maxSize":10}}}`), "path 'OUT' is too large at 120 bytes; limit is 10 bytes"},
		{"max-closure", "echo " + depOut + " > $out", attrs(`{"outputChecks":{"out":{"maxClosureSize":150}}}`), "closure of path 'OUT' is too large at SIZE bytes; limit is 150 bytes"},
		{"structured-self", "echo $out > $out", attrs(`{"outputChecks":{"out":{"allowedRequisites":[]}}}`), "output 'OUT' is not allowed to refer to the following paths:\n  OUT"},
		{"discard", "echo " + depOut + " > $out", attrs(`{"outputChecks":{"out":{"allowedReferences":[]}},"unsafeDiscardReferences":{"out":true}}`), ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			drv := w.drv(tt.name, tt.script, dependsOn(dep), tt.change)
			if tt.want == "" {
				w.mustBuild(drv)
				return
			}
			got := w.mustFail(drv, derivation.StatusOutputRejected)
			got = strings.NewReplacer(w.print(drv), "DRV", w.print(w.out(drv, "out")), "OUT").Replace(got)
			if i := strings.Index(got, "too large at "); i >= 0 && strings.Contains(tt.want, "SIZE") {
				rest := got[i+len("too large at "):]
				got = got[:i] + "too large at SIZE" + rest[strings.IndexByte(rest, ' '):]
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestCheckMode(t *testing.T) {
	w := newWorld(t)
	stable := w.drv("stable", "echo $out > $out")
	if err := w.sched.BuildPaths(w.ctx, w.sess, []derivation.DerivedPath{built(stable)}, derivation.BuildCheck); err == nil ||
		!strings.HasPrefix(err.Error(), "some outputs of '"+w.print(stable)+"' are not valid, so checking is not possible\nHint: ") {
		t.Errorf("check before the build: %v", err)
	}
	out := w.mustBuild(stable)
	if res := w.buildMode(stable, derivation.BuildCheck); res.Status != derivation.StatusBuilt || res.BuiltOutputs["out"].OutPath != out {
		t.Errorf("check: %+v", res)
	}
	random := w.drv("random", "cat /proc/sys/kernel/random/uuid > $out")
	randomOut := w.mustBuild(random)
	before := w.read(randomOut)
	res := w.buildMode(random, derivation.BuildCheck)
	want := "derivation '" + w.print(random) + "' may not be deterministic: output \"" + w.print(randomOut) + "\" differs"
	if res.Status != derivation.StatusNotDeterministic || !res.IsNonDeterministic || withoutColours(res.ErrorMsg) != want {
		t.Errorf("check: %+v, want %s", res, want)
	}
	w.set(func(s *settings.Settings) { s.KeepFailed = true })
	res = w.buildMode(random, derivation.BuildCheck)
	if want += " from \"" + w.print(randomOut) + ".check\""; withoutColours(res.ErrorMsg) != want {
		t.Errorf("check with keep-failed: %q, want %q", res.ErrorMsg, want)
	}
	if other := w.readFile(w.store.RealPath(randomOut) + ".check"); other == before || w.read(randomOut) != before {
		t.Errorf("kept %q, valid %q, was %q", other, w.read(randomOut), before)
	}
	w.set(func(s *settings.Settings) { s.RunDiffHook, s.DiffHook = true, w.script("echo hook $1 $2 $3; exit 3") })
	w.buildMode(random, derivation.BuildCheck)
	if got := withoutColours(w.log.logged()); !strings.Contains(got, "diff hook execution failed: diff-hook program ") || !strings.Contains(got, "failed with exit code 3") {
		t.Errorf("diff hook: %q", got)
	}
}

// What a hook has started may hold its output open. The build must not wait for that.
func TestDiffHookLeavesSomethingBehind(t *testing.T) {
	w := newWorld(t)
	random := w.drv("random", "cat /proc/sys/kernel/random/uuid > $out")
	w.mustBuild(random)
	left := w.root + "/left"
	w.set(func(s *settings.Settings) {
		s.RunDiffHook, s.DiffHook = true, w.script("tail -f /dev/null & echo $! > "+left+"; echo seen")
	})
	<-w.begin(random, derivation.BuildCheck) // or it waits for what the hook has left
	pid, err := strconv.Atoi(strings.TrimSpace(w.readFile(left)))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Errorf("kill what the hook has left: %v", err)
	}
	if got := withoutColours(w.log.logged()); !strings.Contains(got, "seen") || strings.Contains(got, "diff hook execution failed") {
		t.Errorf("diff hook: %q", got)
	}
}

func (w *world) readFile(path string) string {
	w.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		w.Fatal(err)
	}
	return string(text)
}

// script makes a program.
func (w *world) script(text string) string {
	w.Helper()
	path := w.root + "/script"
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
		w.Fatal(err)
	}
	return path
}

func TestRepair(t *testing.T) {
	w := newWorld(t)
	dep := w.drv("dep", "mkdir $out; echo dep > $out/file")
	drv := w.drv("top", "mkdir $out; ln -s "+w.print(w.out(dep, "out"))+" $out/dep; echo $out > $out/self", dependsOn(dep))
	out := w.mustBuild(drv)
	w.damage(w.store.RealPath(out) + "/self")
	if res := w.buildMode(drv, derivation.BuildRepair); res.Status != derivation.StatusBuilt {
		t.Fatalf("repair: %+v", res)
	}
	if got := w.read(out, "self"); got != w.print(out)+"\n" {
		t.Errorf("repaired: %q", got)
	}
	depOut := w.out(dep, "out")
	w.damage(w.store.RealPath(depOut) + "/file")
	if res := w.buildMode(drv, derivation.BuildRepair); res.Status != derivation.StatusAlreadyValid {
		t.Errorf("repair of the closure: %+v", res)
	}
	if got := w.read(depOut, "file"); got != "dep\n" {
		t.Errorf("repaired dependency: %q", got)
	}
	if got := w.log.logged(); !strings.Contains(got, "path '"+w.print(out)+"' is corrupted or missing!") ||
		!strings.Contains(got, "found corrupted or missing path '"+w.print(depOut)+"' in the output closure of '"+w.print(drv)+"'") {
		t.Errorf("logged %q", got)
	}
	w.damage(w.store.RealPath(depOut) + "/file")
	if err := w.sched.RepairPath(w.ctx, w.sess, depOut); err != nil || w.read(depOut, "file") != "dep\n" {
		t.Errorf("repair of a path: %v", err)
	}
}
