package build

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/storepath"
	"nixdaemon/sandbox"
	"nixdaemon/sandbox/buildusers"
	"nixdaemon/sandbox/cgroup"
	"nixdaemon/worker/session"
	"nixdaemon/worker/settings"
)

// hierarchy is one of the test's own, in which nothing must be left.
func hierarchy(t testing.TB) *cgroup.Hierarchy {
	t.Helper()
	h, err := cgroup.Find()
	if err != nil {
		t.Skipf("needs cgroups version 2: %v", err)
	}
	dir, err := os.MkdirTemp(h.Dir(), "build-test-")
	if err != nil {
		t.Skipf("needs a cgroup that can be divided: %v", err)
	}
	t.Cleanup(func() {
		left, err := filepath.Glob(dir + "/nix-build-*")
		if err != nil || len(left) > 0 {
			t.Errorf("left behind: %q, %v", left, err)
		}
		if err := os.Remove(dir); err != nil {
			t.Error(err)
		}
	})
	if h, err = cgroup.At(dir); err != nil {
		t.Fatal(err)
	}
	return h
}

// in gives builds cgroups there.
func in(h *cgroup.Hierarchy) func(*Options) { return func(o *Options) { o.Cgroups = h } }

// alive tells whether the process that has written its number to the file lives.
func (w *world) alive(file string) bool {
	w.Helper()
	pid := strings.TrimSpace(w.readFile(file))
	text, err := os.ReadFile("/proc/" + pid + "/stat")
	return err == nil && !strings.Contains(string(text), ") Z ")
}

// daemonise is a script that leaves a process without any connection to the builder: its own session, parent 1, no
// environment, another directory. Its number is in the file.
func daemonise(file, redirect string) string {
	return "(setsid env -i /bin/sh -c 'cd /; (setsid sleep 1000 " + redirect + " & echo $! > " + file + ".new; mv " + file + ".new " + file + ")' ); "
}

func TestCgroupDaemonised(t *testing.T) {
	w := newWorld(t, in(hierarchy(t)))
	pid := w.root + "/pid"
	w.mustBuild(w.drv("daemon", "PATH=$PATH:/bin:/usr/bin; "+daemonise(pid, ">/dev/null 2>&1 </dev/null")+"cat /proc/self/cgroup | tail -1 > $out"))
	if w.alive(pid) {
		t.Error("a process of the builder has survived")
	}
}

// A process that has got away must not hold up the end of a build whose time is over.
func TestCgroupTimeout(t *testing.T) {
	w := newWorld(t, in(hierarchy(t)))
	pid := w.root + "/pid"
	drv := w.drv("slow", "PATH=$PATH:/bin:/usr/bin; "+daemonise(pid, "")+"sleep 1000")
	// On a slow machine the time may be over before the process has got away.
	for timeout := settings.Seconds(1); timeout < 300; timeout *= 3 {
		w.set(func(s *settings.Settings) { s.Timeout = timeout })
		w.mustFail(drv, derivation.StatusTimedOut)
		if _, err := os.Stat(pid); err == nil {
			break
		}
	}
	if w.alive(pid) {
		t.Error("a process of the builder has survived")
	}
}

func TestCgroupTimes(t *testing.T) {
	w := newWorld(t, in(hierarchy(t)))
	// The builder does not wait for what uses the processor.
	script := "PATH=$PATH:/bin:/usr/bin; mkfifo f; (setsid sh -c 'i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done; echo > f; sleep 1000' >/dev/null 2>&1 &); read x < f; tail -1 /proc/self/cgroup > $out"
	drv := w.drv("times", script)
	res := w.build(drv)
	if !res.Status.Success() || res.CPUUser == nil || *res.CPUUser < 2_000 {
		t.Fatalf("result %+v", res)
	}
	if got := w.read(w.out(drv, "out")); !strings.Contains(got, "/nix-build-pid-") {
		t.Errorf("the builder's cgroup is %q", got)
	}
}

