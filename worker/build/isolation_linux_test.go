package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/storepath"
	"nixdaemon/sandbox"
	"nixdaemon/worker/settings"
)

// isolate turns the sandbox on and shows builders a shell and its tools.
func (w *world) isolate() {
	w.Helper()
	launcher, err := sandbox.NewLauncher()
	if err != nil {
		w.Fatal(err)
	}
	defer launcher.Close()
	if err := launcher.Support().Namespaces; err != nil {
		w.Skipf("needs namespaces: %v", err)
	}
	w.set(func(s *settings.Settings) {
		s.Sandbox, s.SandboxFallback = settings.SandboxTrue, false
		s.SystemFeatures, s.SandboxPaths = nil, nil
		for _, dir := range []string{"/bin", "/lib", "/lib64", "/usr"} {
			s.SandboxPaths = append(s.SandboxPaths, settings.SandboxPath{Target: dir, Source: dir, Optional: true})
		}
	})
}

// inIsolation runs a test in each way that there is to be isolated here.
func inIsolation(t *testing.T, f func(t *testing.T, w *world)) {
	t.Run("own user", func(t *testing.T) {
		w := newWorld(t)
		w.isolate()
		f(t, w)
		w.nothingLeft()
	})
	t.Run("build users", func(t *testing.T) {
		w := newUserWorld(t, "one", "two")
		w.isolate()
		f(t, w)
		w.nothingLeft()
	})
}

// nothingLeft looks for what a build needs only while it runs.
func (w *world) nothingLeft() {
	w.Helper()
	if err := w.sched.ended(); err != nil {
		w.Error(err)
	}
	var left []string
	patterns := []string{w.root + "/store/*.chroot", w.root + "/store/tmp-*", w.root + "/var/builds/*"}
	if dir := w.sess.Settings.BuildDir; dir != "" {
		patterns = append(patterns, dir+"/nix-*")
	}
	for _, pattern := range patterns {
		found, err := filepath.Glob(pattern)
		if err != nil {
			w.Fatal(err)
		}
		left = append(left, found...)
	}
	if len(left) != 0 {
		w.Errorf("left behind: %q", left)
	}
}

// needs adds inputs.
func needs(inputs ...storepath.Path) func(*derivation.Derivation) {
	return func(d *derivation.Derivation) { d.InputSrcs = storepath.SortUnique(append(d.InputSrcs, inputs...)) }
}

func TestIsolatedWorld(t *testing.T) {
	inIsolation(t, func(t *testing.T, w *world) {
		file := w.source("input", "visible")
		w.source("other", "not an input")
		tests := []struct {
			name, script string
			want         string
		}{
			{"root", "cd /; ls", "bin build dev etc lib lib64 proc tmp usr"},
			{"store", "ls $NIX_STORE", file.Base()},
			{"input", "cat " + w.print(file), "visible"},
			{"input is read-only", "(echo > " + w.print(file) + ") 2>/dev/null || echo refused", "refused"},
			{"build directory", "pwd; ls -A; stat -c %a .", "/build 700"},
			{"environment", "echo $NIX_BUILD_TOP $TMPDIR $TEMPDIR $TMP $TEMP $PWD", "/build /build /build /build /build /build"},
			{"ids", "id -u; id -g; id -G; id -un; id -gn", "1000 100 100 nixbld nixbld"},
			{"etc", "cd /etc; ls; stat -c %a . *; cat hosts", "group hosts passwd 555 644 644 644 127.0.0.1 localhost ::1 localhost"},
			{"temporary files", "stat -c %a /tmp; echo ok > /tmp/f; cat /tmp/f", "1777 ok"},
			{"devices", "ls /dev", "fd full null ptmx pts random shm stderr stdin stdout tty urandom zero"},
			{"processes", "echo $$; cat /proc/1/comm", "1 sh"},
			{"network", "tail -n +3 /proc/net/dev | cut -d: -f1", "lo"},
			{"shared memory", "df --output=fstype /dev/shm | tail -1; stat -c %a /dev/shm", "tmpfs 1777"},
			{"home", "echo $HOME; test -e $HOME || echo none", "/homeless-shelter none"},
		}
		for _, tt := range tests {
			drv := w.drv(strings.ReplaceAll(tt.name, " ", "-"), "{ "+tt.script+"; } > /tmp/log; cp /tmp/log $out", needs(file))
			out := w.mustBuild(drv)
			if got := strings.Join(strings.Fields(w.read(out)), " "); got != tt.want {
				t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
			}
		}
	})
}

