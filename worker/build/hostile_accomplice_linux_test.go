package build

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker/settings"
)

// accomplice is somebody outside to whom a builder passes descriptors.
type accomplice struct {
	t      *testing.T
	socket string
	l      *net.UnixListener
}

// meet shows builders a directory with the accomplice's socket.
func (w *world) meet(t *testing.T) *accomplice {
	t.Helper()
	dir := w.root + "/meet"
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	a := &accomplice{t: t, socket: "/meet/socket"}
	var err error
	if a.l, err = net.ListenUnix("unix", &net.UnixAddr{Name: dir + "/socket", Net: "unix"}); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir+"/socket", 0o666); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.l.Close() })
	w.set(func(s *settings.Settings) {
		s.SandboxPaths = append(s.SandboxPaths, settings.SandboxPath{Target: "/meet", Source: dir})
	})
	return a
}

// take accepts the descriptors of one builder. Its builder goes on once done is called.
func (a *accomplice) take() (fds []int, done func(), err error) {
	c, err := a.l.AcceptUnix()
	if err != nil {
		return nil, nil, err
	}
	oob := make([]byte, 256)
	_, n, _, _, err := c.ReadMsgUnix(make([]byte, 16), oob)
	if err != nil {
		return nil, nil, err
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(messages) != 1 {
		return nil, nil, fmt.Errorf("%d messages, %w", len(messages), err)
	}
	fds, err = unix.ParseUnixRights(&messages[0])
	a.t.Cleanup(func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	})
	return fds, func() { c.Close() }, err
}

// passing is a script that passes on descriptors of files.
func passing(names string) string {
	return hostileEnv + "=pass SOCKET=/meet/socket /hostile " + names + " || exit 9; "
}

// TestHostileDescriptor passes the descriptor of its output out, where it is written to after the registration
// (CVE-2024-27297, GHSA-2ffj-w4mj-pg37).
func TestHostileDescriptor(t *testing.T) {
	inIsolation(t, func(t *testing.T, w *world) {
		w.hostile()
		friend := w.meet(t)
		drv := w.drv("fd", "echo content > $out; "+passing("$out"), fixed(storepath.MethodFlat, "content\n"))
		took := make(chan []int, 1)
		go func() {
			defer close(took)
			if fds, done, err := friend.take(); err == nil {
				took <- fds
				done()
			}
		}()
		out := w.mustBuild(drv)
		fds := <-took
		if len(fds) != 1 {
			t.Fatalf("descriptors %v", fds)
		}
		if _, err := unix.Pwrite(fds[0], []byte("changed\n"), 0); err != nil {
			t.Fatalf("write through the descriptor: %v", err)
		}
		if got := w.read(out); got != "content\n" {
			t.Errorf("the output was changed after its registration: %q", got)
		}
	})
}

// TestHostileAccomplice has somebody outside exchange the output again and again while it is registered, for a link to
// a file of the host, a directory that leads there, and other contents (CVE-2026-39860, GHSA-g3g9-5vj6-r3gj). Nothing is
// followed, and what is registered is what was hashed.
func TestHostileAccomplice(t *testing.T) {
	if !aside(t) {
		return
	}
	inIsolation(t, func(t *testing.T, w *world) {
		w.hostile()
		friend := w.meet(t)
		victims := w.victims(t)
		before := w.state(victims)
		for i := range rounds(16) {
			name := fmt.Sprintf("swap%d", i)
			script := "mkdir -p $out/d; for i in 1 2 3 4 5 6 7 8 9; do echo content > $out/file$i; done; " + passing("$NIX_STORE $out")
			drv := w.drv(name, script, fixed(storepath.MethodNAR, name))
			stop := make(chan struct{})
			var swapping sync.WaitGroup
			swapping.Go(func() { friend.swap(victims, i%2 == 1, stop) })
			// What the daemon looks at may be gone the next moment: then it is the build that has failed, whose builder has let
			// them in, not the request.
			results, err := w.sched.BuildPathsWithResults(w.ctx, w.sess, []derivation.DerivedPath{built(drv)}, derivation.BuildNormal)
			if err != nil {
				t.Error(err)
			} else if res := results[0]; !res.Status.Success() {
				t.Logf("status %d: %s", res.Status, res.ErrorMsg)
			}
			close(stop)
			swapping.Wait()
			w.nothingDisturbed()
			if now := w.state(victims); fmt.Sprint(now) != fmt.Sprint(before) {
				t.Fatalf("the host is changed: %v, was %v", now, before)
			}
			w.noLeak(t)
		}
	})
}

