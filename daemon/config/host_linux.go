package config

import (
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"nixdaemon/worker/settings"
)

// sandboxShell is a static shell chosen when the program is linked (make SANDBOX_SHELL=…), for systems that have none at
// the usual places. As in upstream's packages, it is what builders find as /bin/sh unless sandbox-paths is set.
var sandboxShell string

func detectPlatform(env *settings.Environment) {
	env.KVM = unix.Access("/dev/kvm", unix.R_OK|unix.W_OK) == nil
	env.SandboxShell = firstStatic(sandboxShell, "/usr/bin/bash-static", "/usr/bin/busybox", "/bin/busybox")
	env.CPULimit = cgroupLimit()
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		env.WSL1 = strings.HasSuffix(unix.ByteSliceToString(name.Release[:]), "-Microsoft")
	}
	if strings.HasPrefix(env.System, "x86_64-") {
		if f, err := os.Open("/proc/cpuinfo"); err == nil {
			env.CPULevels = x86Levels(f)
			f.Close()
		}
	}
}

// cgroupLimit reads cpu.max of the process's own cgroup in the unified hierarchy.
func cgroupLimit() uint {
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if dir, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::"); ok {
			cpuMax, err := os.ReadFile(filepath.Join("/sys/fs/cgroup", dir, "cpu.max"))
			if err != nil {
				return 0
			}
			return cpuLimit(string(cpuMax))
		}
	}
	return 0
}
