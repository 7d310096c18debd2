package build

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker/settings"
)

func testExternal(program string) []settings.ExternalBuilder {
	return []settings.ExternalBuilder{{Systems: []string{"odd-os"}, Program: program}}
}

// external makes a program the external builder of a platform that this machine has not.
func (w *world) external(script string) {
	w.Helper()
	program := w.script(script)
	w.set(func(s *settings.Settings) {
		s.ExperimentalFeatures = settings.Features(settings.NixCommand, settings.ExternalBuildersFeature)
		s.ExternalBuilders = []settings.ExternalBuilder{
			{Systems: []string{"unused"}, Program: "/no/such/program"},
			{Systems: []string{"odd-os", "other-os"}, Program: program, Args: []string{"one", "two words"}},
			{Systems: []string{"odd-os"}, Program: "/no/such/program"},
		}
	})
}

func onPlatform(platform string) func(*derivation.Derivation) {
	return func(d *derivation.Derivation) { d.Platform = platform }
}

// TestExternalBuilder has the task written down and the derivation carried out by somebody else.
func TestExternalBuilder(t *testing.T) {
	w := newWorld(t)
	seen := w.root + "/seen"
	w.external(`cp "$3" ` + seen + `; (echo "$1,$2,$#"; pwd) > ` + seen + `.args
echo one; echo two
printf '\2 ready\n'
echo log line
printf made > $(sed -E 's/.*"outputs":\{"out":"([^"]*).*/\1/' "$3")`)
	// Whether builds are isolated here does not concern it.
	w.set(func(s *settings.Settings) { s.Sandbox = settings.SandboxTrue })
	src := w.source("src", "x")
	drv := w.drv("external", "not for a shell here", onPlatform("odd-os"), func(d *derivation.Derivation) {
		d.InputSrcs = []storepath.Path{src}
		d.Env["text"], d.Env["self"] = "<&>", derivation.HashPlaceholder("out")
		// Nobody asks whether this machine has them.
		d.Env["requiredSystemFeatures"] = "unusual"
	})
	if got := w.read(w.mustBuild(drv)); got != "made" {
		t.Errorf("output %q", got)
	}
	out := w.print(w.out(drv, "out"))
	var task externalTask
	if err := json.Unmarshal([]byte(w.readFile(seen)), &task); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(task.TopTmpDir, w.root+"/var/builds/nix-") || task.TmpDir != task.TopTmpDir+"/build" {
		t.Errorf("directories %q and %q", task.TopTmpDir, task.TmpDir)
	}
	want := externalTask{Version: 1, Builder: "/bin/sh", Args: []string{"-c", "not for a shell here"}, System: "odd-os",
		TopTmpDir: task.TopTmpDir, TmpDir: task.TmpDir, TmpDirInSandbox: "/build", StoreDir: w.root + "/store", RealStoreDir: w.root + "/store",
		InputPaths: []string{w.print(src)}, Outputs: map[string]string{"out": out}, Env: map[string]string{
			"name": "external", "out": out, "self": out, "text": "<&>", "PATH": "/bin:/usr/bin", "HOME": "/homeless-shelter",
			"NIX_STORE": w.root + "/store", "NIX_BUILD_CORES": task.Env["NIX_BUILD_CORES"], "NIX_BUILD_TOP": "/build", "TMPDIR": "/build",
			"TEMPDIR": "/build", "TMP": "/build", "TEMP": "/build", "PWD": "/build", "NIX_LOG_FD": "2", "TERM": "xterm-256color",
			"requiredSystemFeatures": "unusual",
		}}
	if diff := cmp.Diff(want, task); diff != "" {
		t.Errorf("task (-want +got)\n%s", diff)
	}
	if got, want := w.readFile(seen+".args"), "one,two words,3\n"+task.TmpDir+"\n"; got != want {
		t.Errorf("arguments and directory %q, want %q", got, want)
	}
	// What came before the builder's world was ready is no part of the log.
	if diff := cmp.Diff([]string{"log line"}, w.log.lines()); diff != "" {
		t.Errorf("log (-want +got)\n%s", diff)
	}
	if !strings.Contains(w.log.logged(), "sandbox setup: one\nsandbox setup: two") {
		t.Errorf("messages %q", w.log.logged())
	}
	if left := w.leftBuildDirs(); len(left) != 0 {
		t.Errorf("build directories left: %q", left)
	}
}

