package build

import (
	"context"
	"encoding/base64"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
	"nixdaemon/sandbox"
	"nixdaemon/worker/settings"
)

// TestCheckVouches checks an output that came from elsewhere: once it was built here with the same result, it is ours,
// and signed by us.
func TestCheckVouches(t *testing.T) {
	w := newWorld(t)
	key := w.root + "/key"
	secret := make([]byte, 64)
	secret[0] = 1
	if err := os.WriteFile(key, []byte("test-1:"+base64.StdEncoding.EncodeToString(secret)), 0o600); err != nil {
		t.Fatal(err)
	}
	drv := w.drv("same", "echo same > $out")
	out := w.mustBuild(drv)
	info, err := w.store.PathInfo(w.ctx, out)
	if err != nil {
		t.Fatal(err)
	}
	foreign := *info
	foreign.Ultimate = false
	if _, err := w.store.Invalidate(w.ctx, out); err != nil {
		t.Fatal(err)
	}
	if err := w.store.Register(w.ctx, []*pathinfo.Info{&foreign}); err != nil {
		t.Fatal(err)
	}
	w.set(func(s *settings.Settings) { s.SecretKeyFiles = []string{key} })
	if res := w.buildMode(drv, derivation.BuildCheck); res.Status != derivation.StatusBuilt {
		t.Fatalf("check: %+v", res)
	}
	after, err := w.store.PathInfo(w.ctx, out)
	if err != nil || !after.Ultimate || len(after.Sigs) != 1 || !strings.HasPrefix(string(after.Sigs[0]), "test-1:") {
		t.Errorf("after the check: %+v, %v", after, err)
	}
}

// TestBuildLogSettings has logs that are not kept, or not compressed.
func TestBuildLogSettings(t *testing.T) {
	w := newWorld(t)
	log := func(drv storepath.Path) string { return w.root + "/log/drvs/" + drv.Base()[:2] + "/" + drv.Base()[2:] }
	w.set(func(s *settings.Settings) { s.KeepBuildLog = false })
	none := w.drv("none", "echo words; echo > $out")
	w.mustBuild(none)
	if exists(log(none)) || exists(log(none)+".bz2") {
		t.Error("a log was kept")
	}
	if diff := cmp.Diff([]string{"words"}, w.log.lines()); diff != "" {
		t.Errorf("the client's log (-want +got)\n%s", diff)
	}
	w.set(func(s *settings.Settings) { s.KeepBuildLog, s.CompressBuildLog = true, false })
	plain := w.drv("plain", "echo words; echo > $out")
	w.mustBuild(plain)
	if got := w.readFile(log(plain)); got != "words\n" {
		t.Errorf("log %q", got)
	}
}

// TestAnnounce shows what is executed to those who want to know that much.
func TestAnnounce(t *testing.T) {
	for level, want := range map[settings.Verbosity][]string{
		settings.LevelInfo:   {},
		settings.LevelChatty: {"executing builder '/bin/sh'", "using builder args '-c echo > $out'"},
		settings.LevelVomit:  {"executing builder '/bin/sh'", "setting builder env variable 'name'='x'", "using builder args '-c echo > $out'"},
	} {
		w := newWorld(t)
		w.set(func(s *settings.Settings) { s.Verbosity = level })
		w.mustBuild(w.drv("x", "echo > $out"))
		got := []string{}
		for _, line := range strings.Split(w.log.logged(), "\n") {
			if strings.HasPrefix(line, "executing builder") || strings.HasPrefix(line, "using builder") || strings.Contains(line, "'name'=") {
				got = append(got, line)
			}
		}
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("level %v (-want +got)\n%s", level, diff)
		}
	}
}

// TestPersonality says which machine a builder of another platform sees.
func TestPersonality(t *testing.T) {
	for _, tt := range []struct {
		system, platform string
		want             sandbox.Personality
	}{
		{"x86_64-linux", "x86_64-linux", sandbox.Personality{}},
		{"x86_64-linux", "i686-linux", sandbox.Personality{Linux32: true}},
		{"aarch64-linux", "i686-linux", sandbox.Personality{}},
		{"aarch64-linux", "armv7l-linux", sandbox.Personality{Linux32: true}},
		{"aarch64-linux", "armv5tel-linux", sandbox.Personality{Linux32: true}},
		{"aarch64-linux", "aarch64-linux", sandbox.Personality{}},
	} {
		for _, old := range []bool{false, true} {
			a := &attempt{set: &settings.Settings{}, drv: &derivation.Derivation{}}
			a.set.System, a.set.ImpersonateLinux26, a.drv.Platform = tt.system, old, tt.platform
			want := tt.want
			want.UNAME26 = old
			if got := a.personality(); got != want {
				t.Errorf("%s on %s: %+v, want %+v", tt.platform, tt.system, got, want)
			}
		}
	}
}

