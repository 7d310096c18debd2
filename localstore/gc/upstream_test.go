package gc

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// upstream is the reference program, working on a fixture's store without a daemon.
type upstream struct {
	f   *fixture
	dir string // of the programs
}

// findUpstream looks in the directory NIXDAEMON_UPSTREAM, then in PATH.
func findUpstream(t testing.TB) string {
	t.Helper()
	if dir := os.Getenv("NIXDAEMON_UPSTREAM"); dir != "" {
		return dir
	}
	path, err := exec.LookPath("nix-store")
	if err != nil {
		t.Skip("no upstream nix-store: set NIXDAEMON_UPSTREAM to the bin directory of release 2.34.8")
	}
	return filepath.Dir(path)
}

func (u *upstream) command(args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	u.f.t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, filepath.Join(u.dir, "nix-store"), args...)
	top := filepath.Dir(string(u.f.dir))
	cmd.Env = append(os.Environ(), "NIX_STORE_DIR="+string(u.f.dir), "NIX_STATE_DIR="+u.f.opt.StateDir, "NIX_LOG_DIR="+u.f.opt.LogDir,
		"NIX_CONF_DIR="+top+"/conf", "NIX_REMOTE=local", "HOME="+top, "NIX_CONFIG=build-users-group =\nsubstituters =")
	return cmd
}

func (u *upstream) run(args ...string) []string {
	u.f.t.Helper()
	cmd := u.command(args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		u.f.t.Fatalf("%v: %v\n%s", args, err, stderr.String())
	}
	return sorted(strings.Fields(string(out)))
}

// needSocket skips where the release knows no collector's socket (before 2.4): its processes wait until a collector of
// another process has ended, and its collector until those that have temporary roots have.
func (u *upstream) needSocket() {
	u.f.t.Helper()
	out, err := u.command("--version").Output()
	if err != nil {
		u.f.t.Fatal(err)
	}
	if strings.Contains(string(out), " 2.3.") {
		u.f.t.Skipf("%s waits for collectors to end", strings.TrimSpace(string(out)))
	}
}

// randomRoots makes roots of several kinds.
func (f *fixture) randomRoots(r *rand.Rand, n int) {
	f.t.Helper()
	for i := range r.IntN(4) {
		f.root(fmt.Sprintf("r%d", i), r.IntN(n))
	}
	indirect := filepath.Join(filepath.Dir(string(f.dir)), "result")
	if r.IntN(2) == 0 {
		if err := os.Symlink(f.dir.Print(testPath(r.IntN(n))), indirect); err != nil {
			f.t.Fatal(err)
		}
		if err := f.AddIndirectRoot(context.Background(), indirect); err != nil {
			f.t.Fatal(err)
		}
	}
	if r.IntN(2) == 0 {
		name := testPath(r.IntN(n)).Base()
		if err := os.WriteFile(filepath.Join(f.opt.StateDir, "gcroots", name), nil, 0o600); err != nil {
			f.t.Fatal(err)
		}
	}
}

// TestSameAsUpstream compares what is dead, alive and a root in random stores, and what is left in the end.
func TestSameAsUpstream(t *testing.T) {
	dir := findUpstream(t)
	cases := 12
	if testing.Short() {
		cases = 3
	}
	for seed := range uint64(cases) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 9))
			s := randomShape(r, 10+r.IntN(60))
			f := newFixture(t, s)
			f.randomRoots(r, s.n)
			u := &upstream{f, dir}
			keepOutputs, keepDerivations := r.IntN(2) == 0, r.IntN(2) == 0
			options := []string{"--option", "keep-outputs", fmt.Sprint(keepOutputs), "--option", "keep-derivations", fmt.Sprint(keepDerivations)}
			for action, flag := range map[Action]string{ReturnLive: "--print-live", ReturnDead: "--print-dead"} {
				req := wholeStore(action)
				req.KeepOutputs, req.KeepDerivations = keepOutputs, keepDerivations
				want := u.run(append([]string{"--gc", flag}, options...)...)
				if diff := cmp.Diff(want, sorted(f.collect(req).Paths)); diff != "" {
					t.Errorf("%s (-upstream +ours):\n%s", flag, diff)
				}
			}
			f.compareRoots(u)
			if t.Failed() {
				return
			}
			want := u.run(append([]string{"--gc", "--print-live"}, options...)...)
			req := wholeStore(DeleteDead)
			req.KeepOutputs, req.KeepDerivations = keepOutputs, keepDerivations
			f.collect(req)
			f.verify()
			var left []string
			for _, name := range f.onDisk() {
				left = append(left, string(f.dir)+"/"+name)
			}
			if diff := cmp.Diff(want, left); diff != "" {
				t.Errorf("left (-live +found):\n%s", diff)
			}
			// What upstream has to say of the store in the end.
			u.run("--verify")
		})
	}
}

// compareRoots compares all roots but those that only one of the two processes has.
func (f *fixture) compareRoots(u *upstream) {
	f.t.Helper()
	found, err := f.collector(nil).FindRoots(context.Background(), false, nil)
	if err != nil {
		f.t.Fatal(err)
	}
	var ours []string
	for p, labels := range found {
		for _, label := range labels {
			ours = append(ours, label+" -> "+f.dir.Print(p))
		}
	}
	slices.Sort(ours)
	out, err := u.command("--gc", "--print-roots").Output()
	if err != nil {
		f.t.Fatal(err)
	}
	var theirs []string
	for line := range strings.Lines(string(out)) {
		// Newer releases print file names in quotes; what they were told has none.
		theirs = append(theirs, strings.ReplaceAll(strings.TrimSuffix(line, "\n"), `"`, ""))
	}
	slices.Sort(theirs)
	if diff := cmp.Diff(theirs, ours); diff != "" {
		f.t.Errorf("roots (-upstream +ours):\n%s", diff)
	}
}

// TestForeignTempRoot has an upstream process add a path, and thereby a temporary root, while we collect.
func TestForeignTempRoot(t *testing.T) {
	dir := findUpstream(t)
	f := newFixture(t, tower())
	u := &upstream{f, dir}
	u.needSocket()
	file := filepath.Join(filepath.Dir(string(f.dir)), "file")
	if err := os.WriteFile(file, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	var added []string
	c := f.collector(func(step string) error {
		if step == "planned" {
			added = u.run("--add", file)
		}
		return nil
	})
	if _, err := c.Collect(context.Background(), wholeStore(DeleteDead)); err != nil {
		t.Fatal(err)
	}
	if got := f.onDisk(); len(added) != 1 || !slices.Equal(got, []string{filepath.Base(added[0])}) {
		t.Errorf("left are %v, added was %v", got, added)
	}
	f.verify()
	f.reopen() // drops what was kept for that process
	f.collect(wholeStore(DeleteDead))
	f.check()
}

// TestUpstreamCollectsBesideUs has upstream's collector respect the roots of our connections, those made before it started.
func TestUpstreamCollectsBesideUs(t *testing.T) {
	dir := findUpstream(t)
	f := newFixture(t, tower())
	u := &upstream{f, dir}
	u.needSocket()
	temp := f.NewTempRoots()
	defer temp.Close()
	if err := temp.Add(context.Background(), testPath(4)); err != nil {
		t.Fatal(err)
	}
	u.run("--gc")
	f.check(1, 2, 4)
}
