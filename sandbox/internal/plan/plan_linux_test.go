package plan

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

var update = flag.Bool("update", false, "write the golden files anew")

// base is an ordinary sandboxed build by a root daemon with build users.
func base() Input {
	return Input{
		Root: "/nix/store/x.drv.chroot/root",
		Entries: []Entry{
			{Kind: Dir, Target: "/tmp", Mode: 0o1777},
			{Kind: File, Target: "/etc/passwd", Mode: 0o644, Text: "nixbld:x:1000:100\n"},
			{Kind: BindDir, Target: "/build", Source: "/nix/var/nix/builds/nix-1-2/build"},
			{Kind: BindDir, Target: "/nix/store", Source: "/nix/store/x.drv.chroot/root/nix/store", Fresh: true},
			{Kind: BindDir, Target: "/nix/store/in1", Source: "/nix/store/in1", ReadOnly: true},
			{Kind: BindFile, Target: "/nix/store/in2", Source: "/nix/store/in2", ReadOnly: true},
			{Kind: Link, Target: "/nix/store/in3", Text: "in1"},
			{Kind: Proc, Target: "/proc"},
			{Kind: Pts, Target: "/dev/pts"},
			{Kind: Tmpfs, Target: "/dev/shm", Text: "50%"},
		},
		UserNamespace: 20, Privileged: true, Outside: IDs{30001, 30000}, Inside: IDs{1000, 100}, RequireGroups: true,
		Network: 21, Null: 5, Terminal: 6, Daemon: 7, Cgroup: -1, Landlock: true,
		CoreLimit: unix.RLIM_INFINITY, FilesLimit: unix.Rlimit{Cur: 1024, Max: 4096},
		Dir: "/build", Path: "/bin/sh", Args: []string{"sh", "-e"}, Env: []string{"HOME=/homeless-shelter"},
	}
}

func TestSteps(t *testing.T) {
	tests := []struct {
		name   string
		change func(in *Input)
	}{
		{"build-user", func(*Input) {}},
		{"no-user-namespace", func(in *Input) { in.UserNamespace, in.Inside = -1, in.Outside }},
		{"root-without-build-user", func(in *Input) { in.Outside = IDs{} }},
		{"unprivileged", func(in *Input) { in.Privileged, in.Outside = false, IDs{1001, 1001} }},
		{"range-of-ids", func(in *Input) {
			in.Owner, in.Inside, in.Network = true, IDs{}, -1
			in.Entries = append(in.Entries, Entry{Kind: Sys, Target: "/sys"})
		}},
		{"fixed-output", func(in *Input) { in.ShareNetwork, in.Network = true, -1 }},
		{"new-network", func(in *Input) { in.Network = -1 }},
		{"cgroup", func(in *Input) { in.Cgroup, in.RequireGroups = 9, false }},
		{"no-landlock-nor-pidfd", func(in *Input) { in.Landlock, in.Daemon = false, -1 }},
		{"below-the-host", func(in *Input) {
			in.Entries = []Entry{
				{Kind: BindDir, Target: "/host", Source: "/srv"},
				{Kind: BindDir, Target: "/host/a/b", Source: "/opt"},
				{Kind: BindFile, Target: "/host/c", Source: "/etc/hosts", ReadOnly: true},
				{Kind: Link, Target: "/host/d", Text: "never made"},
				{Kind: Tmpfs, Target: "/host/e", Text: "1m"},
			}
		}},
		{"mixed-mounts", func(in *Input) {
			in.Entries = append(in.Entries, Entry{Kind: BindDir, Target: "/nix/store/rw", Source: "/srv"})
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := base()
			tt.change(&in)
			golden(t, tt.name, Steps(in))
		})
	}
	t.Run("assembled", func(t *testing.T) {
		in := base()
		in.Entries = append(in.Entries[:4:4], in.Entries[5:]...)
		in.Entries[3].Assembly = 30
		golden(t, "assembled", Steps(in))
	})
	t.Run("assembled-alone", func(t *testing.T) {
		in := base()
		in.Entries = in.Entries[:4:4]
		in.Entries[3].Assembly = 30
		golden(t, "assembled-alone", Steps(in))
	})
	for name, namespace := range map[string]int{"assembly": -1, "assembly-unprivileged": 20} {
		t.Run(name, func(t *testing.T) {
			golden(t, name, Assemble(Assembly{Dir: "/nix/store/x.drv.chroot/root/nix/store", Root: "/nix/store/x.drv.chroot/mnt", UserNamespace: namespace,
				Entries: []Entry{{Kind: BindDir, Target: "in1", Source: "/nix/store/in1"}, {Kind: BindFile, Target: "in2", Source: "/nix/store/in2"}}}))
		})
	}
	t.Run("trial", func(t *testing.T) { golden(t, "trial", Trial(-1)) })
	t.Run("trial-unprivileged", func(t *testing.T) { golden(t, "trial-unprivileged", Trial(20)) })
	t.Run("network", func(t *testing.T) { golden(t, "network", Network(20)) })
	for name, kind := range map[string]Kind{"attach-dir": BindDir, "attach-file": BindFile, "attach-link": Link} {
		t.Run(name, func(t *testing.T) {
			golden(t, name, Attach(Attachment{Entry: Entry{Kind: kind, Target: "/nix/store/y", Source: "/nix/store/y", Text: "z"}, Mounts: 30, UserNamespace: 20, Privileged: kind != BindFile}))
		})
	}
	t.Run("sleep", func(t *testing.T) { golden(t, "sleep", Sleep()) })
}