// TestNotExecutable tries builders that cannot be executed: the log says why, in the C library's words.
func TestNotExecutable(t *testing.T) {
	w := newWorld(t)
	file := func(name, text string, mode os.FileMode) string {
		path := w.root + "/" + name
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	loop := w.root + "/loop"
	if err := os.Symlink(loop, loop); err != nil {
		t.Fatal(err)
	}
	plain := file("plain", "#!/bin/sh\n", 0o644)
	for _, tt := range []struct{ builder, want string }{
		{w.root + "/nothing", "No such file or directory"},
		{file("interpreter", "#!/no/such/interpreter\n", 0o755), "No such file or directory"},
		{plain, "Permission denied"},
		{file("noise", "\x01\x02\x03", 0o755), "Exec format error"},
		{plain + "/below", "Not a directory"},
		{loop, "Too many levels of symbolic links"},
		{"/" + strings.Repeat("x", 300), "File name too long"},
		{"relative", "No such file or directory"},
	} {
		drv := w.drv("x", "", func(d *derivation.Derivation) { d.Builder, d.Args = tt.builder, nil })
		text := w.mustFail(drv, derivation.StatusPermanentFailure)
		if want := "> error: executing '" + tt.builder + "': " + tt.want + "\n"; !strings.Contains(text, want) || !strings.Contains(text, "builder failed with exit code 1.") {
			t.Errorf("%s: got %q, want %q in it", tt.builder, text, want)
		}
	}
	if got := errnoText(syscall.EPERM); got != "Operation not permitted" {
		t.Errorf("another error: %q", got)
	}
}

// TestMissingSource sends a derivation without one of its sources.
func TestMissingSource(t *testing.T) {
	w := newWorld(t)
	missing, err := randomPath("missing")
	if err != nil {
		t.Fatal(err)
	}
	drv := w.drv("x", "echo > $out")
	full, err := w.store.ReadDerivation(w.ctx, drv)
	if err != nil {
		t.Fatal(err)
	}
	basic := full.BasicDerivation
	basic.InputSrcs = []storepath.Path{missing}
	res, err := w.sched.BuildDerivation(w.ctx, w.sess, drv, &basic, derivation.BuildNormal)
	want := "dependency '" + w.print(missing) + "' of '" + w.print(drv) + "' does not exist, and substitution is disabled"
	if err != nil || res.Status != derivation.StatusMiscFailure || withoutColours(res.ErrorMsg) != want {
		t.Errorf("without substitution: %+v, %v; want %s", res, err, want)
	}
	w.set(func(s *settings.Settings) { s.Substitute = true })
	res, err = w.sched.BuildDerivation(w.ctx, w.sess, drv, &basic, derivation.BuildNormal)
	if err != nil || res.Status != derivation.StatusDependencyFailed || !strings.Contains(withoutColours(res.ErrorMsg), "Reason: 1 dependency failed.") {
		t.Errorf("with substitution: %+v, %v", res, err)
	}
}

// TestExportReferencesOfDerivations exports the graph of a derivation, which has its outputs in it, and one of which
// the outputs are unknown.
func TestExportReferencesOfDerivations(t *testing.T) {
	w := newKindsWorld(t)
	lib := w.drv("lib", "echo lib > $out")
	libOut := w.mustBuild(lib)
	export := func(name string, of storepath.Path) storepath.Path {
		return w.drv(name, "cat graph > $out", func(d *derivation.Derivation) {
			d.InputSrcs = []storepath.Path{of}
			d.Env["exportReferencesGraph"] = "graph " + w.print(of)
		})
	}
	graph := w.read(w.mustBuild(export("graph", lib)))
	for _, p := range []storepath.Path{lib, libOut} {
		if !strings.Contains(graph, w.print(p)+"\n\n") {
			t.Errorf("%s is not in %q", p, graph)
		}
	}
	unknown := w.drv("unknown", "echo > $out", floatingNAR)
	err := w.sched.BuildPaths(w.ctx, w.sess, []derivation.DerivedPath{built(export("graph2", unknown))}, derivation.BuildNormal)
	if want := "exportReferences on CA derivations is not yet implemented"; err == nil || withoutColours(Coloured(err)) != want {
		t.Errorf("got %v, want %s", err, want)
	}
	drv := w.drv("outside", "echo > $out", func(d *derivation.Derivation) { d.Env["exportReferencesGraph"] = "graph " + w.print(libOut) })
	text := w.mustFail(drv, derivation.StatusInputRejected)
	if want := "cannot export references of path '" + w.print(libOut) + "' because it is not in the input closure of the derivation"; text != want {
		t.Errorf("got %s, want %s", text, want)
	}
}

// TestAllWaitersLeave gives up a build that three wanted, one after the other: it goes on for the last, and then ends.
func TestAllWaitersLeave(t *testing.T) {
	w := newWorld(t)
	fifo := w.root + "/fifo"
	mkfifo(t, fifo)
	drv := w.drv("endless", "echo $$ > "+fifo+"; exec sleep 1000")
	var cancels []context.CancelFunc
	var waits []<-chan error
	for range 3 {
		ctx, cancel := context.WithCancel(w.ctx)
		cancels, waits = append(cancels, cancel), append(waits, w.request(ctx, drv))
	}
	pid := strings.TrimSpace(w.readFile(fifo))
	w.untilSubscribers(drv, 3)
	for i, cancel := range cancels {
		if !alive(pid) {
			t.Errorf("the builder is gone before waiter %d", i)
		}
		cancel()
		if err := <-waits[i]; err == nil {
			t.Errorf("waiter %d: no error", i)
		}
	}
	w.until(func() bool { return !alive(pid) && len(w.leftBuildDirs()) == 0 })
}