func TestCgroupLimitNeedsController(t *testing.T) {
	h := hierarchy(t)
	have, err := h.Controllers()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range have {
		if c == "memory" {
			t.Skip("needs a machine without the cgroup controller 'memory'")
		}
	}
	w := newWorld(t, in(h))
	w.set(func(s *settings.Settings) { s.MaxBuildMemory = 1 << 30 })
	err = w.sched.BuildPaths(w.ctx, w.sess, []derivation.DerivedPath{built(w.drv("a", "echo > $out"))}, derivation.BuildNormal)
	if want := "limit builds: the cgroup \"" + h.Dir() + "\" does not have the controller 'memory'"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if left := w.leftBuildDirs(); len(left) != 0 {
		t.Errorf("left %q", left)
	}
	// None at all is an error too.
	w = newWorld(t)
	w.set(func(s *settings.Settings) { s.MaxBuildProcesses = 10 })
	err = w.sched.BuildPaths(w.ctx, w.sess, []derivation.DerivedPath{built(w.drv("a", "echo > $out"))}, derivation.BuildNormal)
	if !errors.Is(err, cgroup.ErrNone) && (err == nil || err.Error() != cgroup.ErrNone.Error()) {
		t.Errorf("got %v", err)
	}
}

// limitable is a hierarchy with the controllers that the limits need.
func limitable(t *testing.T, l cgroup.Limits, controller string) *cgroup.Hierarchy {
	t.Helper()
	parent, err := cgroup.Find()
	if err != nil {
		t.Skipf("needs cgroups version 2: %v", err)
	}
	control := parent.Dir() + "/cgroup.subtree_control"
	enabled, err := os.ReadFile(control)
	if err != nil {
		t.Fatal(err)
	}
	// That one group has limits makes the controller one of all groups below.
	g, err := parent.CreateNext(cgroup.Options{Limits: l})
	if err != nil {
		t.Skipf("needs the cgroup controller '%s': %v", controller, err)
	}
	if !slices.Contains(strings.Fields(string(enabled)), controller) {
		t.Cleanup(func() {
			if err := os.WriteFile(control, []byte("-"+controller), 0); err != nil {
				t.Error(err)
			}
		})
	}
	if _, err := g.Destroy(); err != nil {
		t.Fatal(err)
	}
	return hierarchy(t)
}

// inBoth runs the test for builders that see the machine and for isolated ones.
func inBoth(t *testing.T, h *cgroup.Hierarchy, test func(t *testing.T, w *world)) {
	t.Run("machine", func(t *testing.T) { test(t, newWorld(t, in(h))) })
	t.Run("isolated", func(t *testing.T) {
		w := newWorld(t, in(h))
		w.isolate()
		test(t, w)
		w.nothingLeft()
	})
}

// TestCgroupMemory: a builder that wants more than it may is killed, and all that it has started with it; the next one
// builds.
func TestCgroupMemory(t *testing.T) {
	inBoth(t, limitable(t, cgroup.Limits{Memory: 32 << 20}, "memory"), func(t *testing.T, w *world) {
		w.set(func(s *settings.Settings) { s.MaxBuildMemory = 32 << 20 })
		res := w.build(w.drv("greedy", "(x=0123456789; while :; do x=$x$x; done) & wait; sleep 1000"))
		if res.Status != derivation.StatusPermanentFailure || !strings.Contains(withoutColours(res.ErrorMsg), "failed due to signal 9 (Killed)") {
			t.Errorf("got %v: %s", res.Status, withoutColours(res.ErrorMsg))
		}
		w.mustBuild(w.drv("modest", "echo > $out"))
	})
}

// TestCgroupForkBomb: a fork bomb gets no further than it may, and ends with the build.
func TestCgroupForkBomb(t *testing.T) {
	inBoth(t, limitable(t, cgroup.Limits{Processes: 20}, "pids"), func(t *testing.T, w *world) {
		w.set(func(s *settings.Settings) { s.MaxBuildProcesses, s.Timeout = 20, 60 })
		// The shell gives up when it cannot fork.
		w.mustFail(w.drv("bomb", "while :; do sleep 1000 >/dev/null 2>&1 & done"), derivation.StatusPermanentFailure)
		w.mustBuild(w.drv("modest", "echo > $out"))
	})
}

