package sandbox_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nixdaemon/sandbox"
)

// assembly is a directory with a file and a directory mounted in it, and what they are.
func assembly(t *testing.T, l *sandbox.Launcher, u *sandbox.User, spec *sandbox.Spec) (sources string, a *sandbox.Assembly) {
	t.Helper()
	sources = t.TempDir()
	for name, text := range map[string]string{"file": "text\n", "dir/inner": "inner text\n"} {
		path := filepath.Join(sources, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	root := filepath.Join(spec.Isolation.Root, "mnt")
	if err := os.Mkdir(root, 0o700); err != nil {
		t.Fatal(err)
	}
	a, err := l.Assemble(spec.Isolation.Entries[0].Source, root, []sandbox.Bind{
		{Name: "file", Source: sources + "/file", File: true}, {Name: "dir", Source: sources + "/dir"},
	}, u, spec.Isolation.IDs)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	spec.Isolation.Entries[0].Assembly = a
	return sources, a
}

func TestAssembly(t *testing.T) {
	everybody(t, func(t *testing.T, l *sandbox.Launcher, u *sandbox.User) {
		spec := world(t, l, u, "cd /nix/store; echo *; cat file dir/inner; echo x 2>/dev/null >>file || echo read-only; "+
			"touch dir/new 2>/dev/null || echo read-only; rm -rf dir/inner 2>/dev/null; umount dir 2>/dev/null; cat dir/inner; echo made >out$N; rm -f made; ls -A /nix")
		sources, _ := assembly(t, l, u, &spec)
		const want = "text\ninner text\nread-only\nread-only\ninner text\nstore\n"
		// One after the other, and two at once.
		for _, n := range []string{"1", "2"} {
			spec.Env = []string{"PATH=/usr/bin:/bin", "N=" + n}
			names := "dir file\n"
			if n == "2" {
				names = "dir file out1\n"
			}
			if out, res := run(t, l, spec); out != names+want || res.ExitCode != 0 {
				t.Errorf("builder %s: got %q, %+v; want %q", n, out, res, names+want)
			}
		}
		onDisk := spec.Isolation.Entries[0].Source
		if got, err := os.ReadFile(onDisk + "/out2"); string(got) != "made\n" {
			t.Errorf("output on disk: %q, %v", got, err)
		}
		if entries, err := os.ReadDir(onDisk + "/dir"); len(entries) != 0 || err != nil {
			t.Errorf("the host sees the mounts: %v, %v", entries, err)
		}
		// What it is mounted on goes, and the mount with it; what is mounted stays.
		if err := os.Remove(onDisk + "/dir"); err != nil {
			t.Fatal(err)
		}
		spec.Args = []string{"sh", "-c", "cd /nix/store; echo *"}
		if out, _ := run(t, l, spec); out != "file out1 out2\n" {
			t.Errorf("after removal of a mount point: %q", out)
		}
		if _, err := os.Stat(sources + "/dir/inner"); err != nil {
			t.Error(err)
		}
	})
}

// TestAssemblyIsNobodys: builders share none of it, neither among them nor with it.
func TestAssemblyIsNobodys(t *testing.T) {
	l := newLauncher(t)
	spec := world(t, l, nil, "grep -c ' / /nix/store/\\| /nix/store/' /proc/self/mountinfo; grep -c 'shared:\\|master:' /proc/self/mountinfo")
	assembly(t, l, nil, &spec)
	for range 3 {
		if out, _ := run(t, l, spec); out != "2\n0\n" {
			t.Errorf("got %q", out)
		}
	}
}

func TestAssembleErrors(t *testing.T) {
	l := newLauncher(t)
	spec := world(t, l, nil, "")
	dir, root, ids := spec.Isolation.Entries[0].Source, spec.Isolation.Root, spec.Isolation.IDs
	source := t.TempDir()
	fds := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	for name, tt := range map[string]struct {
		dir  string
		bind sandbox.Bind
		want string
	}{
		"no directory": {dir + "/none", sandbox.Bind{Name: "a", Source: source}, "mount '" + dir + "/none': no such file"},
		"no source":    {dir, sandbox.Bind{Name: "a", Source: source + "/none"}, "mount 'a': no such file"},
		"another kind": {dir, sandbox.Bind{Name: "b", Source: source, File: true}, "mount 'b': not a directory"},
		"above":        {dir, sandbox.Bind{Name: "..", Source: source}, "mount '" + source + "' on '..': invalid"},
		"deeper":       {dir, sandbox.Bind{Name: "a/b", Source: source}, "invalid"},
		"empty":        {dir, sandbox.Bind{Source: source}, "invalid"},
		"relative":     {dir, sandbox.Bind{Name: "a", Source: "x"}, "invalid"},
		"zero":         {dir, sandbox.Bind{Name: "a", Source: "/x\x00"}, "invalid"},
	} {
		t.Run(name, func(t *testing.T) {
			before := fds()
			a, err := l.Assemble(tt.dir, root, []sandbox.Bind{tt.bind}, nil, ids)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, %v; want %q", a, err, tt.want)
			}
			if after := fds(); after != before {
				t.Errorf("%d descriptors before, %d after", before, after)
			}
		})
	}
	t.Run("closed", func(t *testing.T) {
		spec := world(t, l, nil, "true")
		_, a := assembly(t, l, nil, &spec)
		a.Close()
		if _, err := l.Start(t.Context(), spec); err == nil {
			t.Error("started with an assembly that is gone")
		}
	})
	l.Close()
	if _, err := l.Assemble(dir, root, nil, nil, ids); err == nil {
		t.Error("assembled by a closed launcher")
	}
}