// TestIsolatedOutputs makes all kinds of outputs.
func TestIsolatedOutputs(t *testing.T) {
	inIsolation(t, func(t *testing.T, w *world) {
		w.set(func(s *settings.Settings) {
			s.ExperimentalFeatures = settings.Features(settings.NixCommand, settings.CADerivations, settings.ImpureDerivations)
		})
		dep := w.drv("dep", "mkdir $out; echo dep > $out/f; ln -s $out/f $out/l")
		two := w.drv("two", "echo $dev > $out; mkdir $dev; echo $dep > $dev/f", dependsOn(dep), func(d *derivation.Derivation) {
			d.Outputs["dev"], d.Env["dev"] = derivation.Output{Kind: derivation.Deferred}, ""
			d.Env["dep"] = w.print(w.out(dep, "out"))
		})
		res := w.build(two)
		if !res.Status.Success() {
			t.Fatal(res.ErrorMsg)
		}
		dev := res.BuiltOutputs["dev"].OutPath
		if got, want := w.read(res.BuiltOutputs["out"].OutPath), w.print(dev)+"\n"; got != want {
			t.Errorf("out has %q, want %q", got, want)
		}
		info, err := w.store.PathInfo(w.ctx, dev)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]storepath.Path{w.out(dep, "out")}, info.References, cmp.Comparer(func(a, b storepath.Path) bool { return a == b })); diff != "" {
			t.Errorf("references (-want +got)\n%s", diff)
		}
		floating := w.mustBuild(w.drv("floating", "mkdir $out; echo $out > $out/self", outIs(derivation.Output{Kind: derivation.FloatingCA, Method: storepath.MethodNAR, Algo: nixhash.SHA256})))
		if got, want := w.read(floating, "self"), w.print(floating)+"\n"; got != want {
			t.Errorf("floating output refers to %q, want %q", got, want)
		}
		w.mustBuild(w.drv("impure", "echo $out > $out", outIs(derivation.Output{Kind: derivation.Impure, Method: storepath.MethodNAR, Algo: nixhash.SHA256})))
	})
}

// outIs says what the output "out" is.
func outIs(o derivation.Output) func(*derivation.Derivation) {
	return func(d *derivation.Derivation) {
		d.Outputs["out"] = o
		d.Env["out"] = derivation.HashPlaceholder("out")
	}
}

// TestIsolatedFixedOutput has the network's files and the daemon's network.
func TestIsolatedFixedOutput(t *testing.T) {
	inIsolation(t, func(t *testing.T, w *world) {
		script := "cat /etc/nsswitch.conf; ls /etc; readlink /proc/self/ns/net; echo fixed > $out"
		drv := w.drv("fixed", script, fixed(storepath.MethodFlat, "fixed\n"))
		w.mustBuild(drv)
		log := strings.Join(w.log.lines(), "\n")
		net, err := os.Readlink("/proc/self/ns/net")
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"hosts: files dns\nservices: files", net} {
			if !strings.Contains(log, want) {
				t.Errorf("no %q in %q", want, log)
			}
		}
		wrong := w.drv("wrong", "echo other > $out", fixed(storepath.MethodFlat, "fixed\n"))
		if text := w.mustFail(wrong, derivation.StatusOutputRejected); !strings.HasPrefix(text, "hash mismatch in fixed-output derivation") {
			t.Errorf("text %q", text)
		}
	})
}

func TestIsolatedCheckAndRepair(t *testing.T) {
	inIsolation(t, func(t *testing.T, w *world) {
		same, differs := w.drv("same", "echo $out > $out"), w.drv("differs", "cat /proc/sys/kernel/random/uuid > $out")
		out := w.mustBuild(same)
		w.mustBuild(differs)
		if res := w.buildMode(same, derivation.BuildCheck); !res.Status.Success() {
			t.Errorf("check: %+v", res)
		}
		res := w.buildMode(differs, derivation.BuildCheck)
		if res.Status != derivation.StatusNotDeterministic {
			t.Errorf("check: %+v", res)
		}
		w.set(func(s *settings.Settings) { s.KeepFailed = true })
		res = w.buildMode(differs, derivation.BuildCheck)
		if !strings.Contains(res.ErrorMsg, ".check") || !exists(w.store.RealPath(w.out(differs, "out"))+".check") {
			t.Errorf("check with --keep-failed: %+v", res)
		}
		w.set(func(s *settings.Settings) { s.KeepFailed = false })
		for _, dir := range w.keptDirs() {
			os.RemoveAll(dir)
		}
		damage(t, w.store.RealPath(out))
		if res := w.buildMode(same, derivation.BuildRepair); !res.Status.Success() {
			t.Errorf("repair: %+v", res)
		}
		if got, want := w.read(out), w.print(out)+"\n"; got != want {
			t.Errorf("repaired output has %q, want %q", got, want)
		}
	})
}

