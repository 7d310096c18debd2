//go:build linux

package cgroup

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// scratch is a hierarchy of the test's own.
func scratch(t testing.TB) *Hierarchy {
	t.Helper()
	h, err := Find()
	if err != nil {
		t.Skipf("needs cgroups version 2: %v", err)
	}
	dir, err := os.MkdirTemp(h.Dir(), "cgroup-test-")
	if err != nil {
		t.Skipf("needs a cgroup that can be divided: %v", err)
	}
	h, err = At(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		f, err := openGroup(dir)
		if err != nil {
			t.Error(err)
			return
		}
		if _, err := (&Group{path: dir, dir: f}).Destroy(); err != nil {
			t.Error(err)
		}
	})
	return h
}

func create(t testing.TB, h *Hierarchy, o Options) *Group {
	t.Helper()
	g, err := h.CreateNext(o)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// start runs a shell script in the group and waits until it has said "ready".
func start(t testing.TB, g *Group, script string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-c", script)
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(g.Dir().Fd())}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Wait() })
	if _, err := out.Read(make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	return cmd
}

func members(t testing.TB, g *Group) []string {
	t.Helper()
	text, err := readAt(g.Dir(), "cgroup.procs")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(text)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func TestDestroyKillsDaemonised(t *testing.T) {
	g := create(t, scratch(t), Options{})
	// The shell ends; its grandchild has another session and parent, and no environment.
	cmd := start(t, g, "setsid env -i sh -c '(setsid sleep 1000 >/dev/null 2>&1 &)'; echo ready")
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	left := members(t, g)
	if len(left) != 1 {
		t.Fatalf("members %v, want the daemon", left)
	}
	pid, _ := strconv.Atoi(left[0])
	if _, err := g.Destroy(); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile("/proc/" + left[0] + "/stat"); err == nil && !strings.Contains(string(text), ") Z ") {
		t.Errorf("process %d lives: %s", pid, text)
	}
	if exists(g.Path()) {
		t.Error("the group is still there")
	}
}

func TestDestroyForkingOwner(t *testing.T) {
	for _, how := range []string{"at once", "one by one"} {
		t.Run(how, func(t *testing.T) {
			g := create(t, scratch(t), Options{Owner: &Owner{uint32(os.Getuid()), uint32(os.Getgid())}})
			// Groups within the group, with processes that go on forking.
			start(t, g, "mkdir -p "+g.Path()+"/a/b; echo $$ > "+g.Path()+"/a/b/cgroup.procs; "+
				"for i in 1 2 3; do (while :; do /bin/true & done) & done; echo ready; wait")
			if how == "one by one" {
				if err := writeAt(g.Dir(), "cgroup.freeze", "1"); err != nil {
					t.Fatal(err)
				}
				if err := killEach(g.Dir(), 0); err != nil {
					t.Fatal(err)
				}
			}
			stats, err := g.Destroy()
			if err != nil {
				t.Fatal(err)
			}
			if stats.CPUUser+stats.CPUSystem == 0 {
				t.Error("no processor time was counted")
			}
		})
	}
}

func TestStatsCountTheUnwaited(t *testing.T) {
	g := create(t, scratch(t), Options{})
	cmd := start(t, g, "(i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo ready) & sleep 1000")
	defer cmd.Process.Kill()
	stats, err := g.Destroy()
	if err != nil || stats.CPUUser < time.Millisecond || stats.CPUUser > time.Minute {
		t.Errorf("got %v, %v", stats, err)
	}
}

func TestOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to make somebody else an owner")
	}
	h := scratch(t)
	g := create(t, h, Options{Owner: &Owner{4_000_001, 4_000_002}})
	defer g.Destroy()
	for _, name := range []string{"", "cgroup.procs", "cgroup.threads"} {
		st, err := os.Stat(filepath.Join(g.Path(), name))
		if err != nil || st.Sys().(*syscall.Stat_t).Uid != 4_000_001 || st.Sys().(*syscall.Stat_t).Gid != 4_000_002 {
			t.Errorf("%q: %v, %v", name, st, err)
		}
	}
	for _, name := range []string{"cgroup.max.descendants", "cgroup.subtree_control", "cgroup.kill"} {
		if st, err := os.Stat(filepath.Join(g.Path(), name)); err != nil || st.Sys().(*syscall.Stat_t).Uid != 0 {
			t.Errorf("%q: %v, %v", name, st, err)
		}
	}
	if text, err := readAt(g.Dir(), "cgroup.max.descendants"); err != nil || text != "10000\n" {
		t.Errorf("descendants: %q, %v", text, err)
	}
}

