package build

import (
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"nixdaemon/localstore"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker/session"
	"nixdaemon/worker/settings"
)

// TestIsolatedHostileOutputs are builders that want the daemon to read or write where they cannot (CVE-2026-39860, GHSA-g3g9-5vj6-r3gj, and its kin):
// what they leave instead of an output leads to a file of the host.
func TestIsolatedHostileOutputs(t *testing.T) {
	tests := []struct{ name, script, want string }{
		{"link to a file", "ln -s VICTIM $out", "should be a non-executable regular file"},
		{"link in place of the store", "rm -rf $NIX_STORE 2>/dev/null; rmdir $NIX_STORE 2>/dev/null; mv $NIX_STORE /tmp/s 2>/dev/null; ln -s VICTIMDIR $NIX_STORE 2>/dev/null; echo x > $out",
			"hash mismatch"},
		{"directory with links", "mkdir $out; ln -s VICTIM $out/a; ln -s VICTIMDIR $out/b", "should be a non-executable regular file"},
		{"device", "mknod $out c 1 3", "exit code"},
		{"pipe", "mkfifo $out", "unsupported type"},
		{"socket", "mkdir $out; mkfifo $out/p", "unsupported type"},
	}
	inIsolation(t, func(t *testing.T, w *world) {
		victims := w.root + "/victims"
		if err := os.Mkdir(victims, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(victims+"/file", []byte("precious"), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, tt := range tests {
			script := strings.NewReplacer("VICTIMDIR", victims, "VICTIM", victims+"/file").Replace(tt.script)
			res := w.build(w.drv("hostile", script, fixed(storepath.MethodFlat, "precious")))
			if res.Status.Success() || !strings.Contains(withoutColours(res.ErrorMsg), tt.want) {
				t.Errorf("%s: status %d: %s", tt.name, res.Status, res.ErrorMsg)
			}
			if st, err := os.Stat(victims + "/file"); err != nil || st.Size() != 8 || st.Mode().Perm() != 0o600 {
				t.Errorf("%s: the file of the host is changed: %v, %v", tt.name, st, err)
			}
		}
	})
}

// TestIsolatedLinksStay makes links to the host as an output: they are kept as links.
func TestIsolatedLinksStay(t *testing.T) {
	inIsolation(t, func(t *testing.T, w *world) {
		out := w.mustBuild(w.drv("links", "mkdir $out; ln -s /etc/shadow $out/l; ln -s $out/l $out/m"))
		if to, err := os.Readlink(w.store.RealPath(out) + "/l"); err != nil || to != "/etc/shadow" {
			t.Errorf("link leads to %q, %v", to, err)
		}
	})
}

// TestIsolatedProcessesDie leaves processes behind in each way: nothing of them is left when the outputs are looked at.
func TestIsolatedProcessesDie(t *testing.T) {
	inIsolation(t, func(t *testing.T, w *world) {
		out := w.mustBuild(w.drv("stays", "echo good > $out; (trap '' TERM HUP; while :; do echo bad > $out; done) > /dev/null 2>&1 & (setsid sleep 1000 > /dev/null 2>&1 &) ; echo good > $out"))
		first := w.read(out)
		w.mustBuild(w.drv("other", "echo > $out"))
		if now := w.read(out); now != first {
			t.Errorf("the output was %q and is %q", first, now)
		}
	})
}

// TestDivertedStore has the files of /nix/store elsewhere: builders see them where they belong, whatever is set.
func TestDivertedStore(t *testing.T) {
	w := newWorld(t)
	w.isolate()
	if err := w.sched.Close(w.ctx); err != nil {
		t.Fatal(err)
	}
	const dir = "/nix/store"
	store, err := localstore.Open(w.ctx, localstore.Options{StoreDir: dir, RealDir: w.root + "/diverted/nix/store", StateDir: w.root + "/diverted/var",
		LogDir: w.root + "/diverted/log", UseWAL: true, Features: derivation.AllFeatures()})
	if err != nil {
		t.Fatal(err)
	}
	w.store, w.options.Store = store, store
	w.sched = New(w.options)
	roots := store.NewTempRoots()
	w.change(func(s *session.Session) { s.Roots = roots })
	t.Cleanup(func() {
		if err := w.sched.Close(w.ctx); err != nil {
			t.Error(err)
		}
		roots.Close()
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	w.set(func(s *settings.Settings) { s.Sandbox = settings.SandboxFalse })
	in := w.source("in", "diverted")
	out := w.mustBuild(w.drv("a", "cat "+w.print(in)+" > $out; pwd >> $out", needs(in)))
	if got := w.read(out); got != "diverted/build\n" {
		t.Errorf("output %q", got)
	}
	if path := w.store.RealPath(out); !strings.HasPrefix(path, w.root) || !exists(path) {
		t.Errorf("output at %s", path)
	}
}

// TestIsolatedSoak makes 5,000 builds, most of them in one request and the others request by request, with failures and
// processes left behind among them: nothing hangs and nothing adds up.
func TestIsolatedSoak(t *testing.T) {
	if !aside(t) {
		return
	}
	rounds, together := 50, 4000
	if testing.Short() {
		rounds, together = 2, 40
	}
	w := newWorld(t)
	w.isolate()
	w.set(func(s *settings.Settings) { s.KeepGoing, s.MaxJobs = true, 8 })
	round := func(name string, builds int) {
		var paths []derivation.DerivedPath
		for j := range builds {
			script := "echo > $out"
			if j%7 == 0 {
				script = "sleep 1000 & exit 1"
			}
			paths = append(paths, built(w.drv("s"+name+"-"+strconv.Itoa(j), script)))
		}
		results, err := w.sched.BuildPathsWithResults(w.ctx, w.sess, paths, derivation.BuildNormal)
		if err != nil || len(results) != len(paths) {
			t.Fatalf("%d results, %v", len(results), err)
		}
		for j, r := range results {
			if want := j%7 != 0; r.Status.Success() != want {
				t.Fatalf("build %d of %s: %s %s", j, name, r.Status, r.ErrorMsg)
			}
		}
	}
	round("first", 20)
	mounts, descriptors, goroutines := mountsOf(t, w.root), countFiles(t, "/proc/self/fd"), runtime.NumGoroutine()
	round("together", together)
	for i := range rounds {
		round(strconv.Itoa(i), 20)
	}
	if now := mountsOf(t, w.root); len(now) > len(mounts) {
		t.Errorf("mounts %q, before %q", now, mounts)
	}
	// The database and the runtime open a few more when they are busy.
	if now := countFiles(t, "/proc/self/fd"); now > descriptors+20 {
		t.Errorf("%d descriptors, before %d", now, descriptors)
	}
	if now := runtime.NumGoroutine(); now > goroutines+20 {
		t.Errorf("%d goroutines, before %d", now, goroutines)
	}
	if left := children(t); left != "" {
		t.Errorf("children are left: %s", left)
	}
	w.nothingLeft()
}

// children are the ids of the processes that any thread of this one has forked.
func children(t *testing.T) string {
	t.Helper()
	files, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, file := range files {
		// A thread may have ended since.
		if text, err := os.ReadFile(file); err == nil {
			all.Write(text)
		}
	}
	return all.String()
}

// mountsOf are the mounts that have to do with a directory. There are others on the machine, which come and go.
func mountsOf(t *testing.T, dir string) []string {
	t.Helper()
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	var mounts []string
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, filepath.Base(filepath.Dir(dir))) {
			mounts = append(mounts, line)
		}
	}
	return mounts
}

func countFiles(t *testing.T, dir string) int {
	t.Helper()
	files, err := filepath.Glob(dir + "/*")
	if err != nil {
		t.Fatal(err)
	}
	return len(files)
}
