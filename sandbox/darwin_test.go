package sandbox

import (
	"context"
	"encoding/binary"
	"errors"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nixdaemon/sandbox/darwinexec"
	"nixdaemon/sandbox/darwinprofile"
)

func darwinSpec() *Spec {
	return &Spec{
		Path: "/nix/store/x-bash/bin/bash", Args: []string{"bash", "-c", "true"}, Env: []string{"DYLD_X=1", "A=b"},
		Dir: "/nix/var/nix/builds/nix-1-2", User: &User{UID: 351, GID: 30000},
		Darwin: &DarwinSandbox{
			Architecture: darwinexec.X8664,
			Profile: &darwinprofile.Options{Isolated: true, BuildDir: "/nix/var/nix/builds/nix-1-2", TempDir: "/private/tmp",
				StoreDir: "/nix/store", Outputs: []string{"/nix/store/y"}, LocalNetwork: true},
		},
	}
}

func TestStepsOfDarwinBuilder(t *testing.T) {
	spec := darwinSpec()
	first, text, err := spec.throughSteps("/opt/nix-daemon")
	if err != nil {
		t.Fatal(err)
	}
	if first.Path != "/usr/bin/sandbox-exec" || first.Dir != spec.Dir {
		t.Errorf("first step is '%s' in '%s'", first.Path, first.Dir)
	}
	want := []string{"sandbox-exec", "-f", "/nix/var/nix/builds/nix-1-2.sb",
		"-D", "_NIX_BUILD_TOP=/nix/var/nix/builds/nix-1-2", "-D", "_GLOBAL_TMP_DIR=/private/tmp", "-D", "_ALLOW_LOCAL_NETWORKING=1",
		"/opt/nix-daemon", "__execute-builder", "x86_64", "/nix/store/x-bash/bin/bash", "bash", "-c", "true"}
	if diff := cmp.Diff(want, first.Args); diff != "" {
		t.Errorf("arguments (-want +got):\n%s", diff)
	}
	for _, entry := range first.Env {
		if strings.HasPrefix(entry, "DYLD_") || entry == "A=b" {
			t.Errorf("'%s' is not hidden from the steps", entry)
		}
	}
	if !strings.Contains(text, `(allow file-read* process-exec
       (literal "/opt/nix-daemon"))`) {
		t.Errorf("the profile does not let the next step run:\n%s", text)
	}
	if spec.Darwin.Profile.Helper != "" || spec.Path != "/nix/store/x-bash/bin/bash" {
		t.Error("the caller's values are changed")
	}
}

func TestStepsWithoutProfile(t *testing.T) {
	spec := darwinSpec()
	spec.Darwin.Profile = nil
	first, text, err := spec.throughSteps("/opt/nix-daemon")
	if err != nil || text != "" {
		t.Fatalf("profile %q, %v", text, err)
	}
	if first.Path != "/opt/nix-daemon" || !darwinexec.Invoked(first.Args) {
		t.Errorf("first step is '%s' %q", first.Path, first.Args)
	}
}

// TestStepsKeepUser: whatever the steps are, the process that is forked for them is the build user already, so that
// neither sandbox-exec nor the builder, builtin ones included, ever runs as root.
func TestStepsKeepUser(t *testing.T) {
	for _, path := range []string{"/nix/store/x-bash/bin/bash", "/opt/nix-daemon"} {
		for _, profile := range []bool{true, false} {
			spec := darwinSpec()
			spec.Path = path
			if !profile {
				spec.Darwin.Profile = nil
			}
			first, _, err := spec.throughSteps("/opt/nix-daemon")
			if err != nil {
				t.Fatal(err)
			}
			c := sysProcAttr(first).Credential
			if c == nil || c.Uid != 351 || c.Gid != 30000 || c.NoSetGroups {
				t.Errorf("%s, profile %v: credential %+v", path, profile, c)
			}
		}
	}
}

func TestBadProfileStartsNothing(t *testing.T) {
	spec := darwinSpec()
	spec.Darwin.Profile.Outputs = []string{"/nix/store/a\n)(allow default)"}
	if first, _, err := spec.throughSteps("/opt/nix-daemon"); err == nil {
		t.Errorf("steps made: %q", first.Args)
	}
}

func TestDarwinSpecRefused(t *testing.T) {
	l, err := NewLauncher()
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	spec := darwinSpec()
	spec.User = &User{UID: 0, GID: 0}
	if _, err := l.Start(context.Background(), *spec); !errors.Is(err, ErrRootBuilder) {
		t.Errorf("as root: %v", err)
	}
	if runtime.GOOS == "darwin" {
		return
	}
	spec.User = nil
	if _, err := l.Start(context.Background(), *spec); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("on %s: %v", runtime.GOOS, err)
	}
}

// ipcObject is one entry of the kernel's table, as the lists describe it.
type ipcObject struct {
	uid, creator uint32
	sequence     uint16
}

func describe(o ipcObject) []byte {
	d := make([]byte, 76)
	binary.NativeEndian.PutUint32(d[0:], o.uid)
	binary.NativeEndian.PutUint32(d[8:], o.creator)
	binary.NativeEndian.PutUint16(d[18:], o.sequence)
	return d
}

// ipcTable answers as the kernel does: a nil entry is free, and the cursor is the index behind what was found.
func ipcTable(table []*ipcObject) func(uint32) ([]byte, uint32, bool) {
	return func(cursor uint32) ([]byte, uint32, bool) {
		for ; cursor < uint32(len(table)); cursor++ {
			if o := table[cursor]; o != nil {
				return describe(*o), cursor + 1, true
			}
		}
		return nil, cursor, false
	}
}

func TestIPCOfUser(t *testing.T) {
	table := []*ipcObject{nil, {351, 351, 0}, {501, 501, 7}, nil, {351, 0, 3}, {0, 351, 0xffff}, {352, 352, 1}}
	got := ipcIDs(351, ipcTable(table))
	want := []uint32{1, 3<<16 | 4, 0xffff<<16 | 5}
	if !slices.Equal(got, want) {
		t.Errorf("objects %#x, want %#x", got, want)
	}
	if got := ipcIDs(353, ipcTable(table)); len(got) != 0 {
		t.Errorf("objects of nobody: %#x", got)
	}
}

// TestIPCListEnds even if the kernel's cursor does not move.
func TestIPCListEnds(t *testing.T) {
	calls := 0
	ipcIDs(351, func(cursor uint32) ([]byte, uint32, bool) {
		if calls++; calls > 10 {
			t.Fatal("asks for ever")
		}
		return describe(ipcObject{uid: 351}), 1, true
	})
	ipcIDs(351, func(cursor uint32) ([]byte, uint32, bool) { return nil, cursor + 1, true })
}