// TestIsolatedRepairOfOneOutput damages one output of two that name each other: in the sandbox both are made under
// their own names, but only the damaged one is replaced.
func TestIsolatedRepairOfOneOutput(t *testing.T) {
	inIsolation(t, func(t *testing.T, w *world) {
		drv := w.drv("two", "echo out $dev > $out; echo dev $dev > $dev", outputs("dev"))
		w.mustBuild(drv)
		out, dev := w.out(drv, "out"), w.out(drv, "dev")
		before, err := os.Stat(w.store.RealPath(out))
		if err != nil {
			t.Fatal(err)
		}
		damage(t, w.store.RealPath(dev))
		if res := w.buildMode(drv, derivation.BuildRepair); !res.Status.Success() {
			t.Errorf("repair: %+v", res)
		}
		if got, want := w.read(dev), "dev "+w.print(dev)+"\n"; got != want {
			t.Errorf("repaired output has %q, want %q", got, want)
		}
		if after, err := os.Stat(w.store.RealPath(out)); err != nil || !os.SameFile(before, after) {
			t.Errorf("the good output was replaced: %v", err)
		}
		// The one that is gone is made again, too.
		if err := os.Remove(w.store.RealPath(dev)); err != nil {
			t.Fatal(err)
		}
		if res := w.buildMode(drv, derivation.BuildRepair); !res.Status.Success() || w.read(dev) != "dev "+w.print(dev)+"\n" {
			t.Errorf("repair of what is gone: %+v", res)
		}
	})
}

func damage(t *testing.T, file string) {
	t.Helper()
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("damaged"), 0o644); err != nil {
		t.Fatal(err)
	}
}

func (w *world) keptDirs() []string {
	parent := w.sess.Settings.BuildDir
	if parent == "" {
		parent = w.root + "/var/builds"
	}
	dirs, err := filepath.Glob(parent + "/nix-*")
	if err != nil {
		w.Fatal(err)
	}
	return dirs
}

// TestIsolatedFailure leaves outputs of unsuccessful builds in the store and, if asked for, the build directory.
func TestIsolatedFailure(t *testing.T) {
	inIsolation(t, func(t *testing.T, w *world) {
		w.set(func(s *settings.Settings) { s.KeepFailed = true })
		drv := w.drv("fails", "echo partial > $out; echo note > file; exit 3")
		w.mustFail(drv, derivation.StatusPermanentFailure)
		out := w.out(drv, "out")
		if got := w.read(out); got != "partial\n" {
			t.Errorf("output of failed build %q", got)
		}
		if valid, err := w.store.IsValid(w.ctx, out); err != nil || valid {
			t.Errorf("output of failed build is valid: %v, %v", valid, err)
		}
		kept := w.keptDirs()
		if len(kept) != 1 {
			t.Fatalf("kept %q", kept)
		}
		if want := `note: keeping build directory "` + kept[0] + `/build"`; !strings.Contains(w.log.logged(), want) {
			t.Errorf("no %q in %q", want, w.log.logged())
		}
		for _, dir := range []string{kept[0], kept[0] + "/build"} {
			if st, err := os.Stat(dir); err != nil || st.Mode().Perm() != 0o755 {
				t.Errorf("%s: %v, %v", dir, st, err)
			}
		}
		if text, err := os.ReadFile(kept[0] + "/build/file"); err != nil || string(text) != "note\n" {
			t.Errorf("kept file: %q, %v", text, err)
		}
		os.RemoveAll(kept[0])
		// What is in the way does not stay there.
		w.set(func(s *settings.Settings) { s.KeepFailed = false })
		w.mustFail(drv, derivation.StatusPermanentFailure)
	})
}

