package build

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/derivation"
	"nixdaemon/sandbox/buildusers"
	"nixdaemon/worker/settings"
)

// testUsers are accounts that need not exist on the machine.
type testUsers struct{ names []string }

// firstTestUID begins the ids of this test process. Builds end all processes of their user, so that test processes that
// run at once must not share one; and no real account is near.
var firstTestUID = 1_700_000_000 + uint32(os.Getpid()%100_000)*1000

// firstAutoUID begins those that are allocated in slots, for the same reason.
var firstAutoUID = 0x34000000 + uint32(os.Getpid()%5_000)*2*buildusers.SlotSize

// testGID is the group of all of them.
var testGID = firstTestUID + 999

func (u testUsers) Group(context.Context, string) (buildusers.Group, error) {
	return buildusers.Group{Name: "builders", GID: testGID, Members: u.names}, nil
}

func (u testUsers) User(_ context.Context, name string) (buildusers.User, error) {
	for i, n := range u.names {
		if n == name {
			return buildusers.User{Name: n, UID: firstTestUID + uint32(i), GID: testGID}, nil
		}
	}
	return buildusers.User{}, buildusers.ErrNotFound
}

func (u testUsers) UserByID(ctx context.Context, uid uint32) (buildusers.User, error) {
	if uid >= firstTestUID && int(uid-firstTestUID) < len(u.names) {
		return u.User(ctx, u.names[uid-firstTestUID])
	}
	return buildusers.User{}, buildusers.ErrNotFound
}

func (u testUsers) GroupsOf(context.Context, buildusers.User) ([]uint32, error) {
	return []uint32{testGID}, nil
}

// newUserWorld builds as other users, which takes root.
func newUserWorld(t *testing.T, names ...string) *world {
	return newUserWorldWith(t, func(*Options) {}, names...)
}