// TestExternalBuilderTaskText pins the order and the escapes of the file.
func TestExternalBuilderTaskText(t *testing.T) {
	w := newWorld(t)
	seen := w.root + "/seen"
	w.external(`cp "$3" ` + seen + `; exit 1`)
	drv := w.drv("x", "a<b", onPlatform("odd-os"))
	if err := w.sched.BuildPaths(w.ctx, w.sess, []derivation.DerivedPath{built(drv)}, derivation.BuildNormal); err == nil {
		t.Error("no error")
	}
	text := w.readFile(seen)
	if !strings.HasPrefix(text, `{"args":["-c","a<b"],"builder":"/bin/sh","env":{"HOME":`) || !strings.HasSuffix(text, `"version":1}`) {
		t.Errorf("text %s", text)
	}
	var keys []string
	for _, key := range []string{"args", "builder", "env", "inputPaths", "outputs", "realStoreDir", "storeDir", "system", "tmpDir", "tmpDirInSandbox", "topTmpDir", "version"} {
		if i := strings.Index(text, `"`+key+`":`); i >= 0 {
			keys = append(keys, key)
			text = text[i:]
		}
	}
	if len(keys) != 12 {
		t.Errorf("in order: only %q", keys)
	}
}

// toldError is an error as upstream's processes tell it, for printf.
func toldError(kind, msg string, traces ...string) string {
	var b strings.Builder
	number := func(n int) { fmt.Fprintf(&b, `\%o\0\0\0\0\0\0\0`, n) }
	text := func(s string) {
		length := len(strings.ReplaceAll(s, `\033`, "x"))
		number(length)
		b.WriteString(s + strings.Repeat(`\0`, -length&7))
	}
	b.WriteString(`\1\n`)
	text(kind)
	number(0)
	text("")
	text(msg)
	number(0)
	number(len(traces))
	for _, trace := range traces {
		number(0)
		text(trace)
	}
	return b.String()
}

// FuzzHandshake: whatever a program says, it is one of the three: ready, an error told, or an error.
func FuzzHandshake(f *testing.F) {
	f.Add([]byte("one\ntwo\n\x02\nrest"))
	f.Add([]byte("\x01\n\x05\x00\x00\x00\x00\x00\x00\x00Error\x00\x00\x00"))
	f.Add([]byte("\x01\n"))
	f.Add([]byte("no end"))
	f.Fuzz(func(t *testing.T, data []byte) {
		said, told, err := readHandshake(bytes.NewReader(data))
		if told != nil && err != nil {
			t.Errorf("told %v, and %v", told, err)
		}
		if len(said) > len(data) {
			t.Errorf("%d lines in %d bytes", len(said), len(data))
		}
	})
}

