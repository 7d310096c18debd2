package build

import (
	"os"
	"strings"
	"testing"

	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker/settings"
)

// TestFailureTexts compares whole texts, with the derivation's path as DRV and that of its output as OUT.
func TestFailureTexts(t *testing.T) {
	w := newWorld(t)
	dep := w.drv("dep", "exit 1")
	tests := []struct {
		name, script string
		change       func(*derivation.Derivation)
		set          func(*settings.Settings)
		status       derivation.BuildStatus
		want         string
	}{
		{
			name: "exit", script: "echo one; echo two >&2; exit 3", status: derivation.StatusPermanentFailure,
			want: "Cannot build 'DRV'.\nReason: builder failed with exit code 3.\nOutput paths:\n  OUT\nLast 2 log lines:\n> one\n> two\nFor full logs, run:\n  nix log DRV",
		},
		{
			name: "silent", script: "exit 1", status: derivation.StatusPermanentFailure,
			want: "Cannot build 'DRV'.\nReason: builder failed with exit code 1.\nOutput paths:\n  OUT",
		},
		{
			name: "old-command", script: "echo x; exit 1", status: derivation.StatusPermanentFailure,
			set:  func(s *settings.Settings) { s.ExperimentalFeatures = 0 },
			want: "Cannot build 'DRV'.\nReason: builder failed with exit code 1.\nOutput paths:\n  OUT\nLast 1 log lines:\n> x\nFor full logs, run:\n  nix-store -l DRV",
		},
		{
			name: "short-tail", script: "echo 1; echo 2; echo 3; exit 1", status: derivation.StatusPermanentFailure,
			set:  func(s *settings.Settings) { s.LogLines = 2 },
			want: "Cannot build 'DRV'.\nReason: builder failed with exit code 1.\nOutput paths:\n  OUT\nLast 2 log lines:\n> 2\n> 3\nFor full logs, run:\n  nix log DRV",
		},
		{
			name: "signal", script: "kill -TERM $$", status: derivation.StatusPermanentFailure,
			want: "Cannot build 'DRV'.\nReason: builder failed due to signal 15 (Terminated).\nOutput paths:\n  OUT",
		},
		{
			name: "fixed-transient", script: "exit 1", change: fixed(storepath.MethodFlat, "content"), status: derivation.StatusTransientFailure,
			want: "Cannot build 'DRV'.\nReason: builder failed with exit code 1.\nOutput paths:\n  OUT",
		},
		{
			name: "no-output", script: "true", status: derivation.StatusOutputRejected,
			want: "builder for 'DRV' failed to produce output path for output 'out' at \"OUT\"",
		},
		{
			name: "dependency", script: "true", change: dependsOn(dep), status: derivation.StatusDependencyFailed,
			want: "Cannot build 'DRV'.\nReason: 1 dependency failed.\nOutput paths:\n  OUT",
		},
		{
			name: "builder-missing", change: func(d *derivation.Derivation) { d.Builder = "/no/such/builder" }, status: derivation.StatusPermanentFailure,
			want: "Cannot build 'DRV'.\nReason: builder failed with exit code 1.\nOutput paths:\n  OUT\nLast 1 log lines:\n" +
				"> error: executing '/no/such/builder': No such file or directory\nFor full logs, run:\n  nix log DRV",
		},
		{
			name: "builder-relative", change: func(d *derivation.Derivation) { d.Builder = "sh" }, status: derivation.StatusPermanentFailure,
			want: "Cannot build 'DRV'.\nReason: builder failed with exit code 1.\nOutput paths:\n  OUT\nLast 1 log lines:\n" +
				"> error: executing 'sh': No such file or directory\nFor full logs, run:\n  nix log DRV",
		},
		{
			name: "builder-directory", change: func(d *derivation.Derivation) { d.Builder = "/" }, status: derivation.StatusPermanentFailure,
			want: "Cannot build 'DRV'.\nReason: builder failed with exit code 1.\nOutput paths:\n  OUT\nLast 1 log lines:\n" +
				"> error: executing '/': Permission denied\nFor full logs, run:\n  nix log DRV",
		},
		{
			name: "unknown-builtin", change: func(d *derivation.Derivation) { d.Builder = "builtin:nothing" }, status: derivation.StatusPermanentFailure,
			want: "Cannot build 'DRV'.\nReason: builder failed with exit code 1.\nOutput paths:\n  OUT\nLast 1 log lines:\n" +
				"> error: executing 'builtin:nothing': No such file or directory\nFor full logs, run:\n  nix log DRV",
		},
		{
			name: "platform", change: func(d *derivation.Derivation) { d.Platform = "riscv64-linux" }, status: derivation.StatusInputRejected,
			want: "Cannot build 'DRV'.\nReason: platform mismatch\nRequired system: 'riscv64-linux'\nCurrent system: 'x86_64-linux'",
		},
		{
			name: "features", change: func(d *derivation.Derivation) { d.Env["requiredSystemFeatures"] = "b a kvm" }, status: derivation.StatusInputRejected,
			set:  func(s *settings.Settings) { s.SystemFeatures = []string{"benchmark", "kvm"} },
			want: "Cannot build 'DRV'.\nReason: missing system features\nRequired features: {a, b, kvm}\nAvailable features: {benchmark, kvm}",
		},
		{
			name: "no-jobs", set: func(s *settings.Settings) { s.MaxJobs = 0 }, status: derivation.StatusInputRejected,
			want: "Cannot build 'DRV'.\nReason: local builds are disabled (max-jobs = 0)\nHint: set 'max-jobs' to a non-zero value to enable local builds, " +
				"or configure remote builders via 'builders'",
		},
		{
			name: "timeout", script: "sleep 100", set: func(s *settings.Settings) { s.Timeout = 1 }, status: derivation.StatusTimedOut,
			want: "timed out after 1 seconds",
		},
		{
			name: "silence", script: "echo begin; sleep 100", set: func(s *settings.Settings) { s.MaxSilentTime = 1 }, status: derivation.StatusTimedOut,
			want: "timed out after 1 seconds",
		},
		{
			name: "long-log", script: "while :; do echo 0123456789; done", set: func(s *settings.Settings) { s.MaxBuildLogSize = 1000 },
			status: derivation.StatusLogLimitExceeded,
			want:   "building derivation 'DRV' killed after writing more than 1000 bytes of log output",
		},
		{
			name: "closed-output", script: "exec >&- 2>&-; sleep 100", status: derivation.StatusPermanentFailure,
			want: "Cannot build 'DRV'.\nReason: builder failed due to signal 9 (Killed).\nOutput paths:\n  OUT",
		},
		{
			name: "cycle", script: "echo $dev > $out; echo $out > $dev", change: outputs("dev"), status: derivation.StatusOutputRejected,
			want: "cycle detected in build of 'DRV' in the references of output 'dev' from output 'out'",
		},
		{
			name: "flat-directory", script: "mkdir $out", change: fixed(storepath.MethodFlat, "content"), status: derivation.StatusOutputRejected,
			want: "output path \"STAGED\" should be a non-executable regular file since recursive hashing is not enabled (one of outputHashMode={flat,text} is true)",
		},
	}
	base := w.sess
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w.sess = base
			if tt.set != nil {
				w.set(tt.set)
			}
			change := tt.change
			if change == nil {
				change = func(*derivation.Derivation) {}
			}
			drv := w.drv(tt.name, tt.script, change)
			got := w.mustFail(drv, tt.status)
			got = strings.NewReplacer(w.print(drv), "DRV", w.print(w.out(drv, "out")), "OUT").Replace(got)
			if i := strings.Index(got, w.root+"/store/tmp-"); i >= 0 {
				got = got[:i] + "STAGED" + got[i+strings.Index(got[i:], "\""):]
			}
			if got != tt.want {
				t.Errorf("got:\n%s\nwant:\n%s", got, tt.want)
			}
			if left := w.leftBuildDirs(); len(left) != 0 {
				t.Errorf("build directories left: %q", left)
			}
		})
	}
}

