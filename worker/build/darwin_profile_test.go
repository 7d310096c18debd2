package build

import (
	"errors"
	"io/fs"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/storepath"
	"nixdaemon/sandbox"
	"nixdaemon/sandbox/darwinexec"
	"nixdaemon/sandbox/darwinprofile"
)

func darwinStorePath(t *testing.T, name string) storepath.Path {
	t.Helper()
	p, err := storepath.New([20]byte{1}, name)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// darwinHost is a machine whose names in trees are directories and in files are not.
func darwinHost(trees, files string) isTree {
	return func(name string) (bool, error) {
		for _, n := range strings.Fields(trees) {
			if n == name {
				return true, nil
			}
		}
		for _, n := range strings.Fields(files) {
			if n == name {
				return false, nil
			}
		}
		return false, &fs.PathError{Op: "lstat", Path: name, Err: syscall.ENOENT}
	}
}

func sampleDarwinBuild(t *testing.T) *darwinBuild {
	return &darwinBuild{isolated: true, logViolations: true, network: true, platform: "x86_64-darwin",
		options: &derivation.Options{AllowLocalNetworking: true, SandboxProfile: "(allow x)"},
		dir:     "/nix/store", buildDir: "/link/nix-1-2", realBuildDir: "/builds/nix-1-2", tempDir: "/private/tmp",
		inputs:  []storepath.Path{darwinStorePath(t, "dir"), darwinStorePath(t, "file")},
		outputs: []storepath.Path{darwinStorePath(t, "out"), darwinStorePath(t, "dev")},
		paths:   []darwinPath{{"/usr/lib", "/usr/lib", false}, {"/bin/sh", "/bin/sh", false}, {"/gone", "/gone", true}, {"/opt", "/opt", true}},
	}
}

func (b *darwinBuild) host() isTree {
	return darwinHost("/usr/lib "+b.dir.Print(b.inputs[0])+" /opt", "/bin/sh "+b.dir.Print(b.inputs[1]))
}

func TestDarwinSandbox(t *testing.T) {
	b := sampleDarwinBuild(t)
	got, err := b.sandbox(b.host())
	if err != nil {
		t.Fatal(err)
	}
	want := &sandbox.DarwinSandbox{Architecture: darwinexec.X8664, Profile: &darwinprofile.Options{
		Isolated: true, LogViolations: true, Network: true, LocalNetwork: true, Additional: "(allow x)",
		BuildDir: "/builds/nix-1-2", TempDir: "/private/tmp", StoreDir: "/nix/store",
		Outputs: []string{b.dir.Print(b.outputs[1]), b.dir.Print(b.outputs[0])},
		Inputs:  []darwinprofile.Path{{Name: b.dir.Print(b.inputs[0]), Tree: true}, {Name: b.dir.Print(b.inputs[1])}},
		HostPaths: []darwinprofile.Path{{Name: "/link/nix-1-2", Tree: true}, {Name: "/builds/nix-1-2", Tree: true},
			{Name: "/bin/sh"}, {Name: "/opt", Tree: true}, {Name: "/usr/lib", Tree: true}},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	withHelper := *got.Profile
	withHelper.Helper = "/nix-daemon"
	if _, err := darwinprofile.Profile(&withHelper); err != nil {
		t.Errorf("no profile of it: %v", err)
	}
}

// TestDarwinUnisolated: a builder that is not isolated has a profile nonetheless, into which nothing of the derivation
// gets, and nothing on the host has to be there for it.
func TestDarwinUnisolated(t *testing.T) {
	b := sampleDarwinBuild(t)
	b.isolated = false
	got, err := b.sandbox(darwinHost("", ""))
	if err != nil {
		t.Fatal(err)
	}
	want := &darwinprofile.Options{LocalNetwork: true, BuildDir: "/builds/nix-1-2", TempDir: "/private/tmp"}
	if diff := cmp.Diff(want, got.Profile); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestDarwinSandboxErrors(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*darwinBuild)
		want   string
	}{
		{"mismatch", func(b *darwinBuild) { b.paths = append(b.paths, darwinPath{"/bin/bash", "/opt/bash", true}) },
			`can't map "/bin/bash" to "/opt/bash": mismatched impure paths not supported on Darwin`},
		{"missing", func(b *darwinBuild) { b.paths[2].optional = false },
			"getting attributes of required path '/gone: No such file or directory"},
		{"missing input", func(b *darwinBuild) { b.inputs = append(b.inputs, b.outputs[0]) },
			"getting attributes of required path '/nix/store/00000000000000000000000000000001-out: No such file or directory"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := sampleDarwinBuild(t)
			look := b.host()
			tt.change(b)
			_, err := b.sandbox(look)
			if err == nil || err.Error() != tt.want {
				t.Fatalf("%v; want %s", err, tt.want)
			}
			trace, ok := errors.AsType[*traceError](err)
			if !ok || trace.Traces()[0] != "while setting up the build environment" {
				t.Errorf("traces of %#v", err)
			}
		})
	}
}

// TestDarwinUnreadable: only what is not there can be optional.
func TestDarwinUnreadable(t *testing.T) {
	b := sampleDarwinBuild(t)
	_, err := b.sandbox(func(string) (bool, error) { return false, syscall.EACCES })
	if err == nil || err.Error() != "getting attributes of required path '/bin/sh: Permission denied" {
		t.Error(err)
	}
	b.paths = b.paths[2:]
	if _, err := b.sandbox(func(string) (bool, error) { return false, syscall.EACCES }); err == nil {
		t.Error("an unreadable optional path passes")
	}
}

func TestDarwinArchitecture(t *testing.T) {
	for platform, want := range map[string]darwinexec.Architecture{
		"aarch64-darwin": darwinexec.ARM64, "x86_64-darwin": darwinexec.X8664, "builtin": darwinexec.Any, "i686-linux": darwinexec.Any,
	} {
		if got := darwinArchitecture(platform); got != want {
			t.Errorf("%s: %q, want %q", platform, got, want)
		}
	}
}

func TestDarwinProfileOnlyRelaxed(t *testing.T) {
	if err := checkDarwinProfile(&derivation.Options{}, "/nix/store/x.drv"); err != nil {
		t.Error(err)
	}
	err := checkDarwinProfile(&derivation.Options{SandboxProfile: "(allow x)"}, "/nix/store/x.drv")
	if want := "derivation '/nix/store/x.drv' specifies a sandbox profile, but this is only allowed when 'sandbox' is 'relaxed'"; err == nil || err.Error() != want {
		t.Errorf("%v; want %s", err, want)
	}
}

func TestDarwinTempDir(t *testing.T) {
	resolve := func(name string) (string, error) { return "/private" + name, nil }
	for set, want := range map[string]string{"": "/private/tmp", "/other/": "/private/other"} {
		if got, err := darwinTempDir(func(string) string { return set }, resolve); err != nil || got != want {
			t.Errorf("TMPDIR=%s: %s, %v", set, got, err)
		}
	}
	if got, err := darwinTempDir(nil, resolve); err != nil || got != "/private/tmp" {
		t.Errorf("without environment: %s, %v", got, err)
	}
	if _, err := darwinTempDir(nil, func(string) (string, error) { return "", syscall.ENOENT }); err == nil {
		t.Error("a directory that is not there passes")
	}
}
