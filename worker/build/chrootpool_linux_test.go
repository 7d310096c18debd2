package build

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker/settings"
)

func TestDifference(t *testing.T) {
	a, b, c := inputPath(t, "0", "a"), inputPath(t, "1", "b"), inputPath(t, "2", "c")
	tests := []struct {
		name   string
		points []string
		inputs []storepath.Path
		want   int
	}{
		{"nothing", nil, nil, 0},
		{"all to make", nil, []storepath.Path{a, b}, 2},
		{"all to remove", []string{a.Base(), b.Base()}, nil, 2},
		{"equal", []string{a.Base(), b.Base()}, []storepath.Path{a, b}, 0},
		{"both", []string{a.Base(), b.Base()}, []storepath.Path{b, c}, 2},
		{"between", []string{b.Base()}, []storepath.Path{a, b, c}, 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := difference(tt.points, itself, tt.inputs); got != tt.want {
				t.Errorf("got %d, want %d", got, tt.want)
			}
		})
	}
}

// alone shows builders nothing of the host but a few programs, so that they can meet nobody.
func (w *world) alone() {
	w.Helper()
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		w.Skipf("needs a static shell: %v", err)
	}
	if busybox, err = filepath.EvalSymlinks(busybox); err != nil {
		w.Fatal(err)
	}
	w.isolate()
	w.set(func(s *settings.Settings) {
		s.SandboxPaths = nil
		for _, applet := range []string{"cat", "chattr", "chmod", "cp", "grep", "ln", "ls", "mkdir", "sh", "test"} {
			s.SandboxPaths = append(s.SandboxPaths, settings.SandboxPath{Target: "/bin/" + applet, Source: busybox})
		}
	})
}

// idleChroots are those that are kept: what a build had is given back before it has ended.
func (w *world) idleChroots() []string {
	w.Helper()
	dirs, err := filepath.Glob(w.root + "/store/tmp-*/*")
	if err != nil {
		w.Fatal(err)
	}
	return dirs
}

// TestReusedChroot builds after others: nothing of them shows.
func TestReusedChroot(t *testing.T) {
	inIsolation(t, func(t *testing.T, w *world) {
		w.alone()
		first, second, both := w.source("first", "1"), w.source("second", "2"), w.source("both", "3")
		w.mustBuild(w.drv("a", "echo secret > /tmp/secret; mkdir /tmp/d; echo x > /tmp/d/x; echo y > $NIX_STORE/junk; ln -s x $NIX_STORE/l; echo > $out",
			needs(first, both)))
		if idle := w.idleChroots(); len(idle) != 1 {
			t.Fatalf("idle %q, want one", idle)
		}
		// The store of the test is itself below /tmp.
		out := w.mustBuild(w.drv("b", "{ ls -A $NIX_STORE; cat "+w.print(both)+" "+w.print(second)+"; echo; ls -A /tmp | grep -v -x "+strings.Split(w.root, "/")[2]+"; } > log; cp log $out",
			needs(second, both)))
		want := []string{both.Base(), second.Base(), "32"}
		slices.Sort(want[:2])
		if diff := cmp.Diff(want, strings.Fields(w.read(out))); diff != "" {
			t.Errorf("what the second builder sees (-want +got)\n%s", diff)
		}
		if idle := w.idleChroots(); len(idle) != 1 {
			t.Errorf("idle %q, want one", idle)
		}
	})
}

// TestChangedChroot changes what its owner can change.
func TestChangedChroot(t *testing.T) {
	w := newWorld(t)
	w.alone()
	for _, change := range []string{"chmod 700 $NIX_STORE", "chattr +A $NIX_STORE || chmod 700 $NIX_STORE"} {
		w.mustBuild(w.drv("change", "echo > $out; "+change, env("change", change)))
		if idle := w.idleChroots(); len(idle) != 0 {
			t.Errorf("%s: %q is kept", change, idle)
		}
	}
	w.nothingLeft()
}