// golden compares with testdata/NAME.txt. To write the files: go test ./sandbox/internal/plan -update
func golden(t *testing.T, name string, steps []Step) {
	t.Helper()
	var b strings.Builder
	for i, s := range steps {
		// The other 61 say nothing new.
		if s.Call == "rt_sigaction" && i > 0 && steps[i-1].Call == "rt_sigaction" {
			continue
		}
		b.WriteString(s.String() + "\n")
	}
	file := filepath.Join("testdata", name+".txt")
	if *update {
		if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), b.String()); diff != "" {
		t.Errorf("steps differ from %s (-want +got):\n%s", file, diff)
	}
}

// TestOrder states what must come before what, whatever else changes.
func TestOrder(t *testing.T) {
	in := base()
	order := []string{"setgroups", "unshare", "mount", "pivot_root", "umount2", "setns", "setresgid", "setresuid", "prctl",
		"close_range", "landlock_restrict_self", "capset", "chdir", "rt_sigprocmask", "execve"}
	calls := Steps(in)
	at := -1
	for _, call := range order {
		next := -1
		for i := at + 1; i < len(calls); i++ {
			if calls[i].Call == call && !(call == "setns" && calls[i].Args[1].Value != unix.CLONE_NEWUSER) {
				next = i
				break
			}
		}
		if next < 0 {
			t.Fatalf("no %s after step %d", call, at)
		}
		at = next
	}
	if at != len(calls)-1 {
		t.Errorf("execve is step %d of %d", at, len(calls))
	}
	seen := false
	for _, s := range calls {
		if s.Call == "pivot_root" {
			seen = true
		} else if seen && (s.Call == "mount" || s.Call == "mknodat" || s.Call == "openat") {
			t.Errorf("after the loss of the old root: %s", s)
		}
	}
}

// TestAttachReadOnly: a builder never sees what it could write to, not for a moment.
func TestAttachReadOnly(t *testing.T) {
	for _, kind := range []Kind{BindDir, BindFile} {
		protected := false
		for _, s := range Attach(Attachment{Entry: Entry{Kind: kind, Target: "/nix/store/y", Source: "/nix/store/y"}, Mounts: 30, UserNamespace: 20}) {
			switch s.Call {
			case "mount_setattr":
				protected = true
			case "move_mount", "mount":
				if !protected {
					t.Errorf("before it is read-only: %s", s)
				}
			}
		}
		if !protected {
			t.Error("it is not made read-only")
		}
	}
}

// TestReadOnlyTolerance: where nothing else protects the inputs, a kernel that cannot is refused.
func TestReadOnlyTolerance(t *testing.T) {
	tests := []struct {
		name       string
		outside    IDs
		privileged bool
		tolerated  bool
	}{
		{"build user", IDs{30001, 30000}, true, true},
		{"root", IDs{0, 0}, true, false},
		{"unprivileged", IDs{1001, 1001}, false, false},
	}
	for _, tt := range tests {
		in := base()
		in.Outside, in.Privileged = tt.outside, tt.privileged
		for _, s := range Steps(in) {
			if s.Call == "mount_setattr" && (s.Tolerate == unix.ENOSYS) != tt.tolerated {
				t.Errorf("%s: %s", tt.name, s)
			}
		}
	}
}