// nothingDisturbed looks for what could not be deleted while somebody kept changing it.
func (w *world) nothingDisturbed() {
	w.Helper()
	chroots, err := filepath.Glob(w.root + "/store/*.chroot")
	if err != nil {
		w.Fatal(err)
	}
	if left := append(w.keptDirs(), chroots...); len(left) != 0 {
		w.Errorf("left behind: %q", left)
	}
}

// victims is a directory of the host that nobody else shall read or change.
func (w *world) victims(t *testing.T) string {
	t.Helper()
	dir := w.root + "/victims"
	if err := os.MkdirAll(dir+"/d/sub", 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"/file", "/d/file", "/d/sub/file"} {
		if err := os.WriteFile(dir+name, []byte("precious secret"), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// swap exchanges names in the store that the builder sees until it is told to stop. It may be too late each time. If it
// is patient it begins when the daemon has looked at the metadata, and is about to read.
func (a *accomplice) swap(victims string, patient bool, stop <-chan struct{}) {
	fds, done, err := a.take()
	if err != nil || len(fds) != 2 {
		a.t.Errorf("descriptors %v, %v", fds, err)
		return
	}
	out := fds[1]
	link := func(dir int, target, name string) { unix.Symlinkat(target, dir, name) }
	link(fds[0], victims, "link")
	link(out, victims+"/d", "l")
	link(out, victims+"/d/file", "f")
	link(fds[0], victims+"/d/file", "stray")
	var names []string
	if dir, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", fds[0])); err == nil {
		names, _ = dir.Readdirnames(-1)
		dir.Close()
	}
	done()
	for n := 0; ; n++ {
		select {
		case <-stop:
			return
		default:
		}
		if patient && !canonicalised(out, "file9") {
			continue
		}
		unix.Renameat2(fds[0], "stray", out, "file5", unix.RENAME_EXCHANGE)
		if patient {
			continue
		}
		unix.Renameat2(out, "d", out, "l", unix.RENAME_EXCHANGE)
		if n%3 == 0 {
			unix.Renameat2(out, "f", out, "d", unix.RENAME_EXCHANGE)
		}
		for _, name := range names {
			if strings.Contains(name, "-swap") {
				unix.Renameat2(fds[0], "link", fds[0], name, unix.RENAME_EXCHANGE)
			}
		}
	}
}

// canonicalised tells whether the file has the time that all files in a store have, or is one that is exchanged.
func canonicalised(dir int, name string) bool {
	var st unix.Stat_t
	return unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && (st.Mtim.Sec == 1 || st.Mode&unix.S_IFMT == unix.S_IFLNK)
}

// noLeak looks for the secret of the host in the store.
func (w *world) noLeak(t *testing.T) {
	t.Helper()
	entries, err := os.ReadDir(w.root + "/store")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		for _, sub := range []string{"", "/file", "/d/file", "/l/file", "/f", "/d", "/file1", "/file2", "/file3", "/file4", "/file5", "/file6", "/file7", "/file8", "/file9", "/sub/file", "/d/sub/file"} {
			name := w.root + "/store/" + e.Name() + sub
			// What is reached through a link is not in the store.
			if resolved, err := unlinked(name); err != nil || resolved != name {
				continue
			}
			if text, err := os.ReadFile(name); err == nil && bytes.Contains(text, []byte("precious secret")) {
				t.Errorf("the host's secret is in %s", name)
			}
		}
	}
}

// TestHostileBuildDir has somebody outside exchange directories for links while the build directory is deleted
// (CVE-2025-46415, CVE-2025-52991 to 52993, GHSA-g948-229j-48j3): what those lead to stays.
func TestHostileBuildDir(t *testing.T) {
	if !aside(t) {
		return
	}
	inIsolation(t, func(t *testing.T, w *world) {
		w.hostile()
		friend := w.meet(t)
		victims := w.victims(t)
		before := w.state(victims)
		for i := range rounds(12) {
			script := "mkdir d e; for i in 1 2 3 4 5 6 7 8 9; do mkdir -p d/sub$i e/$i/$i; echo > d/sub$i/file; done; " + passing("/tmp .") + "echo > $out"
			drv := w.drv(fmt.Sprintf("dir%d", i), script)
			stop := make(chan struct{})
			var swapping sync.WaitGroup
			swapping.Go(func() { friend.swapDirs(victims, stop) })
			if res := w.build(drv); !res.Status.Success() {
				t.Errorf("build: %s", res.ErrorMsg)
			}
			close(stop)
			swapping.Wait()
			w.nothingDisturbed()
			if now := w.state(victims); fmt.Sprint(now) != fmt.Sprint(before) {
				t.Fatalf("the host is changed: %v, was %v", now, before)
			}
		}
	})
}

func (a *accomplice) swapDirs(victims string, stop <-chan struct{}) {
	fds, done, err := a.take()
	if err != nil || len(fds) != 2 {
		a.t.Errorf("descriptors %v, %v", fds, err)
		return
	}
	dir := fds[1]
	unix.Symlinkat(victims, dir, "l")
	unix.Symlinkat(victims+"/d", dir, "e/l")
	done()
	for {
		select {
		case <-stop:
			return
		default:
		}
		unix.Renameat2(dir, "d", dir, "l", unix.RENAME_EXCHANGE)
		for _, n := range "123456789" {
			unix.Renameat2(dir, "e/l", dir, "e/"+string(n), unix.RENAME_EXCHANGE)
		}
	}
}

// TestHostileUnreachable has a builder open its directory to all the world: nobody gets there (CVE-2024-38531,
// GHSA-q82p-44mg-mgh5). What is not isolated is a matter between its user and the world.
func TestHostileUnreachable(t *testing.T) {
	inIsolation(t, func(t *testing.T, w *world) {
		w.hostile()
		friend := w.meet(t)
		drv := w.drv("open", "chmod 777 . /tmp; echo secret > file; chmod 777 file; "+passing(". file")+"echo > $out")
		finished := w.begin(drv, derivation.BuildNormal)
		fds, done, err := friend.take()
		if err != nil || len(fds) != 2 {
			t.Fatalf("descriptors %v, %v", fds, err)
		}
		for _, dir := range append(w.keptDirs(), w.store.RealPath(drv)+".chroot") {
			st, err := os.Lstat(dir)
			if err != nil || st.Mode() != os.ModeDir|0o700 || uidOf(st) != os.Geteuid() {
				t.Errorf("above the builder's directory: %v, %v", st, err)
			}
		}
		done()
		if res := <-finished; !res.Status.Success() {
			t.Errorf("build: %s", res.ErrorMsg)
		}
	})
}

func uidOf(info os.FileInfo) int { return int(info.Sys().(*syscall.Stat_t).Uid) }

// unlinked is the path without any links.
func unlinked(name string) (string, error) { return filepath.EvalSymlinks(name) }

// TestRemoveWhileMaking deletes a tree whose owner goes on making things in it.
func TestRemoveWhileMaking(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to be somebody else")
	}
	w := newWorld(t)
	for _, script := range []string{
		"while :; do mkdir -p d/e/f; : > d/e/$i; i=$((i+1)); done",
		"mkdir a b c; while :; do mkdir -p a/x b/y; mv a c/ ; mv c/a .; ln -s / a/l$i; i=$((i+1)); done",
	} {
		dir := w.root + "/store/made"
		if err := errors.Join(os.Mkdir(dir, 0o777), os.Chmod(filepath.Dir(w.root), 0o755), os.Chmod(w.root, 0o755), os.Chown(dir, int(firstTestUID), int(testGID))); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("/bin/sh", "-c", "echo; exec >/dev/null 2>&1; "+script)
		cmd.Dir = dir
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: &syscall.Credential{Uid: firstTestUID, Gid: testGID}}
		begun, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := begun.Read(make([]byte, 1)); err != nil {
			t.Error(err)
		}
		w.until(func() bool {
			entries, _ := os.ReadDir(dir)
			return len(entries) > 0
		})
		if err := removeTree(w.store, dir); err != nil {
			t.Errorf("%s: %v", script, err)
		}
		if _, err := os.Lstat(dir); !os.IsNotExist(err) {
			t.Errorf("%s: still there: %v", script, err)
		}
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		cmd.Wait()
	}
}

// TestRemoveGivesUp: an error that does not come from others is told at once.
func TestRemoveGivesUp(t *testing.T) {
	if isDisturbed(fmt.Errorf("delete: %w", unix.EROFS)) || isDisturbed(nil) || !isDisturbed(fmt.Errorf("delete: %w", unix.ENOTEMPTY)) {
		t.Error("errors are told apart wrongly")
	}
	w := newWorld(t)
	if err := removeTree(w.store, w.root+"/store/nothing"); err != nil {
		t.Errorf("nothing to delete: %v", err)
	}
}