func TestCreateTwice(t *testing.T) {
	h := scratch(t)
	g, err := h.Create(UserName(7), Options{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = h.Create(UserName(7), Options{})
	if want := `creating cgroup "` + h.Dir() + `/nix-build-uid-7": file exists`; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	// A name that is taken is passed over.
	foreign := filepath.Join(h.Dir(), fmt.Sprintf("nix-build-pid-%d-0", os.Getpid()))
	if err := os.Mkdir(foreign, 0o755); err != nil {
		t.Fatal(err)
	}
	next := create(t, h, Options{})
	if next.Path() == foreign {
		t.Error("a group was taken that is not ours")
	}
	for _, g := range []*Group{g, next} {
		if _, err := g.Destroy(); err != nil {
			t.Error(err)
		}
	}
}

// limited makes a group with limits, or says which controller is missing.
func limited(t *testing.T, l Limits, controller string) *Group {
	t.Helper()
	delegate(t, l, controller)
	h := scratch(t)
	g, err := h.CreateNext(Options{Limits: l})
	have, readErr := h.Controllers()
	if readErr != nil {
		t.Fatal(readErr)
	}
	for _, c := range have {
		if c == controller {
			if err != nil {
				t.Fatal(err)
			}
			return g
		}
	}
	want := `limit builds: the cgroup "` + h.Dir() + `" does not have the controller '` + controller + `'`
	if err == nil || err.Error() != want {
		t.Fatalf("got %v, want %s", err, want)
	}
	t.Skipf("needs the cgroup controller '%s' (that its absence is an error was tested)", controller)
	return nil
}

// delegate has scratch hierarchies get the controller, for as long as the test runs, where the machine lets it.
func delegate(t *testing.T, l Limits, controller string) {
	t.Helper()
	h, err := Find()
	if err != nil {
		return
	}
	if enabled, err := h.words("cgroup.subtree_control"); err != nil || slices.Contains(enabled, controller) || h.enable(l) != nil {
		return
	}
	t.Cleanup(func() {
		if err := os.WriteFile(h.Dir()+"/cgroup.subtree_control", []byte("-"+controller), 0); err != nil {
			t.Error(err)
		}
	})
}

func TestForkBombUnderLimit(t *testing.T) {
	g := limited(t, Limits{Processes: 20}, "pids")
	start(t, g, "bomb() { bomb | bomb & }; echo ready; bomb; bomb; sleep 1000")
	if n := len(members(t, g)); n > 20 {
		t.Errorf("%d processes, where 20 are allowed", n)
	}
	if _, err := g.Destroy(); err != nil {
		t.Error(err)
	}
}

func TestMemoryLimit(t *testing.T) {
	g := limited(t, Limits{Memory: 8 << 20}, "memory")
	cmd := start(t, g, "echo ready; x=0123456789; while :; do x=$x$x; done")
	if err := cmd.Wait(); err == nil {
		t.Error("a builder that wanted more memory was not killed")
	}
	if _, err := g.Destroy(); err != nil {
		t.Error(err)
	}
}

func TestSweep(t *testing.T) {
	h := scratch(t)
	held := create(t, h, Options{})
	defer held.Destroy()
	dead := exec.Command("/bin/true")
	if err := dead.Run(); err != nil {
		t.Fatal(err)
	}
	mk := func(name string) string {
		t.Helper()
		path := filepath.Join(h.Dir(), name)
		if err := os.Mkdir(path, 0o755); err != nil {
			t.Fatal(err)
		}
		return path
	}
	gone := []string{
		mk(fmt.Sprintf("nix-build-pid-%d-0", dead.Process.Pid)), mk(fmt.Sprintf("nix-build-pid-%d-77", os.Getpid())),
	}
	kept := []string{
		held.Path(), mk("nix-build-uid-1"), mk("nix-build-pid-1-0"), mk("nix-build-pid-x-0"),
		mk(fmt.Sprintf("nix-build-pid-%d", dead.Process.Pid)),
	}
	locked, err := openLocked(mk(fmt.Sprintf("nix-build-pid-%d-1", dead.Process.Pid)))
	if err != nil {
		t.Fatal(err)
	}
	defer locked.Destroy()
	if err := h.Sweep(); err != nil {
		t.Fatal(err)
	}
	for _, path := range append(kept, locked.Path()) {
		if !exists(path) {
			t.Errorf("%s was destroyed", path)
		}
	}
	for _, path := range gone {
		if exists(path) {
			t.Errorf("%s was left", path)
		}
	}
}

func TestEnter(t *testing.T) {
	if os.Getenv("CGROUP_TEST_ENTER") != "" {
		h, err := At(os.Getenv("CGROUP_TEST_ENTER"))
		if err == nil {
			err = errors.Join(h.Enter("leaf", os.Getpid()), h.Enter("leaf", os.Getpid()))
		}
		text, readErr := os.ReadFile("/proc/self/cgroup")
		fmt.Println(err, readErr, string(text))
		return
	}
	h := scratch(t)
	cmd := exec.Command(os.Args[0], "-test.run=^TestEnter$")
	cmd.Env = append(os.Environ(), "CGROUP_TEST_ENTER="+h.Dir())
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), "<nil> <nil>") || !strings.Contains(string(out), filepath.Base(h.Dir())+"/leaf\n") {
		t.Errorf("%v: %s", err, out)
	}
}