// TestTidyDirectories has the owner of what is used again set times, and leave things in /tmp: the next one is told nothing by
// them. A /tmp that is empty is used again, since to make another costs more.
func TestTidyDirectories(t *testing.T) {
	w := newWorld(t)
	pool := &chrootPool{store: w.store, most: 1, patience: time.Hour}
	c, err := pool.make(w.drv("x", ""), -1)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	stat := func(path string) (st unix.Stat_t) {
		t.Helper()
		if err := unix.Lstat(path, &st); err != nil {
			t.Fatal(err)
		}
		return st
	}
	old := []unix.Timespec{{Sec: 915148800}, {Sec: 915148800}}
	for name, tt := range map[string]struct {
		leave func() error
		again bool
	}{
		"nothing":        {func() error { return nil }, true},
		"file":           {func() error { return os.WriteFile(c.tmp+"/file", nil, 0o600) }, false},
		"directory":      {func() error { return os.MkdirAll(c.tmp+"/dir/sub", 0o700) }, false},
		"mode":           {func() error { return os.Chmod(c.tmp, 0o700) }, false},
		"files in store": {func() error { return os.WriteFile(c.inner+"/file", nil, 0o600) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			before := stat(c.tmp).Ino
			// Others must not take its number.
			hold, err := os.Open(c.tmp)
			if err != nil {
				t.Fatal(err)
			}
			defer hold.Close()
			if err := tt.leave(); err != nil {
				t.Fatal(err)
			}
			for _, dir := range []string{c.tmp, c.inner} {
				if err := unix.UtimesNanoAt(unix.AT_FDCWD, dir, old, 0); err != nil {
					t.Fatal(err)
				}
			}
			if err := c.tidy(nil); err != nil {
				t.Fatal(err)
			}
			if again := stat(c.tmp).Ino == before; again != tt.again {
				t.Errorf("used again: %t, want %t", again, tt.again)
			}
			for _, dir := range []string{c.tmp, c.inner} {
				if st := stat(dir); st.Mtim.Sec == old[0].Sec || st.Atim.Sec == old[0].Sec {
					t.Errorf("times of %s are left: %v, %v", dir, st.Mtim, st.Atim)
				}
				if names, err := readNames(dir, -1); len(names) != 0 || err != nil {
					t.Errorf("left in %s: %q, %v", dir, names, err)
				}
			}
			if mode := stat(c.tmp).Mode; mode != unix.S_IFDIR|tmpMode {
				t.Errorf("mode %o", mode)
			}
		})
	}
}

// TestLargeChroot has a builder make its directory so large that the next would be slowed down.
func TestLargeChroot(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	name := strings.Repeat("n", 240)
	var st unix.Stat_t
	for i := 0; ; i++ {
		if err := os.WriteFile(dir+"/"+name+strconv.Itoa(i), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if i%500 == 0 {
			if err := unix.Lstat(dir, &st); err != nil {
				t.Fatal(err)
			}
			if st.Size > largestDir {
				break
			}
			if i > 10000 {
				t.Skipf("directories of this file system do not grow: %d bytes", st.Size)
			}
			if err := asMade(dir, 0o755, 0); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := asMade(dir, 0o755, 0); err == nil {
		t.Errorf("%d bytes are as made", st.Size)
	}
}

// TestInputOfAnotherKind has an input that was a file for the last builder and is a directory now.
func TestInputOfAnotherKind(t *testing.T) {
	w := newWorld(t)
	w.alone()
	in := w.source("input", "text")
	w.mustBuild(w.drv("a", "cat "+w.print(in)+" > $out", needs(in)))
	real := w.store.RealPath(in)
	if err := os.Remove(real); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(real, 0o755); err != nil {
		t.Fatal(err)
	}
	if len(w.idleChroots()) != 1 {
		t.Fatal("nothing to be reused")
	}
	w.mustBuild(w.drv("b", "test -d "+w.print(in)+" && echo > $out", needs(in)))
	w.nothingLeft()
}

// TestMeetingPlace has builders that could pass a descriptor on: nobody else gets what was theirs.
func TestMeetingPlace(t *testing.T) {
	w := newWorld(t)
	w.alone()
	w.mustBuild(w.drv("alone", "echo > $out"))
	if idle := w.idleChroots(); len(idle) != 1 {
		t.Fatalf("idle %q, want one", idle)
	}
	w.mustBuild(w.drv("network", "echo > $out", fixed(storepath.MethodFlat, "\n")))
	if idle := w.idleChroots(); len(idle) != 0 {
		t.Errorf("kept after a builder with network: %q", idle)
	}
	shared := w.root + "/shared"
	if err := os.Mkdir(shared, 0o777); err != nil {
		t.Fatal(err)
	}
	w.set(func(s *settings.Settings) {
		s.SandboxPaths = append(s.SandboxPaths, settings.SandboxPath{Target: "/shared", Source: shared})
	})
	w.mustBuild(w.drv("directory", "echo > $out", func(d *derivation.Derivation) { d.Env["n"] = "1" }))
	if idle := w.idleChroots(); len(idle) != 0 {
		t.Errorf("kept after a builder with a shared directory: %q", idle)
	}
	w.nothingLeft()
}

// TestIdleChroot is deleted when nobody has come for it.
func TestIdleChroot(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.idleTime = time.Millisecond })
	w.alone()
	for _, name := range []string{"a", "b"} {
		w.mustBuild(w.drv(name, "echo > $out"))
		w.until(func() bool {
			places, err := filepath.Glob(w.root + "/store/tmp-*")
			return err == nil && len(places) == 0
		})
	}
}

// TestClosedPool keeps nothing.
func TestClosedPool(t *testing.T) {
	w := newWorld(t)
	w.alone()
	w.mustBuild(w.drv("a", "echo > $out"))
	if err := w.sched.ended(); err != nil {
		t.Fatal(err)
	}
	w.mustBuild(w.drv("b", "echo > $out"))
	if idle := w.idleChroots(); len(idle) != 0 {
		t.Errorf("idle %q", idle)
	}
	w.nothingLeft()
}