// A machine that refuses to make cgroups builds without.
func TestCgroupRefused(t *testing.T) {
	h := hierarchy(t)
	gone, err := os.MkdirTemp(h.Dir(), "gone-")
	if err != nil {
		t.Fatal(err)
	}
	at, err := cgroup.At(gone)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(gone); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, in(at))
	w.mustBuild(w.drv("a", "echo > $out"))
}

// autoWorld allocates users from a range.
func autoWorld(t *testing.T) *world {
	t.Helper()
	w := newUserWorld(t, "one")
	w.set(func(s *settings.Settings) {
		s.AutoAllocateUIDs = true
		s.StartID, s.IDCount = firstAutoUID, 2*buildusers.SlotSize
		s.ExperimentalFeatures |= settings.Features(settings.AutoAllocateUIDs)
	})
	return w
}

func TestAutoAllocate(t *testing.T) {
	w := autoWorld(t)
	out := w.mustBuild(w.drv("whoami", "{ id -u; id -G; } > $out"))
	if got := w.read(out); got != fmt.Sprintf("%d\n%d\n", firstAutoUID, testGID) {
		t.Errorf("builder's identity %q", got)
	}
	w.isolate()
	out = w.mustBuild(w.drv("isolated", "{ id -u; id -g; cat /proc/self/uid_map /proc/self/gid_map; } > $out"))
	if got := strings.Join(strings.Fields(w.read(out)), " "); got != fmt.Sprintf("1000 100 1000 %[1]d 1 100 %[1]d 1", firstAutoUID) {
		t.Errorf("isolated builder's identity %q", got)
	}
	w.set(func(s *settings.Settings) { s.IDCount = 1 })
	err := w.sched.BuildPaths(w.ctx, w.sess, []derivation.DerivedPath{built(w.drv("bad", "echo > $out"))}, derivation.BuildNormal)
	if err == nil || err.Error() != "setting 'id-count' is 1, which is not a multiple of 65536" {
		t.Errorf("got %v", err)
	}
}

func ranged(d *derivation.Derivation) { d.Env["requiredSystemFeatures"] = "uid-range" }

func (w *world) buildError(drv storepath.Path) string {
	w.Helper()
	results, err := w.sched.BuildPathsWithResults(w.ctx, w.sess, []derivation.DerivedPath{built(drv)}, derivation.BuildNormal)
	switch {
	case err != nil:
		return err.Error()
	case len(results) == 1:
		return withoutColours(results[0].ErrorMsg)
	}
	return ""
}

