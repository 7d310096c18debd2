package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"nixdaemon/protocol/derivation"
	"nixdaemon/sandbox/buildusers"
	"nixdaemon/sandbox/cgroup"
	"nixdaemon/worker/settings"
)

// TestHostileNeighbour has the builder of one user go at that of another, neither of them isolated.
func TestHostileNeighbour(t *testing.T) {
	w := newUserWorld(t, "one", "two")
	fifo := w.root + "/fifo"
	mkfifo(t, fifo)
	if err := os.Chmod(fifo, 0o666); err != nil {
		t.Fatal(err)
	}
	first := w.drv("first", "umask 0; echo secret > secret; mkdir -m 755 $out; echo good > $out/file; chmod 644 $out/file; echo ready; read x < "+fifo)
	finished := w.begin(first, derivation.BuildNormal)
	w.until(func() bool { return slices.Contains(w.log.lines(), "ready") })
	out, dir := w.store.RealPath(w.out(first, "out")), w.keptDirs()[0]
	attempts := []string{
		"cat " + dir + "/secret", "ls " + dir, "touch " + dir + "/x", "chmod 755 " + dir, "mv " + dir + " " + dir + "-gone", "rmdir " + dir,
		"echo bad > " + out + "/file", "touch " + out + "/x", "mv " + out + " " + out + "-gone", "rm -rf " + out, "chmod 777 " + out,
		"kill -9 $(cat /proc/[0-9]*/stat 2>/dev/null | grep -v \"^$$ \" | cut -d' ' -f1 | grep -v '^1$' | while read p; do stat -c '%u '$p /proc/$p 2>/dev/null; done | grep '^" + fmt.Sprint(firstTestUID) + " ' | cut -d' ' -f2)",
		"cat $(ls -d /proc/[0-9]*/environ | while read e; do test -O $e || echo $e; done)/../cwd/secret",
	}
	var script strings.Builder
	for _, a := range attempts {
		fmt.Fprintf(&script, "if (%s) >/dev/null 2>&1; then echo 'ESCAPED: '%q; fi; ", a, a)
	}
	w.mustBuild(w.drv("second", script.String()+"id -u > $out"))
	if second := w.readFile(w.store.RealPath(w.out(w.drv("second", script.String()+"id -u > $out"), "out"))); second != fmt.Sprintln(firstTestUID+1) {
		t.Fatalf("the second builder was %s", second)
	}
	pipe, err := os.OpenFile(fifo, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	if _, err := pipe.WriteString("\n"); err != nil {
		t.Fatal(err)
	}
	if res := <-finished; !res.Status.Success() || w.readFile(out+"/file") != "good\n" {
		t.Errorf("the first builder was disturbed: %+v", res)
	}
	for _, line := range w.log.lines() {
		if line != "ready" {
			t.Error(line)
		}
	}
}

// TestHostileRange is a builder with a range of ids, which owns its world: what that lets it do must stay in there.
func TestHostileRange(t *testing.T) {
	w := newUserWorldWith(t, in(hierarchy(t)), "one")
	w.hostile()
	w.set(func(s *settings.Settings) {
		s.SystemFeatures, s.AutoAllocateUIDs, s.StartID, s.IDCount = []string{"uid-range"}, true, firstAutoUID, buildusers.SlotSize
		s.ExperimentalFeatures |= settings.Features(settings.AutoAllocateUIDs) | settings.Features(settings.Cgroups)
	})
	input, other, victims := w.tree("input"), w.tree("other"), w.victims(t)
	dirs := []string{victims, w.store.RealPath(input), w.store.RealPath(other), "/dev/full"}
	before := w.state(dirs...)
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for _, role := range []string{"attack", "nested", "attack from a namespace"} {
		w.mustBuild(w.drv(strings.ReplaceAll(role, " ", "-"), hostileEnv+"='"+role+"' /hostile; echo > $out", needs(input), ranged, func(d *derivation.Derivation) {
			for key, value := range map[string]string{"VICTIM": victims + "/file", "INPUT": w.print(input), "OTHER": w.print(other), "STATE": w.root + "/var",
				"DAEMON": itoa(os.Getpid()), "DRV": w.root + "/store/x.drv", "HANDLE": handleOf(victims + "/file"), "SHM": sharedMemory(t), "ABSTRACT": "none", "OWNER": "1"} {
				d.Env[key] = value
			}
		}))
	}
	// Of its own world, which it has for itself alone.
	own := []string{"have a sysfs", "mount", "chroot", "name the machine", "raise a limit", "become root", "drop groups", "write to the kernel through /proc", "uncover what is below /proc"}
	for _, line := range w.log.lines() {
		what, escaped := strings.CutPrefix(line, "ESCAPED: ")
		if files, ok := strings.CutPrefix(what, "can write "); ok {
			w.onlyOfNamespaces(files)
		} else if escaped && !slices.Contains(own, what) {
			t.Error(line)
		}
	}
	if n := len(w.log.lines()); n < 150 {
		t.Errorf("only %d attempts", n)
	}
	if now := w.state(dirs...); fmt.Sprint(now) != fmt.Sprint(before) {
		t.Errorf("the host is changed: %v, was %v", now, before)
	}
	if now, err := os.Hostname(); now != host {
		t.Errorf("the host's name is %q, was %q; %v", now, host, err)
	}
	w.nothingLeft()
}

// onlyOfNamespaces checks that a list of files in /proc has those alone that exist once for each namespace.
func (w *world) onlyOfNamespaces(list string) {
	w.Helper()
	for name := range strings.FieldsSeq(strings.Trim(list, "[]")) {
		name = strings.Trim(name, "\"")
		ok := false
		for _, prefix := range []string{"net/", "user/max_", "fs/mqueue/", "kernel/msg", "kernel/shm", "kernel/sem", "kernel/auto_msgmni"} {
			ok = ok || strings.HasPrefix(name, "/proc/sys/"+prefix)
		}
		if !ok {
			w.Errorf("a builder can write %s", name)
		}
	}
}

// TestRangeLeavesNoLimits has a builder with a range of ids limit its user namespace: the next one has another.
func TestRangeLeavesNoLimits(t *testing.T) {
	w := newUserWorldWith(t, in(hierarchy(t)), "one")
	w.isolate()
	w.set(func(s *settings.Settings) {
		s.SystemFeatures, s.AutoAllocateUIDs, s.StartID, s.IDCount = []string{"uid-range"}, true, firstAutoUID, buildusers.SlotSize
		s.ExperimentalFeatures |= settings.Features(settings.AutoAllocateUIDs) | settings.Features(settings.Cgroups)
	})
	w.mustBuild(w.drv("limit", "for f in /proc/sys/user/max_*_namespaces; do echo 0 > $f; done; cat /proc/sys/user/max_mnt_namespaces > $out", ranged))
	w.mustBuild(w.drv("next", "test $(cat /proc/sys/user/max_mnt_namespaces) != 0 && echo > $out", ranged))
}

// TestHostileAttributes leaves extended attributes and an access control list on its outputs where no filter stops it.
func TestHostileAttributes(t *testing.T) {
	inIsolation(t, func(t *testing.T, w *world) {
		w.hostile()
		w.set(func(s *settings.Settings) { s.FilterSyscalls = false })
		out := w.mustBuild(w.drv("attributes", "mkdir $out; echo > $out/file; "+hostileEnv+"=attributes /hostile $out $out/file"))
		if !slices.Contains(w.log.lines(), "set") {
			t.Skipf("needs a file system with extended attributes: %q", w.log.lines())
		}
		for _, name := range []string{w.store.RealPath(out), w.store.RealPath(out) + "/file"} {
			list := make([]byte, 1000)
			if n, err := unix.Llistxattr(name, list); err != nil || n != 0 {
				t.Errorf("%s has attributes: %q, %v", name, list[:max(n, 0)], err)
			}
		}
	})
}

// TestHostileKeyrings: without the filter, too, no builder reaches the daemon's keyrings, or leaves keys to the next.
func TestHostileKeyrings(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	test := func(t *testing.T, w *world, program string) {
		t.Helper()
		w.set(func(s *settings.Settings) { s.FilterSyscalls = false })
		w.mustBuild(w.drv("keyrings", hostileEnv+"=keyrings "+program+"; echo > $out"))
		tried := 0
		for _, line := range w.log.lines() {
			if strings.HasPrefix(line, "ESCAPED") {
				t.Error(line)
			} else if strings.HasPrefix(line, "tried: ") && strings.HasSuffix(line, unix.ENOSYS.Error()) {
				tried++
			}
		}
		if tried != 6 {
			t.Errorf("%d attempts failed as they should: %q", tried, w.log.lines())
		}
	}
	inIsolation(t, func(t *testing.T, w *world) {
		w.hostile()
		test(t, w, "/hostile")
	})
	t.Run("not isolated", func(t *testing.T) { test(t, newWorld(t), exe) })
}

// TestHostileLog writes one endless line and all bytes that there are.
func TestHostileLog(t *testing.T) {
	inIsolation(t, func(t *testing.T, w *world) {
		w.hostile()
		const size = 1 << 20
		w.mustBuild(w.drv("line", fmt.Sprintf("head -c %d /dev/zero | tr '\\0' x; head -c 100000 /dev/urandom; echo > $out", size)))
		total := 0
		for _, line := range w.log.lines() {
			if total += len(line); len(line) > 64<<10 {
				t.Errorf("a line of %d bytes", len(line))
			}
		}
		if total > size+1<<20 {
			t.Errorf("%d bytes of log", total)
		}
		w.set(func(s *settings.Settings) { s.MaxBuildLogSize = 100_000 })
		w.mustFail(w.drv("flood", "trap '' TERM HUP; (while :; do echo flood; done) & while :; do echo flood; done"), derivation.StatusLogLimitExceeded)
	})
}

// TestHostileForks starts many processes that want to stay.
func TestHostileForks(t *testing.T) {
	marker := fmt.Sprintf("8642.%d", os.Getpid())
	script := "trap '' TERM HUP INT; i=0; while [ $i -lt 150 ]; do (trap '' TERM HUP; setsid sleep " + marker + " >/dev/null 2>&1 &) ; i=$((i+1)); done; echo > $out"
	none := func(t *testing.T) {
		t.Helper()
		all, err := filepath.Glob("/proc/[0-9]*/cmdline")
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range all {
			if text, err := os.ReadFile(name); err == nil && strings.Contains(string(text), marker) {
				t.Errorf("left: %s", name)
			}
		}
	}
	inIsolation(t, func(t *testing.T, w *world) {
		w.hostile()
		w.mustBuild(w.drv("forks", script))
		none(t)
	})
	t.Run("limited", func(t *testing.T) {
		w := newWorld(t, in(limitable(t, cgroup.Limits{Processes: 30}, "pids")))
		w.hostile()
		w.set(func(s *settings.Settings) { s.MaxBuildProcesses, s.Timeout = 30, 5 })
		res := w.build(w.drv("bomb", "bomb() { bomb | bomb & }; bomb; bomb; sleep 1000"))
		if res.Status.Success() {
			t.Errorf("result %+v", res)
		}
	})
}

// rootAccounts has root among the build users.
type rootAccounts struct{ testUsers }

func (u rootAccounts) User(context.Context, string) (buildusers.User, error) {
	return buildusers.User{Name: "one", GID: testGID}, nil
}

// TestBuilderIsNeverRoot has somebody make root a build user (GHSA-qc7j-jgf3-qmhg, CVE-2025-53819).
func TestBuilderIsNeverRoot(t *testing.T) {
	locks := t.TempDir()
	w := newUserWorldWith(t, func(o *Options) {
		o.Users = buildusers.New(buildusers.Options{StateDir: locks, Accounts: rootAccounts{testUsers{[]string{"one"}}}})
	}, "one")
	mark := w.root + "/ran"
	got := w.buildError(w.drv("root", "id -u > "+mark+"; echo > $out"))
	if !strings.Contains(got, "the Nix user should not be a member of 'builders'") {
		t.Errorf("got %q", got)
	}
	if _, err := os.Stat(mark); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the builder ran: %v", err)
	}
}

