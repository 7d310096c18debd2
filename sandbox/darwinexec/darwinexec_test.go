package darwinexec

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const self = "/usr/local/bin/nix-daemon"

func TestCommand(t *testing.T) {
	j := &Job{Path: "/nix/store/x-bash/bin/bash", Args: []string{"bash", "-e", "__execute-builder", ""},
		Env: []string{"DYLD_LIBRARY_PATH=/x", "GODEBUG=gctrace=1", "A=b=c"}, Architecture: ARM64}
	args, env := j.Command(self)
	want := []string{self, "__execute-builder", "arm64", "/nix/store/x-bash/bin/bash", "bash", "-e", "__execute-builder", ""}
	if diff := cmp.Diff(want, args); diff != "" {
		t.Errorf("arguments (-want +got):\n%s", diff)
	}
	wantEnv := []string{"GODEBUG=asyncpreemptoff=1",
		"_NIX_BUILDER_ENV_DYLD_LIBRARY_PATH=/x", "_NIX_BUILDER_ENV_GODEBUG=gctrace=1", "_NIX_BUILDER_ENV_A=b=c"}
	if diff := cmp.Diff(wantEnv, env); diff != "" {
		t.Errorf("environment (-want +got):\n%s", diff)
	}
	if !Invoked(args) {
		t.Error("its own command is not recognised")
	}
}

func TestNotInvoked(t *testing.T) {
	for _, args := range [][]string{nil, {self}, {self, "--stdio"}, {self, "__builtin-builder", "fetchurl"}, {marker}, {self, "x", marker}} {
		if Invoked(args) {
			t.Errorf("%q taken for a job", args)
		}
	}
}

func TestRoundTrip(t *testing.T) {
	for _, arch := range []Architecture{Any, ARM64, X8664} {
		want := &Job{Path: "/bin/sh", Args: []string{"sh"}, Env: []string{}, Architecture: arch}
		for n := range 3 {
			args, env := want.Command(self)
			// What the system adds on the way is not the builder's.
			got, err := parse(args, append(env, "__CF_USER_TEXT_ENCODING=0x0:0:0", "PATH=/usr/bin"))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", arch, diff)
			}
			want.Args = append(want.Args, fmt.Sprint("arg", n))
			want.Env = append(want.Env, fmt.Sprint(envPrefix, "nested", n, "=", n))
		}
	}
}

func TestParseErrors(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{self, marker}, "execute builder: 2 arguments are too few"},
		{[]string{self, marker, "", "/bin/sh"}, "execute builder: 4 arguments are too few"},
		{[]string{self, marker, "", "sh", "sh"}, "execute builder: path 'sh' is not absolute"},
		{[]string{self, marker, "ppc", "/bin/sh", "sh"}, "execute builder '/bin/sh': unknown architecture 'ppc'"},
	} {
		executed := false
		var log strings.Builder
		code := run(tt.args, nil, func(*Job) error { executed = true; return nil }, &log)
		if log.String() != "error: "+tt.want+"\n" || code != 1 || executed {
			t.Errorf("%q: %q, status %d, executed %v", tt.args, log.String(), code, executed)
		}
	}
}

func TestComplaint(t *testing.T) {
	j := &Job{Path: "/nix/store/x", Args: []string{"x"}, Architecture: X8664}
	args, env := j.Command(self)
	for err, want := range map[error]string{
		syscall.ENOENT: "No such file or directory",
		fmt.Errorf("with context: %w", syscall.EACCES): "Permission denied",
		errors.New("something else"):                   "something else",
	} {
		var log strings.Builder
		code := run(args, env, func(got *Job) error {
			if got.Architecture != X8664 || got.Path != j.Path {
				t.Errorf("executes %+v", got)
			}
			return err
		}, &log)
		if want := "\x1b[31;1merror:\x1b[0m executing '\x1b[35;1m/nix/store/x\x1b[0m': " + want; log.String() != want || code != 1 {
			t.Errorf("%q, status %d; want %q", log.String(), code, want)
		}
	}
}

// TestCPUTypes: the numbers of mach/machine.h, CPU_TYPE_ARM64 and CPU_TYPE_X86_64.
func TestCPUTypes(t *testing.T) {
	const abi64 = 0x01000000
	for arch, want := range map[Architecture]uint32{ARM64: abi64 | 12, X8664: abi64 | 7} {
		if got, err := arch.cpuType(); err != nil || got != want {
			t.Errorf("%s: %#x, %v", arch, got, err)
		}
	}
	if _, err := Any.cpuType(); err == nil {
		t.Error("no architecture has a number")
	}
}