func TestUIDRange(t *testing.T) {
	h := hierarchy(t)
	w := newUserWorldWith(t, in(h), "one")
	w.set(func(s *settings.Settings) { s.SystemFeatures = []string{"uid-range"} })
	if got := w.buildError(w.drv("plain", "echo > $out", ranged)); got != "feature 'uid-range' is only supported in sandboxed builds" {
		t.Errorf("not isolated: got %q", got)
	}
	w.isolate()
	w.set(func(s *settings.Settings) { s.SystemFeatures = []string{"uid-range"} })
	if got := w.buildError(w.drv("group", "echo > $out", ranged)); !strings.Contains(got, "feature 'uid-range' requires the setting 'auto-allocate-uids' to be enabled") {
		t.Errorf("from the group: got %q", got)
	}
	w.set(func(s *settings.Settings) {
		s.AutoAllocateUIDs = true
		s.StartID, s.IDCount = firstAutoUID, buildusers.SlotSize
	})
	if got := w.buildError(w.drv("off", "echo > $out", ranged)); !strings.Contains(got, "experimental Nix feature 'auto-allocate-uids' is disabled") {
		t.Errorf("without the feature: got %q", got)
	}
	w.set(func(s *settings.Settings) { s.ExperimentalFeatures |= settings.Features(settings.AutoAllocateUIDs) })
	if got := w.buildError(w.drv("cgroups", "echo > $out", ranged)); !strings.Contains(got, "experimental Nix feature 'cgroups' is disabled") {
		t.Errorf("without cgroups: got %q", got)
	}
	w.set(func(s *settings.Settings) { s.ExperimentalFeatures |= settings.Features(settings.Cgroups) })
	// What an earlier daemon has left of this user.
	left := filepath.Join(h.Dir(), fmt.Sprintf("nix-build-uid-%d", firstAutoUID))
	records := w.root + "/var/cgroups"
	if err := errors.Join(os.MkdirAll(records, 0o755), os.Mkdir(left, 0o755), os.WriteFile(records+"/"+fmt.Sprint(firstAutoUID), []byte(left), 0o644)); err != nil {
		t.Fatal(err)
	}
	script := "mkdir $out; { id -u; id -g; cat /proc/self/uid_map; cat /proc/self/cgroup | tail -1; } > $out/who; " +
		"echo > $out/f; chown 7:7 $out/f && stat -c %u $out/f >> $out/who; touch /etc/new /new && echo wrote >> $out/who"
	out := w.mustBuild(w.drv("range", script, ranged))
	if got := strings.Join(strings.Fields(w.read(out, "who")), " "); got != fmt.Sprintf("0 0 0 %d 65536 0::/ 7 wrote", firstAutoUID) {
		t.Errorf("builder's identity %q", got)
	}
	if st, err := os.Stat(w.store.RealPath(out) + "/f"); err != nil || st.Sys().(*syscall.Stat_t).Uid != 0 {
		t.Errorf("the output's owner: %v, %v", st, err)
	}
	if got := w.readFile(records + "/" + fmt.Sprint(firstAutoUID)); got != left {
		t.Errorf("record %q", got)
	}
	w.nothingLeft()
}

// clearing is a launcher that cannot clear users, or looks around while it does.
type clearing struct {
	Launcher
	clear func(uid, count uint32) error
}

func (c clearing) ClearUser(uid, count uint32) error {
	if err := c.Launcher.ClearUser(uid, count); err != nil {
		return err
	}
	return c.clear(uid, count)
}

func TestUserIsClearedFirst(t *testing.T) {
	var w *world
	cleared := 0
	inner := launcherOf(t)
	w = newUserWorldWith(t, func(o *Options) {
		o.Launcher = clearing{inner, func(uid, count uint32) error {
			if cleared++; uid != firstTestUID && uid != firstTestUID+1 || count != 1 {
				t.Errorf("cleared %d, %d", uid, count)
			}
			if left := w.leftBuildDirs(); len(left) != 0 {
				t.Errorf("there is a build directory already: %q", left)
			}
			if cleared == 1 {
				return errors.New("process 4711 does not die")
			}
			return nil
		}}
	}, "one", "two")
	if got := w.buildError(w.drv("a", "id -u > $out")); got != "process 4711 does not die" {
		t.Errorf("got %q", got)
	}
	// Who could not be cleared is out of circulation.
	out := w.mustBuild(w.drv("b", "id -u > $out"))
	if got := w.read(out); got != fmt.Sprintln(firstTestUID+1) || cleared != 2 {
		t.Errorf("user %q, cleared %d times", got, cleared)
	}
}

func launcherOf(t *testing.T) *sandbox.Launcher {
	t.Helper()
	l, err := sandbox.NewLauncher()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// BenchmarkCgroup is BenchmarkTrivial with and without a cgroup for each build.
func BenchmarkCgroup(b *testing.B) {
	const n = 300
	for _, name := range []string{"without", "with"} {
		b.Run(name, func(b *testing.B) {
			w := newWorld(b, func(o *Options) {
				if o.MaxTotalJobs = 2; name == "with" {
					o.Cgroups = hierarchy(b)
				}
			})
			w.change(func(s *session.Session) { s.Log = activity.Discard{} })
			w.measureTrivial(b, n)
		})
	}
}