// TestWriteFile prepares what files for the builder could be written through (CVE-2025-52991 and kin,
// GHSA-g948-229j-48j3): nothing is followed and nothing overwritten.
func TestWriteFile(t *testing.T) {
	dir := t.TempDir()
	build := dir + "/build"
	if err := errors.Join(os.Mkdir(build, 0o700), os.WriteFile(dir+"/victim", []byte("precious"), 0o600), os.WriteFile(build+"/there", []byte("old"), 0o600),
		os.Symlink("../victim", build+"/link"), os.Symlink("../made", build+"/dangling"), os.Link(dir+"/victim", build+"/hard")); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(build, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	a := &attempt{tmp: &buildDir{top: build, path: build, fd: fd}}
	for _, name := range []string{"", ".", "..", "../victim", "sub/file", "/etc/x", "link", "dangling", "hard", "there"} {
		if err := a.writeFile(name, "evil", 0o600); err == nil {
			t.Errorf("%q was written", name)
		}
	}
	if err := a.writeFile("new", "text", 0o600); err != nil {
		t.Error(err)
	}
	for name, want := range map[string]string{dir + "/victim": "precious", build + "/there": "old", build + "/new": "text"} {
		if text, err := os.ReadFile(name); err != nil || string(text) != want {
			t.Errorf("%s: %q, %v; want %q", name, text, err, want)
		}
	}
	if _, err := os.Lstat(dir + "/made"); err == nil {
		t.Error("a link was followed")
	}
}