// TestIsolatedCancel gives a build up: nothing of it stays.
func TestIsolatedCancel(t *testing.T) {
	inIsolation(t, func(t *testing.T, w *world) {
		drv := w.drv("endless", "(while :; do sleep 1; done) & echo begun; wait")
		ctx, cancel := context.WithCancel(w.ctx)
		done := w.request(ctx, drv)
		w.until(func() bool { return len(w.log.lines()) == 1 })
		cancel()
		if err := <-done; err == nil {
			t.Error("no error")
		}
		w.until(func() bool { return len(w.keptDirs()) == 0 && !exists(w.store.RealPath(drv)+".chroot") })
		// Remains of a process that died are no hindrance.
		leftover := w.store.RealPath(w.drv("next", "echo > $out")) + ".chroot"
		if err := os.MkdirAll(leftover+"/root/x", 0o755); err != nil {
			t.Fatal(err)
		}
		w.mustBuild(w.drv("next", "echo > $out"))
	})
}

func TestIsolatedExecutionErrors(t *testing.T) {
	inIsolation(t, func(t *testing.T, w *world) {
		for builder, want := range map[string]string{"/no/such": "executing '/no/such': No such file or directory",
			"/etc/passwd": "executing '/etc/passwd': Permission denied", "relative": "executing 'relative': No such file or directory"} {
			drv := w.drv("bad", "", func(d *derivation.Derivation) { d.Builder = builder })
			w.mustFail(drv, derivation.StatusPermanentFailure)
			if log := withoutColours(strings.Join(w.log.lines(), "\n")); !strings.Contains(log, want) {
				t.Errorf("no %q in %q", want, log)
			}
		}
	})
}

