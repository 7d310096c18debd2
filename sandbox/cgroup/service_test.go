//go:build linux

package cgroup

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"
)

func TestServiceDir(t *testing.T) {
	for dir, want := range map[string]string{
		"/sys/fs/cgroup/system.slice/nix-daemon.service":            "/sys/fs/cgroup/system.slice/nix-daemon.service",
		"/sys/fs/cgroup/system.slice/nix-daemon.service/nix-daemon": "/sys/fs/cgroup/system.slice/nix-daemon.service",
		"/sys/fs/cgroup/system.slice/nix-daemon.service/.control":   "/sys/fs/cgroup/system.slice/nix-daemon.service",
		"/sys/fs/cgroup/system.slice/nix-daemon.service/other":      "",
		"/sys/fs/cgroup/user.slice/user-0.slice/session-1.scope":    "",
		"/sys/fs/cgroup/nix-daemon":                                 "",
		"/sys/fs/cgroup":                                            "",
	} {
		if got := serviceDir(dir, "nix-daemon"); got != want {
			t.Errorf("%s: got '%s', want '%s'", dir, got, want)
		}
		if h := (&Hierarchy{dir: dir}); h.IsService() != (dir == want) {
			t.Errorf("%s: is a service: %v", dir, h.IsService())
		}
	}
}

// within starts a process in the cgroup itself.
func within(t *testing.T, h *Hierarchy) (*exec.Cmd, error) {
	t.Helper()
	dir, err := os.Open(h.Dir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	cmd := exec.Command("sleep", "1000")
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return cmd, nil
}

func TestAdoptEmptiesCgroup(t *testing.T) {
	h := scratch(t)
	cmd, err := within(t, h)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // as each daemon does
		if err := h.Adopt(Limits{}, "leaf"); err != nil {
			t.Fatal(err)
		}
	}
	if left, err := h.words("cgroup.procs"); err != nil || len(left) != 0 {
		t.Errorf("processes %v, %v", left, err)
	}
	leaf := &Hierarchy{dir: filepath.Join(h.Dir(), "leaf")}
	if got, err := leaf.words("cgroup.procs"); err != nil || !slices.Equal(got, []string{strconv.Itoa(cmd.Process.Pid)}) {
		t.Errorf("processes of the leaf: %v, %v", got, err)
	}
	if err := h.Release(); err != nil {
		t.Error(err)
	}
	if _, err := create(t, h, Options{}).Destroy(); err != nil {
		t.Error(err)
	}
}

// wantLimits expects a group to have these.
func wantLimits(t *testing.T, g *Group, memory, processes string) {
	t.Helper()
	for file, want := range map[string]string{"memory.max": memory, "memory.oom.group": "1\n", "pids.max": processes} {
		if got, err := readAt(g.Dir(), file); got != want {
			t.Errorf("%s is %q, %v; want %q", file, got, err, want)
		}
	}
}

// The daemon that follows gives limits back to builds which had to lose them for it to start.
func TestLimitsOverRestart(t *testing.T) {
	l := Limits{Memory: 8 << 20, Processes: 20}
	g := limited(t, l, "memory")
	start(t, g, "echo ready; sleep 1000")
	h, err := At(filepath.Dir(g.Path()))
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Adopt(l, "leaf"); err != nil {
		t.Fatal(err)
	}
	other := create(t, h, Options{Limits: Limits{Memory: 16 << 20, Processes: 30}})
	if _, err := within(t, h); err == nil {
		t.Fatal("the kernel lets a process into a cgroup that gives controllers")
	}
	if err := h.Release(); err != nil {
		t.Fatal(err)
	}
	if exists(g.Path() + "/memory.max") {
		t.Error("the group has the controller still")
	}
	// The daemon that drains does not take them again, whatever it builds.
	meanwhile := create(t, h, Options{Limits: l, Owner: &Owner{UID: 12345, GID: 12345}})
	if _, err := within(t, h); err != nil {
		t.Fatalf("no daemon could be started: %v", err)
	}
	next, err := At(h.Dir())
	if err != nil {
		t.Fatal(err)
	}
	if err := next.Adopt(l, "leaf"); err != nil {
		t.Fatal(err)
	}
	for _, g := range []*Group{g, other, meanwhile} {
		wantLimits(t, g, "8388608\n", "20\n")
	}
	// What has limits keeps them, and the one that drains limits what it begins.
	if err := next.Adopt(Limits{Memory: 32 << 20, Processes: 40}, "leaf"); err != nil {
		t.Fatal(err)
	}
	wantLimits(t, g, "8388608\n", "20\n")
	late := create(t, h, Options{Limits: Limits{Memory: 16 << 20, Processes: 30}})
	wantLimits(t, late, "16777216\n", "30\n")
	for _, g := range []*Group{g, other, meanwhile, late} {
		if _, err := g.Destroy(); err != nil {
			t.Error(err)
		}
	}
}

func TestAdoptNeedsController(t *testing.T) {
	h := scratch(t)
	have, err := h.Controllers()
	if err != nil {
		t.Fatal(err)
	}
	if slices.Contains(have, "memory") {
		t.Skip("needs a cgroup without controllers")
	}
	want := `limit builds: the cgroup "` + h.Dir() + `" does not have the controller 'memory'`
	if err := h.Adopt(Limits{Memory: 1 << 20}, "leaf"); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	// Then builds say so.
	if _, err := h.CreateNext(Options{Limits: Limits{Memory: 1 << 20}}); err == nil || err.Error() != want {
		t.Errorf("a build: got %v, want %s", err, want)
	}
}
