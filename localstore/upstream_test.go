package localstore

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/storepath"
)

// upstream runs upstream's programs on a store's files.
type upstream struct {
	t       *testing.T
	bin     string
	version string
	o       Options
}

// forEachUpstream runs f for each release of upstream in NIXDAEMON_UPSTREAM, a list of folders in the manner of PATH,
// or else for the one in PATH.
func forEachUpstream(t *testing.T, f func(t *testing.T, u *upstream)) {
	bins := filepath.SplitList(os.Getenv("NIXDAEMON_UPSTREAM"))
	if len(bins) == 0 {
		program, err := exec.LookPath("nix-store")
		if err != nil {
			t.Skip("missing: upstream's nix-store in PATH, or NIXDAEMON_UPSTREAM naming the folders that have one")
		}
		bins = []string{filepath.Dir(program)}
	}
	for _, bin := range bins {
		out, err := exec.Command(filepath.Join(bin, "nix-store"), "--version").Output()
		if err != nil {
			t.Errorf("%s: %v", bin, err)
			continue
		}
		fields := strings.Fields(string(out))
		t.Run(fields[len(fields)-1], func(t *testing.T) {
			f(t, &upstream{t, bin, fields[len(fields)-1], testOptions(t)})
		})
	}
}

func (u *upstream) run(stdin string, args ...string) string {
	u.t.Helper()
	out, err := u.try(stdin, args...)
	if err != nil {
		u.t.Fatalf("%s %v: %v", u.version, args, err)
	}
	return out
}

func (u *upstream) try(stdin string, args ...string) (string, error) {
	cmd := exec.Command(filepath.Join(u.bin, args[0]), args[1:]...)
	cmd.Env = append(os.Environ(), "NIX_STORE_DIR="+string(u.o.StoreDir), "NIX_STATE_DIR="+u.o.StateDir,
		"NIX_LOG_DIR="+u.o.LogDir, "NIX_CONF_DIR=/nonexistent", "NIX_REMOTE=", "HOME="+u.t.TempDir(),
		"NIX_CONFIG=build-users-group =\nsubstituters =")
	cmd.Stdin = strings.NewReader(stdin)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%w\n%s", err, stderr.String())
	}
	return strings.TrimSpace(string(out)), err
}

// TestUpstreamMadeTheStore: we open what upstream has made, and find the same as it does.
func TestUpstreamMadeTheStore(t *testing.T) {
	forEachUpstream(t, func(t *testing.T, u *upstream) {
		source := filepath.Join(t.TempDir(), "source")
		os.MkdirAll(filepath.Join(source, "sub"), 0o755)
		os.WriteFile(filepath.Join(source, "sub", "prog"), []byte("#!/bin/sh\n"), 0o755)
		os.Symlink("sub/prog", filepath.Join(source, "link"))
		path := u.run("", "nix-store", "--add", source)
		s, err := Open(ctx, u.o)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		p, err := s.Dir().Parse(path)
		if err != nil {
			t.Fatal(err)
		}
		info, err := s.PathInfo(ctx, p)
		if err != nil {
			t.Fatal(err)
		}
		nar := checkPath(t, s, info)
		spec := DumpSpec{Name: "source", Method: storepath.MethodNAR, Algo: nixhash.SHA256}
		again, err := s.AddDump(ctx, spec, bytes.NewReader(nar), AddOptions{})
		if err != nil || again.Path != p {
			t.Errorf("the same contents have path %v, %v", again, err)
		}
		if bad, err := s.Verify(ctx, VerifyOptions{CheckContents: true}); bad || err != nil {
			t.Error(bad, err)
		}
	})
}

// TestUpstreamUsesOurStore: upstream works on what we have made, while we have it open.
func TestUpstreamUsesOurStore(t *testing.T) {
	forEachUpstream(t, func(t *testing.T, u *upstream) {
		s, err := Open(ctx, u.o)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		a := addText(t, s, "a", "a")
		b := addText(t, s, "b", "b "+s.Dir().Print(a.Path), a.Path)
		text, out := testDerivation(t, s, "hello")
		drv := addText(t, s, "hello.drv", text)
		data := smallTree(t, "tree")
		tree := narInfo(t, s, "tree", data)
		if err := s.AddNAR(ctx, tree, bytes.NewReader(data), AddOptions{Optimise: true}); err != nil {
			t.Fatal(err)
		}
		print := s.Dir().Print
		if got := u.run("", "nix-store", "--query", "--requisites", print(b.Path)); len(strings.Fields(got)) != 2 {
			t.Error(got)
		}
		if got := u.run("", "nix-store", "--query", "--outputs", print(drv.Path)); got != print(out) {
			t.Error(got)
		}
		if got := u.run("", "nix-store", "--query", "--hash", print(tree.Path)); got != tree.NarHash.String() {
			t.Error(got)
		}
		u.run("", "nix-store", "--verify", "--check-contents")

		roots := s.NewTempRoots()
		defer roots.Close()
		if err := roots.Add(ctx, b.Path); err != nil {
			t.Fatal(err)
		}
		u.run("", "nix-store", "--gc")
		left, err := s.AllValidPaths(ctx)
		want := storepath.SortUnique([]storepath.Path{a.Path, b.Path})
		if err != nil || !slices.Equal(left, want) {
			t.Errorf("after collecting %v are left, not %v: %v", left, want, err)
		}
		addText(t, s, "after", "collecting")
	})
}

// TestUpstreamAddsAtTheSameTime: writers of both kinds add the same and different paths.
func TestUpstreamAddsAtTheSameTime(t *testing.T) {
	forEachUpstream(t, func(t *testing.T, u *upstream) {
		s, err := Open(ctx, u.o)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		dir := t.TempDir()
		const files = 60
		args := []string{"nix-store", "--add"}
		for i := range files {
			path := filepath.Join(dir, fmt.Sprintf("file-%d", i))
			os.WriteFile(path, fmt.Append(nil, i), 0o644)
			args = append(args, path)
		}
		var group sync.WaitGroup
		group.Go(func() {
			if _, err := u.try("", args...); err != nil {
				t.Error(err)
			}
		})
		for range 2 {
			group.Go(func() {
				for i := range 2 * files {
					spec := DumpSpec{Name: fmt.Sprintf("file-%d", i), Method: storepath.MethodNAR, Algo: nixhash.SHA256}
					data := fileArchive(t, fmt.Sprint(i), false)
					if _, err := s.AddDump(ctx, spec, bytes.NewReader(data), AddOptions{}); err != nil {
						t.Error(err)
					}
				}
			})
		}
		group.Wait()
		if all, err := s.AllValidPaths(ctx); len(all) != 2*files || err != nil {
			t.Error(len(all), err)
		}
		if bad, err := s.Verify(ctx, VerifyOptions{CheckContents: true}); bad || err != nil {
			t.Error(bad, err)
		}
		u.run("", "nix-store", "--verify", "--check-contents")
		noLeftovers(t, s)
	})
}