// TestColours has the escape sequences where upstream's release 2.34.8 puts them.
func TestColours(t *testing.T) {
	w := newWorld(t)
	drv := w.drv("fails", "echo x; exit 1")
	out := w.print(w.out(drv, "out"))
	want := "Cannot build '\x1b[35;1m" + w.print(drv) + "\x1b[0m'.\nReason: \x1b[31;1mbuilder failed with exit code 1\x1b[0m.\nOutput paths:\n  \x1b[35;1m" +
		out + "\x1b[0m\nLast 1 log lines:\n> x\nFor full logs, run:\n  \x1b[1mnix log " + w.print(drv) + "\x1b[0m"
	if got := w.build(drv).ErrorMsg; got != want {
		t.Errorf("got %q\nwant %q", got, want)
	}
	err := w.sched.BuildPaths(w.ctx, w.sess, []derivation.DerivedPath{built(drv)}, derivation.BuildNormal)
	if Coloured(err) != want || err.Error() != withoutColours(want) {
		t.Errorf("error %q, coloured %q", err, Coloured(err))
	}
	if f, ok := err.(*Failure); !ok || f.ExitStatus() != 100 {
		t.Errorf("error %#v, want exit status 100", err)
	}
}

func TestSeveralFailures(t *testing.T) {
	w := newWorld(t)
	a, b := w.drv("a", "exit 1"), w.drv("b", "exit 2")
	good := w.drv("c", "echo > $out")
	paths := []derivation.DerivedPath{built(b), built(good), built(a)}
	w.set(func(s *settings.Settings) { s.KeepGoing = true })
	err := w.sched.BuildPaths(w.ctx, w.sess, paths, derivation.BuildNormal)
	first, second := "'"+w.print(a)+"'", "'"+w.print(b)+"'"
	if first > second {
		first, second = second, first
	}
	if want := "build of " + first + ", " + second + " failed"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	for _, drv := range []storepath.Path{a, b} {
		if !strings.Contains(withoutColours(w.log.logged()), "error: Cannot build '"+w.print(drv)+"'.\n       Reason: builder failed with exit code") {
			t.Errorf("failure of %s is not logged: %q", drv, w.log.logged())
		}
	}
	if valid, err := w.store.IsValid(w.ctx, w.out(good, "out")); !valid {
		t.Errorf("the one that can be built was not: %v", err)
	}
}