// A builder that inherits that nobody may kill it would hang at its limit.
func TestKillable(t *testing.T) {
	if given := os.Getenv("CGROUP_TEST_SCORE"); given != "" {
		before := os.WriteFile(scoreFile, []byte(given), 0)
		changed, err := Killable()
		text, _ := os.ReadFile(scoreFile)
		fmt.Print(before, " ", changed, " ", err, " ", string(text))
		os.Exit(0)
	}
	for given, want := range map[string]string{
		"-1000": "<nil> true <nil> -999\n", "-999": "<nil> false <nil> -999\n", "1000": "<nil> false <nil> 1000\n",
	} {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKillable$")
		cmd.Env = append(os.Environ(), "CGROUP_TEST_SCORE="+given)
		out, err := cmd.CombinedOutput()
		if strings.Contains(string(out), "permission denied") {
			t.Skip("needs the right to be exempt")
		}
		if err != nil || string(out) != want {
			t.Errorf("%s: %v: got %q, want %q", given, err, out, want)
		}
	}
}

func TestAtElsewhere(t *testing.T) {
	dir := t.TempDir()
	if _, err := At(dir); err == nil || err.Error() != `"`+dir+`" is not a cgroup` {
		t.Errorf("got %v", err)
	}
	if _, err := At(dir + "/none"); err == nil || err.Error() != `expected cgroup directory "`+dir+`/none"` {
		t.Errorf("got %v", err)
	}
}