// TestExternalBuilderFails has programs that never say that they are ready, or cannot be run, or may not.
func TestExternalBuilderFails(t *testing.T) {
	tests := []struct {
		name, script string
		change       func(*settings.Settings)
		features     string
		trace, want  string
	}{
		{name: "exits", script: "echo one; echo two; exit 9", want: "unexpected EOF reading a line",
			trace: "while waiting for the build environment for 'DRV' to initialize (failed with exit code 9, previous messages: one|two)"},
		{name: "says nothing", script: "exec >&- 2>&-; exec sleep 1000", want: "unexpected EOF reading a line",
			trace: "while waiting for the build environment for 'DRV' to initialize (failed due to signal 9 (Killed), previous messages: )"},
		{name: "says too much", script: "exec cat /dev/zero", want: "the external builder has not said after 65536 bytes that it is ready",
			trace: "while waiting for the build environment for 'DRV' to initialize (failed due to signal 9 (Killed), previous messages: )"},
		{name: "tells an error", script: "echo one; printf '" + toldError("Error", "all is \\033[1mlost\\033[0m", "outer", "inner") + "'; sleep 1000",
			trace: "while setting up the build environment\nouter\ninner", want: "all is lost"},
		{name: "tells half an error", script: `printf '\1\n'; printf '\5\0\0\0\0\0\0\0Err'`, want: "unexpected EOF",
			trace: "while waiting for the build environment for 'DRV' to initialize (succeeded, previous messages: )"},
		{name: "tells something else", script: "printf '" + toldError("Exit", "") + "'; exec sleep 1000", want: "the external builder's error is of the unknown kind 'Exit'",
			trace: "while waiting for the build environment for 'DRV' to initialize (failed due to signal 9 (Killed), previous messages: )"},
		{name: "cannot be run", change: func(s *settings.Settings) { s.ExternalBuilders[1].Program = "/no/such/program" },
			trace: "while setting up the build environment", want: `executing "/no/such/program": No such file or directory`},
		{name: "feature is off", change: func(s *settings.Settings) { s.ExperimentalFeatures = settings.Features(settings.NixCommand) },
			want: "experimental Nix feature 'external-builders' is disabled; add '--extra-experimental-features external-builders' to enable it"},
		{name: "recursive", features: "recursive-nix", want: "'recursive-nix' is not supported yet by external derivation builders"},
		{name: "uid range", features: "uid-range", want: "feature 'uid-range' is not supported on this platform"},
		{name: "no jobs", change: func(s *settings.Settings) { s.MaxJobs = 0 },
			want: "Unable to start any build; either increase '--max-jobs' or enable remote builds.\n\nFor more information run 'man nix.conf' and search for '/machines'."},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.external(tt.script)
			if tt.change != nil {
				w.set(func(s *settings.Settings) {
					s.ExternalBuilders = slices.Clone(s.ExternalBuilders)
					tt.change(s)
				})
			}
			drv := w.drv("x", "", onPlatform("odd-os"), func(d *derivation.Derivation) { d.Env["requiredSystemFeatures"] = tt.features })
			err := w.sched.BuildPaths(w.ctx, w.sess, []derivation.DerivedPath{built(drv)}, derivation.BuildNormal)
			if err == nil || withoutColours(Coloured(err)) != tt.want {
				t.Errorf("got %v, want %s", err, tt.want)
			}
			var traces []string
			if traced, ok := err.(interface{ Traces() []string }); ok {
				traces = traced.Traces()
			}
			if tt.trace != "" && !slices.Equal(traces, strings.Split(strings.ReplaceAll(tt.trace, "DRV", w.print(drv)), "\n")) {
				t.Errorf("traces %q, want %q", traces, tt.trace)
			}
			if got := w.log.activities(activity.Build); len(got) != 0 {
				t.Errorf("builds were told of: %q", got)
			}
			if left := w.leftBuildDirs(); len(left) != 0 {
				t.Errorf("build directories left: %q", left)
			}
		})
	}
}

// TestExternalBuilderEnds tells failures of the derivation from those of the program.
func TestExternalBuilderEnds(t *testing.T) {
	w := newWorld(t)
	w.external(`printf '\2\n'; echo words; exit 3`)
	drv := w.drv("fails", "", onPlatform("other-os"))
	text := w.mustFail(drv, derivation.StatusPermanentFailure)
	if want := "Cannot build '" + w.print(drv) + "'.\nReason: builder failed with exit code 3.\n"; !strings.HasPrefix(text, want) {
		t.Errorf("got %q, want it to begin with %q", text, want)
	}
	w.external(`printf '\2\n'`)
	drv = w.drv("nothing", "", onPlatform("other-os"))
	if text := w.mustFail(drv, derivation.StatusOutputRejected); !strings.Contains(text, "failed to produce output path for output 'out'") {
		t.Errorf("got %q", text)
	}
	w.set(func(s *settings.Settings) { s.KeepFailed = true })
	w.external(`printf '\2\n'; echo > kept; exit 1`)
	w.set(func(s *settings.Settings) { s.KeepFailed = true })
	w.mustFail(w.drv("kept", "", onPlatform("other-os")), derivation.StatusPermanentFailure)
	left := w.leftBuildDirs()
	if len(left) != 1 {
		t.Fatalf("build directories left: %q", left)
	}
	for _, name := range []string{"build/kept", "build.json"} {
		if _, err := os.Stat(w.root + "/var/builds/" + left[0] + "/" + name); err != nil {
			t.Error(err)
		}
	}
}

// TestExternalBuilderUser runs the program as a build user, who must be able to read its task and to work.
func TestExternalBuilderUser(t *testing.T) {
	w := newUserWorld(t, "nixbld1")
	w.external(`test -r "$3" && printf '\2\n' && id -u && touch ../beside && id -u > $(sed -E 's/.*"outputs":\{"out":"([^"]*).*/\1/' "$3")`)
	if err := os.Chmod(w.root+"/script", 0o755); err != nil {
		t.Fatal(err)
	}
	if got := strings.TrimSpace(w.read(w.mustBuild(w.drv("external", "", onPlatform("odd-os"))))); got == "0" {
		t.Errorf("the program ran as %s", got)
	}
}