// TestNoKeepGoing leaves out what was given up because something else failed.
func TestNoKeepGoing(t *testing.T) {
	w := newWorld(t)
	w.set(func(s *settings.Settings) { s.MaxJobs = 1 })
	bad, later := w.drv("a-bad", "exit 1"), w.drv("b-later", "echo > $out")
	results, err := w.sched.BuildPathsWithResults(w.ctx, w.sess, []derivation.DerivedPath{built(later), built(bad)}, derivation.BuildNormal)
	if err != nil || len(results) != 1 || results[0].Path.Drv.Path != bad {
		t.Errorf("results %+v, %v", results, err)
	}
	if n := w.log.unstopped(); n != 0 {
		t.Errorf("%d activities have not stopped", n)
	}
}

func TestKeepGoingCountsDependencies(t *testing.T) {
	w := newWorld(t)
	w.set(func(s *settings.Settings) { s.KeepGoing = true })
	a, b, c := w.drv("a", "exit 1"), w.drv("b", "exit 1"), w.drv("c", "echo > $out")
	text := w.mustFail(w.drv("user", "true", dependsOn(a, b, c)), derivation.StatusDependencyFailed)
	if !strings.Contains(text, "Reason: 2 dependencies failed.") {
		t.Errorf("text %q", text)
	}
}

func TestKeepFailed(t *testing.T) {
	w := newWorld(t)
	w.set(func(s *settings.Settings) { s.KeepFailed = true })
	w.mustFail(w.drv("fails", "echo evidence > file; exit 1"), derivation.StatusPermanentFailure)
	left := w.leftBuildDirs()
	if len(left) != 1 {
		t.Fatalf("build directories left: %q", left)
	}
	dir := w.root + "/var/builds/" + left[0]
	if text, err := os.ReadFile(dir + "/file"); string(text) != "evidence\n" {
		t.Errorf("file: %q, %v", text, err)
	}
	if st, err := os.Stat(dir); err != nil || st.Mode().Perm() != 0o755 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	if want := "note: keeping build directory \"" + dir + "\""; w.log.logged() != want {
		t.Errorf("logged %q, want %q", w.log.logged(), want)
	}
	w.mustBuild(w.drv("good", "echo > $out"))
	if n := len(w.leftBuildDirs()); n != 1 {
		t.Errorf("%d build directories left after a success", n)
	}
}

func TestUnknownOutput(t *testing.T) {
	w := newWorld(t)
	drv := w.drv("one", "echo > $out")
	err := w.sched.BuildPaths(w.ctx, w.sess, []derivation.DerivedPath{built(drv, "lib")}, derivation.BuildNormal)
	if want := "derivation '" + w.print(drv) + "' does not have output 'lib'"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestMissingDerivation(t *testing.T) {
	w := newWorld(t)
	p, err := storepath.ParseBase("11111111111111111111111111111111-gone.drv")
	if err != nil {
		t.Fatal(err)
	}
	if text := w.mustFail(p, derivation.StatusDependencyFailed); text != "failed to obtain derivation of '"+w.print(p)+"'" {
		t.Errorf("text %q", text)
	}
}

func TestProgress(t *testing.T) {
	w := newWorld(t)
	w.mustBuild(w.drv("a", "echo > $out"))
	var last []activity.Field
	for _, r := range w.log.results {
		if r.kind == activity.Progress {
			last = r.fields
		}
	}
	if len(last) != 4 || last[0].Number != 1 || last[1].Number != 1 || last[2].Number != 0 || last[3].Number != 0 {
		t.Errorf("last progress %v", last)
	}
}