func TestRecords(t *testing.T) {
	h := scratch(t)
	r := Records(filepath.Join(t.TempDir(), "cgroups"))
	path := filepath.Join(h.Dir(), UserName(7))
	if err := r.Begin(7, path); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(string(r) + "/7")
	if err != nil || string(text) != path {
		t.Fatalf("record %q, %v; want %q", text, err, path)
	}
	// A daemon that has died here left a group with a process.
	g, err := h.Create(UserName(7), Options{})
	if err != nil {
		t.Fatal(err)
	}
	start(t, g, "(sleep 1000 >/dev/null &) ; echo ready")
	g.Dir().Close()
	if err := r.Begin(7, path+"x"); err != nil {
		t.Fatal(err)
	}
	if exists(path) {
		t.Error("the leftover is still there")
	}
	if text, err := os.ReadFile(string(r) + "/7"); err != nil || string(text) != path+"x" {
		t.Errorf("record %q, %v", text, err)
	}
}

// A record never makes us kill what is not the user's group.
func TestRecordOfSomethingElse(t *testing.T) {
	h := scratch(t)
	g := create(t, h, Options{})
	defer g.Destroy()
	other, err := h.Create(UserName(70), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Destroy()
	plain := filepath.Join(t.TempDir(), UserName(7))
	if err := os.Mkdir(plain, 0o755); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), UserName(7))
	if err := os.Symlink(g.Path(), link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{g.Path(), other.Path(), plain, link, h.Dir(), UserName(7), "/"} {
		r := Records(t.TempDir())
		if err := os.WriteFile(string(r)+"/7", []byte(path), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := r.Begin(7, "/next"); err == nil {
			t.Errorf("record of %s was followed", path)
		}
		if text, err := os.ReadFile(string(r) + "/7"); err != nil || string(text) != path {
			t.Errorf("record of %s was replaced: %q, %v", path, text, err)
		}
	}
	if !exists(g.Path()) || !exists(other.Path()) {
		t.Error("a group was destroyed")
	}
	if err := (Records(t.TempDir())).Begin(7, "/next"); err != nil {
		t.Error(err)
	}
	linked := Records(t.TempDir())
	if err := os.Symlink(plain, string(linked)+"/7"); err != nil {
		t.Fatal(err)
	}
	if err := linked.Begin(7, "/next"); !errors.Is(err, unix.ELOOP) {
		t.Errorf("record is a link: got %v", err)
	}
}

func BenchmarkGroup(b *testing.B) {
	h := scratch(b)
	b.Run("empty", func(b *testing.B) {
		for b.Loop() {
			if _, err := create(b, h, Options{}).Destroy(); err != nil {
				b.Fatal(err)
			}
		}
	})
	run := func(b *testing.B, within bool) {
		for b.Loop() {
			attr := &syscall.SysProcAttr{}
			var g *Group
			if within {
				g = create(b, h, Options{})
				attr.UseCgroupFD, attr.CgroupFD = true, int(g.Dir().Fd())
			}
			pid, err := syscall.ForkExec("/bin/true", []string{"true"}, &syscall.ProcAttr{Sys: attr})
			if err != nil {
				b.Fatal(err)
			}
			if _, err := syscall.Wait4(pid, nil, 0, nil); err != nil {
				b.Fatal(err)
			}
			if within {
				if _, err := g.Destroy(); err != nil {
					b.Fatal(err)
				}
			}
		}
	}
	b.Run("process", func(b *testing.B) { run(b, true) })
	b.Run("process outside", func(b *testing.B) { run(b, false) })
}

func TestReadUsage(t *testing.T) {
	g := create(t, scratch(t), Options{})
	cmd := start(t, g, "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo ready; sleep 1000")
	defer cmd.Process.Kill()
	u, err := ReadUsage(g.Path())
	if err != nil || u.CPU < time.Millisecond {
		t.Errorf("got %+v, %v", u, err)
	}
	if _, err := g.Destroy(); err != nil {
		t.Fatal(err)
	}
	if u, err := ReadUsage(g.Path()); err == nil {
		t.Errorf("a group that has ended takes %+v", u)
	}
	if _, err := ReadUsage(t.TempDir()); err == nil {
		t.Error("any directory will do")
	}
}