// TestSandboxPaths shows paths by the setting, the derivation and the hook.
func TestSandboxPaths(t *testing.T) {
	inIsolation(t, func(t *testing.T, w *world) {
		host := w.root + "/host"
		if err := os.Mkdir(host, 0o755); err != nil {
			t.Fatal(err)
		}
		for name, text := range map[string]string{"a": "A", "b": "B", "c": "C"} {
			if err := os.WriteFile(host+"/"+name, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Symlink("a", host+"/link"); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(w.root+"/hook", []byte("#!/bin/sh\necho extra-sandbox-paths\necho /by-hook="+host+"/c\ntest -d $2\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		dep := w.drv("dep", "echo dependency > $out")
		tool := w.drv("tool", "echo $dep > $out", dependsOn(dep), func(d *derivation.Derivation) { d.Env["dep"] = w.print(w.out(dep, "out")) })
		toolPath := w.mustBuild(tool)
		w.set(func(s *settings.Settings) {
			s.SandboxPaths = append(s.SandboxPaths, settings.SandboxPath{Target: "/by/setting", Source: host + "/a"},
				settings.SandboxPath{Target: "/link", Source: host + "/link"},
				settings.SandboxPath{Target: "/missing", Source: host + "/missing", Optional: true},
				settings.SandboxPath{Target: "/tool", Source: w.print(toolPath)})
			s.AllowedImpureHostDeps = []string{host}
			s.PreBuildHook = w.root + "/hook"
		})
		drv := w.drv("see", "{ cat /by/setting /by-hook "+host+"/b; readlink /link; test -e /missing || echo none; cat $(cat /tool); } > /tmp/log; cp /tmp/log $out",
			func(d *derivation.Derivation) { d.Env["__impureHostDeps"] = host + "/b " + host + "/no" })
		if got, want := w.read(w.mustBuild(drv)), "ACBa\nnone\ndependency\n"; got != want {
			t.Errorf("the builder sees %q, want %q", got, want)
		}
		// What is to be built is not shown, though the setting does.
		if res := w.buildMode(tool, derivation.BuildCheck); !res.Status.Success() {
			t.Errorf("check of a shown path: %+v", res)
		}
	})
}

func env(name, value string) func(*derivation.Derivation) {
	return func(d *derivation.Derivation) { d.Env[name] = value }
}

// TestSandboxRefusals are the texts of what cannot be.
func TestSandboxRefusals(t *testing.T) {
	tests := []struct {
		name   string
		set    func(w *world, s *settings.Settings)
		change func(*derivation.Derivation)
		want   string
	}{
		{"no chroot", nil, env("__noChroot", "1"), "derivation 'DRV' has '__noChroot' set, but that's not allowed when 'sandbox' is 'true'"},
		{"impure path", func(_ *world, s *settings.Settings) { s.AllowedImpureHostDeps = []string{"/us"} }, env("__impureHostDeps", "/usr"),
			"derivation 'DRV' requested impure path '/usr', but it was not in allowed-impure-host-deps"},
		{"build directory above the store", func(_ *world, s *settings.Settings) { s.SandboxBuildDir = "/tmp" }, nil, "`sandbox-build-dir` must not contain the storeDir"},
		{"missing path", func(_ *world, s *settings.Settings) {
			s.SandboxPaths = append(s.SandboxPaths, settings.SandboxPath{Target: "/a", Source: "/no/such"})
		}, nil, `getting attributes of path "/no/such": No such file or directory`},
		{"embedded shell", func(_ *world, s *settings.Settings) {
			s.SandboxPaths = append(s.SandboxPaths, settings.SandboxPath{Target: "/x", Source: "__embedded_sandbox_shell__"})
		}, nil, `getting attributes of path "__embedded_sandbox_shell__": No such file or directory`},
		{"range of ids", func(_ *world, s *settings.Settings) { s.SystemFeatures = []string{"uid-range"} }, env("requiredSystemFeatures", "uid-range"),
			"feature 'uid-range' requires the setting 'auto-allocate-uids' to be enabled"},
		{"range of ids unsandboxed", func(_ *world, s *settings.Settings) {
			s.SystemFeatures, s.Sandbox = []string{"uid-range"}, settings.SandboxFalse
		}, env("requiredSystemFeatures", "uid-range"), "feature 'uid-range' is only supported in sandboxed builds"},
		{"hook fails", func(w *world, s *settings.Settings) { s.PreBuildHook = "/bin/false" }, nil, `program "/bin/false" failed with exit code 1`},
		{"hook talks nonsense", func(w *world, s *settings.Settings) { s.PreBuildHook = "/bin/echo" }, nil, "unknown pre-build hook command 'DRV DRV.chroot/root'"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.isolate()
			if tt.set != nil {
				w.set(func(s *settings.Settings) { tt.set(w, s) })
			}
			if tt.change == nil {
				tt.change = func(*derivation.Derivation) {}
			}
			drv := w.drv("refused", "echo > $out", tt.change)
			err := w.sched.BuildPaths(w.ctx, w.sess, []derivation.DerivedPath{built(drv)}, derivation.BuildNormal)
			if want := strings.ReplaceAll(tt.want, "DRV", w.print(drv)); err == nil || withoutColours(err.Error()) != want {
				t.Errorf("got %v, want %s", err, want)
			}
			w.nothingLeft()
		})
	}
}

// TestRelaxed builds outside what asks for it.
func TestRelaxed(t *testing.T) {
	w := newWorld(t)
	w.isolate()
	w.set(func(s *settings.Settings) { s.Sandbox = settings.SandboxRelaxed })
	mark := w.root + "/mark"
	if err := os.WriteFile(mark, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	see := "test -e " + mark + " && echo outside > $out || echo inside > $out"
	for name, tt := range map[string]struct {
		change func(*derivation.Derivation)
		want   string
	}{
		"plain":     {func(*derivation.Derivation) {}, "inside\n"},
		"no-chroot": {func(d *derivation.Derivation) { d.Env["__noChroot"] = "1" }, "outside\n"},
		"fixed":     {fixed(storepath.MethodFlat, "outside\n"), "outside\n"},
	} {
		if got := w.read(w.mustBuild(w.drv(name, see, tt.change))); got != tt.want {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}

// lessLauncher is on a machine that lacks something.
type lessLauncher struct {
	Launcher
	support sandbox.Support
}

func (l lessLauncher) Support() sandbox.Support { return l.support }

// noLauncher fails to start anything.
type noLauncher struct {
	Launcher
	err error
}

func (l noLauncher) Start(context.Context, sandbox.Spec) (*sandbox.Process, error) { return nil, l.err }

func TestIsolationFails(t *testing.T) {
	for want, cause := range map[string]error{
		"setgroups failed. Set the require-drop-supplementary-groups option to false to skip this step.": sandbox.ErrGroups,
		"mount '/x': no such device": errors.New("mount '/x': no such device"),
	} {
		w := newWorld(t, func(o *Options) { o.Launcher = noLauncher{o.Launcher, cause} })
		w.isolate()
		err := w.sched.BuildPaths(w.ctx, w.sess, []derivation.DerivedPath{built(w.drv("a", "echo > $out"))}, derivation.BuildNormal)
		if err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
		w.nothingLeft()
	}
}

func TestNoNamespaces(t *testing.T) {
	lack := func(s sandbox.Support) func(*Options) {
		return func(o *Options) { o.Launcher = lessLauncher{o.Launcher, s} }
	}
	refused := errors.New("refused")
	t.Run("fallback", func(t *testing.T) {
		w := newWorld(t, lack(sandbox.Support{Namespaces: refused}))
		w.set(func(s *settings.Settings) { s.Sandbox, s.SandboxFallback = settings.SandboxTrue, true })
		if got := w.read(w.mustBuild(w.drv("outside", "pwd > $out"))); !strings.HasPrefix(got, w.root) {
			t.Errorf("built in %q", got)
		}
		if want := "auto-disabling sandboxing because the prerequisite namespaces are not available"; !strings.Contains(w.log.logged(), want) {
			t.Errorf("no %q in %q", want, w.log.logged())
		}
	})
	t.Run("none", func(t *testing.T) {
		w := newWorld(t, lack(sandbox.Support{Namespaces: refused}))
		w.set(func(s *settings.Settings) { s.Sandbox, s.SandboxFallback = settings.SandboxTrue, false })
		err := w.sched.BuildPaths(w.ctx, w.sess, []derivation.DerivedPath{built(w.drv("a", "echo > $out"))}, derivation.BuildNormal)
		want := "this system does not support the kernel namespaces that are required for sandboxing; use '--no-sandbox' to disable sandboxing"
		if err == nil || err.Error() != want {
			t.Errorf("got %v", err)
		}
	})
	t.Run("none for the user", func(t *testing.T) {
		w := newWorld(t, lack(sandbox.Support{UserNamespaces: refused}))
		w.set(func(s *settings.Settings) { s.Sandbox = settings.SandboxTrue })
		err := w.sched.BuildPaths(w.ctx, w.sess, []derivation.DerivedPath{built(w.drv("a", "echo > $out"))}, derivation.BuildNormal)
		want := "cannot perform a sandboxed build because user namespaces are not enabled; check /proc/sys/user/max_user_namespaces"
		if err == nil || err.Error() != want {
			t.Errorf("got %v", err)
		}
	})
	t.Run("none for the user, but a build user", func(t *testing.T) {
		w := newUserWorld(t, "one")
		w.isolate()
		if err := w.sched.Close(w.ctx); err != nil {
			t.Fatal(err)
		}
		lack(sandbox.Support{UserNamespaces: refused})(&w.options)
		w.sched = New(w.options)
		out := w.mustBuild(w.drv("who", "id -u > $out; id -g >> $out; grep nixbld /etc/passwd >> $out"))
		if got, want := w.read(out), fmt.Sprintf("%[1]d\n%[2]d\nnixbld:x:%[1]d:%[2]d:Nix build user:/build:/noshell\n", firstTestUID, testGID); got != want {
			t.Errorf("builder's identity %q, want %q", got, want)
		}
	})
}

// TestIsolatedBuiltin has the program that carries out builtins within the builder's world (GHSA-wf4c-57rh-9pjg: it was
// outside, on macOS).
func TestIsolatedBuiltin(t *testing.T) {
	shell, err := filepath.EvalSymlinks("/bin/sh")
	if err != nil {
		t.Skipf("needs a shell: %v", err)
	}
	w := newWorld(t, func(o *Options) {
		o.BuiltinCommand = func(name string) []string {
			return []string{shell, "-c", "pwd; stat -c %a .builtin.json; echo " + name + " $NIX_BUILD_TOP; test -e " + shell + " || echo alone"}
		}
	})
	w.isolate()
	drv := w.drv("builtin", "", func(d *derivation.Derivation) { d.Builder, d.Args = "builtin:test", nil })
	w.mustFail(drv, derivation.StatusOutputRejected)
	if diff := cmp.Diff([]string{"/build", "600", "test /build"}, w.log.lines()); diff != "" {
		t.Errorf("log (-want +got)\n%s", diff)
	}
	w.nothingLeft()
}

// BenchmarkIsolated builds trivial derivations in isolation, with few inputs and with many.
func BenchmarkIsolated(b *testing.B) {
	const n = 20
	for _, inputs := range []int{0, 8, 800} {
		b.Run(strconv.Itoa(inputs), func(b *testing.B) {
			var times timings
			w := benchWorld(b, 2, func(o *Options) { o.Timed = times.note })
			w.alone()
			var sources []storepath.Path
			for i := range inputs {
				sources = append(sources, w.source("s"+strconv.Itoa(i), "text"))
			}
			var used time.Duration
			for i := range b.N {
				b.StopTimer()
				paths := make([]derivation.DerivedPath, n)
				for j := range paths {
					paths[j] = built(w.drv("i"+strconv.Itoa(i)+"-"+strconv.Itoa(j), "echo > $out", needs(sources...)))
				}
				before := cpuTime()
				b.StartTimer()
				w.buildAll(paths)
				used += cpuTime() - before
			}
			b.ReportMetric(used.Seconds()*1000/n/float64(b.N), "cpu-ms/build")
			b.ReportMetric(n*float64(b.N)/b.Elapsed().Seconds(), "builds/s")
			t := times.mean()
			b.ReportMetric(float64(t.Setup.Microseconds()), "us-slot-to-exec")
			b.ReportMetric(float64(t.Run.Microseconds()), "us-running")
			b.ReportMetric(float64(t.Finish.Microseconds()), "us-exit-to-registered")
		})
	}
}

// timings adds up the times of builds.
type timings struct {
	mu    sync.Mutex
	sum   Timing
	count time.Duration
}

func (m *timings) note(_ storepath.Path, t Timing) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sum.Setup, m.sum.Run, m.sum.Finish, m.count = m.sum.Setup+t.Setup, m.sum.Run+t.Run, m.sum.Finish+t.Finish, m.count+1
}

func (m *timings) mean() Timing {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := max(m.count, 1)
	return Timing{m.sum.Setup / n, m.sum.Run / n, m.sum.Finish / n}
}

// TestTimed: each build whose builder has run is told of once, failures too.
func TestTimed(t *testing.T) {
	var m timings
	w := newWorld(t, func(o *Options) { o.Timed = m.note })
	w.mustBuild(w.drv("good", "echo > $out"))
	w.build(w.drv("bad", "exit 1"))
	w.mustBuild(w.drv("good", "echo > $out"))
	if mean := m.mean(); m.count != 2 || mean.Setup <= 0 || mean.Run <= 0 || mean.Finish <= 0 {
		t.Errorf("%d builds, on average %+v", m.count, mean)
	}
}

// TestStoreInSharedMemory has the store where builders get a file system of their own.
func TestStoreInSharedMemory(t *testing.T) {
	if !exists(devShm) {
		t.Skipf("needs %s", devShm)
	}
	t.Setenv("TMPDIR", devShm)
	w := newWorld(t)
	w.isolate()
	if !strings.HasPrefix(w.root, devShm+"/") {
		t.Fatalf("the store is in %s", w.root)
	}
	in := w.source("input", "visible")
	out := w.mustBuild(w.drv("a", "cat "+w.print(in)+" > $out; stat -f -c %T /dev/shm; echo > "+w.print(in)+" 2>/dev/null || echo read-only", needs(in)))
	if got := w.read(out); got != "visible" {
		t.Errorf("output %q", got)
	}
	if got := w.log.lines(); len(got) != 3 || got[0] != "tmpfs" || got[2] != "read-only" {
		t.Errorf("log %q", got)
	}
	w.nothingLeft()
}

// TestMadeByHook: what a hook puts into the root that it is given is there for its build alone.
func TestMadeByHook(t *testing.T) {
	w := newWorld(t)
	w.alone()
	hook := w.root + "/hook"
	script := "#!/bin/sh\ncase $1 in *-with.drv) echo made > $2/made; mkdir -p $2/opt/d $2/bin; echo deep > $2/opt/d/f; echo hidden > $2/bin/cat;; esac\n"
	if err := os.WriteFile(hook, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	w.mustBuild(w.drv("before", "echo > $out"))
	w.set(func(s *settings.Settings) { s.PreBuildHook = hook })
	out := w.mustBuild(w.drv("with", "cat /made /opt/d/f > $out"))
	if got := w.read(out); got != "made\ndeep\n" {
		t.Errorf("with the hook: %q", got)
	}
	w.mustBuild(w.drv("without", "test ! -e /made && test ! -e /opt && echo > $out"))
	w.set(func(s *settings.Settings) { s.PreBuildHook = "" })
	w.mustBuild(w.drv("after", "test ! -e /made && test ! -e /opt && echo > $out"))
	w.nothingLeft()
}