func newUserWorldWith(t *testing.T, change func(*Options), names ...string) *world {
	if os.Geteuid() != 0 {
		t.Skip("needs root to build as other users")
	}
	// Beneath the temporary directory everything is beneath something world-writable.
	buildDir, err := os.MkdirTemp("/run", "build-test")
	if err != nil {
		t.Skipf("needs a directory that is not world-writable: %v", err)
	}
	t.Cleanup(func() { os.RemoveAll(buildDir) })
	if err := checkNotWorldWritable(buildDir); err != nil {
		t.Skipf("needs a directory that is not world-writable: %v", err)
	}
	if err := os.Chmod(buildDir, 0o755); err != nil {
		t.Fatal(err)
	}
	lockDir := t.TempDir()
	w := newWorld(t, func(o *Options) {
		o.Users = buildusers.New(buildusers.Options{StateDir: lockDir, Accounts: testUsers{names}})
	}, change)
	w.set(func(s *settings.Settings) { s.BuildUsersGroup, s.BuildDir, s.Timeout = "builders", buildDir, 20 })
	for _, dir := range []string{filepath.Dir(w.root), w.root, w.root + "/store"} {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(w.root+"/store", 0, int(testGID)); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(w.root+"/store", 0o775|os.ModeSticky); err != nil {
		t.Fatal(err)
	}
	return w
}

func TestBuildUser(t *testing.T) {
	w := newUserWorld(t, "one")
	out := w.mustBuild(w.drv("whoami", "mkdir $out; id -u > $out/id; id -G >> $out/id; stat -c '%u %a' . >> $out/id; ls -ldn .. >/dev/null"))
	if got, want := w.read(out, "id"), fmt.Sprintf("%[1]d\n%[2]d\n%[1]d 700\n", firstTestUID, testGID); got != want {
		t.Errorf("builder's identity %q, want %q", got, want)
	}
	st, err := os.Stat(w.store.RealPath(out) + "/id")
	if err != nil || st.Sys().(*syscall.Stat_t).Uid != 0 {
		t.Errorf("the output is owned by %v, %v", st, err)
	}
	// The user is free again.
	w.mustBuild(w.drv("again", "echo > $out"))
}

func TestBuildUserFilesAreTheirs(t *testing.T) {
	w := newUserWorld(t, "one")
	out := w.mustBuild(w.drv("files", "cat $fooPath > $out", func(d *derivation.Derivation) {
		d.Env["foo"], d.Env["passAsFile"] = "contents", "foo"
	}))
	if got := w.read(out); got != "contents" {
		t.Errorf("file %q", got)
	}
}

// TestForeignFileInOutput links somebody else's file into the output: it must neither get in nor change owner.
func TestForeignFileInOutput(t *testing.T) {
	w := newUserWorld(t, "one")
	victim := w.root + "/victim"
	if err := os.WriteFile(victim, []byte("precious"), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(victim, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(w.root, 0o777); err != nil {
		t.Fatal(err)
	}
	drv := w.drv("steal", "mkdir $out; ln "+victim+" $out/f || { echo refused > $out/f; }")
	res, err := w.sched.BuildPathsWithResults(w.ctx, w.sess, []derivation.DerivedPath{built(drv)}, derivation.BuildNormal)
	if err == nil && res[0].Status.Success() && w.read(w.out(drv, "out"), "f") != "refused\n" {
		t.Errorf("the foreign file is in the store: %+v", res)
	}
	if st, err := os.Stat(victim); err != nil || st.Mode().Perm() != 0o666 || st.Size() != 8 {
		t.Errorf("the foreign file was changed: %v, %v", st.Mode(), err)
	}
}

func TestOutputOfAnotherUser(t *testing.T) {
	w := newUserWorld(t, "one")
	if err := os.Symlink("/etc", w.root+"/link"); err != nil {
		t.Fatal(err)
	}
	// A link owned by root, moved into place by a helper of root, stands for any output that is not the builder's.
	drv := w.drv("foreign", "while ! test -L $out; do :; done")
	out := w.store.RealPath(w.out(drv, "out"))
	done := w.begin(drv, derivation.BuildNormal)
	w.until(func() bool { return len(w.log.activities(activity.Build)) == 1 })
	if err := os.Symlink("/etc", out); err != nil {
		t.Fatal(err)
	}
	res := <-done
	if res.Status != derivation.StatusOutputRejected || !strings.HasPrefix(res.ErrorMsg, "suspicious ownership") {
		t.Errorf("result %+v", res)
	}
}

func TestWaitForBuildUser(t *testing.T) {
	w := newUserWorld(t, "one")
	fifo := w.root + "/fifo"
	mkfifo(t, fifo)
	if err := os.Chmod(fifo, 0o666); err != nil {
		t.Fatal(err)
	}
	first, second := w.drv("first", "read x < "+fifo+"; echo > $out"), w.drv("second", "read x < "+fifo+"; echo > $out")
	done := w.request(w.ctx, first, second)
	w.until(func() bool { return len(w.log.activities(activity.BuildWaiting)) == 1 })
	text := withoutColours(w.log.activities(activity.BuildWaiting)[0])
	if text != "waiting for a free build user ID for '"+w.print(second)+"'" && text != "waiting for a free build user ID for '"+w.print(first)+"'" {
		t.Errorf("text %q", text)
	}
	// Opened for reading, too, it keeps what the second has not read yet.
	pipe, err := os.OpenFile(fifo, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	if _, err := pipe.WriteString("\n\n"); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestWorldWritableBuildDirIsRefused(t *testing.T) {
	w := newUserWorld(t, "one")
	w.set(func(s *settings.Settings) { s.BuildDir = w.root + "/builds" })
	err := w.sched.BuildPaths(w.ctx, w.sess, []derivation.DerivedPath{built(w.drv("a", "echo > $out"))}, derivation.BuildNormal)
	if err == nil || !strings.HasSuffix(err.Error(), " is world-writable or a symlink. That's not allowed for security.") {
		t.Errorf("got %v", err)
	}
}

// TestDiffHookUser runs the hook as the build user, who wrote one of the two files that it reads.
func TestDiffHookUser(t *testing.T) {
	w := newUserWorld(t, "one")
	random := w.drv("random", "cat /proc/sys/kernel/random/uuid > $out")
	w.mustBuild(random)
	w.set(func(s *settings.Settings) {
		s.RunDiffHook, s.DiffHook = true, w.script("echo hook of $(id -u) $(id -g) in $(pwd); test -r $1 -a -r $2")
	})
	if res := w.buildMode(random, derivation.BuildCheck); res.Status != derivation.StatusNotDeterministic || !res.IsNonDeterministic {
		t.Errorf("result %+v", res)
	}
	want := "hook of " + itoa(int(firstTestUID)) + " " + itoa(int(testGID)) + " in /"
	if got := w.log.logged(); !strings.Contains(got, want) || strings.Contains(got, "diff hook execution failed") {
		t.Errorf("logged %q, want %q", got, want)
	}
}
