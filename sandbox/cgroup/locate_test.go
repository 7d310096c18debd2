package cgroup

import (
	"strings"
	"testing"
	"time"
)

const (
	unified = "29 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
	hybrid  = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n" +
		"32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n" +
		"41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"
)

func TestLocate(t *testing.T) {
	tests := []struct{ name, mounts, own, want, err string }{
		{"unified", unified, "0::/system.slice/nix-daemon.service\n", "/sys/fs/cgroup/system.slice/nix-daemon.service", ""},
		{"root of a namespace", unified, "0::/\n", "/sys/fs/cgroup", ""},
		{"hybrid", hybrid, "9:name=systemd:/x\n4:memory:/y\n0::/z\n", "/sys/fs/cgroup/unified/z", ""},
		{"version 1 only", "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n", "1:cpu:/\n", "", ErrNone.Error()},
		{"nothing", "", "", "", ErrNone.Error()},
		{"no name", unified, "1:cpu:/\n", "", "cannot determine cgroup name from /proc/self/cgroup"},
		{"part of the hierarchy", "1 2 0:1 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup rw\n", "0::/docker/abc/d\n", "/sys/fs/cgroup/d", ""},
		{"that part itself", "1 2 0:1 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup rw\n", "0::/docker/abc\n", "/sys/fs/cgroup", ""},
		{"another part", "1 2 0:1 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup rw\n", "0::/docker/abcd\n", "",
			"the cgroup '/docker/abcd' is outside of the mounted cgroups file system"},
		{"the second mount has it", "1 2 0:1 /a /mnt rw - cgroup2 cgroup rw\n" + unified, "0::/b\n", "/sys/fs/cgroup/b", ""},
		{"above the namespace", unified, "0::/../../x\n", "", "the cgroup '/../../x' is outside of the mounted cgroups file system"},
		{"escapes", `1 2 0:1 / /sys/a\040b\134 rw - cgroup2 cgroup rw` + "\n", "0::/c d\n", `/sys/a b\/c d`, ""},
		{"a tmpfs that is called so", "1 2 0:1 / /x rw - tmpfs cgroup2 rw\n", "0::/\n", "", ErrNone.Error()},
	}
	for _, tt := range tests {
		got, err := locate(tt.mounts, tt.own)
		if got != tt.want || err == nil && tt.err != "" || err != nil && err.Error() != tt.err {
			t.Errorf("%s: got %q, %v; want %q, %q", tt.name, got, err, tt.want, tt.err)
		}
	}
}

// What is found is an absolute path below a mount point that was given.
func FuzzLocate(f *testing.F) {
	f.Add(unified, "0::/a\n")
	f.Add(hybrid, "1:cpu:/\n0::/\n")
	f.Add(`1 2 0:1 /x /sys/a\040b rw shared:1 - cgroup2 c rw`, "0::/x/..\n")
	f.Add("- cgroup2", "0::")
	f.Fuzz(func(t *testing.T, mounts, own string) {
		got, err := locate(mounts, own)
		if (err == nil) != strings.HasPrefix(got, "/") && got != "" {
			t.Errorf("got %q, %v", got, err)
		}
	})
}

func TestParseStats(t *testing.T) {
	tests := []struct {
		text string
		want Stats
	}{
		{"usage_usec 30\nuser_usec 10\nsystem_usec 20\nnice_usec 0\n", Stats{10 * time.Microsecond, 20 * time.Microsecond}},
		{"user_usec 5", Stats{CPUUser: 5 * time.Microsecond}},
		{"user_usec -5\nsystem_usec x\n", Stats{}},
		{"user_usec 18446744073709551615\nsystem_usec 9223372036854775807\n", Stats{}},
		{"", Stats{}},
	}
	for _, tt := range tests {
		if got := parseStats(tt.text); got != tt.want {
			t.Errorf("%q: got %v, want %v", tt.text, got, tt.want)
		}
	}
}

func FuzzParseStats(f *testing.F) {
	f.Add("usage_usec 30\nuser_usec 10\nsystem_usec 20\n")
	f.Fuzz(func(t *testing.T, text string) {
		if s := parseStats(text); s.CPUUser < 0 || s.CPUSystem < 0 {
			t.Errorf("%q: got %v", text, s)
		}
	})
}
