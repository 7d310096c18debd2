package config

import (
	"os/exec"

	"golang.org/x/sys/unix"

	"nixdaemon/worker/settings"
)

func detectPlatform(env *settings.Environment) {
	inVM, err := unix.SysctlUint32("kern.hv_vmm_present")
	if err != nil || inVM == 0 {
		support, err := unix.SysctlUint32("kern.hv_support")
		env.AppleVirt = err == nil && support == 1
	}
	if env.System == "aarch64-darwin" {
		env.Rosetta = exec.Command("/usr/bin/arch", "-arch", "x86_64", "/usr/bin/true").Run() == nil
	}
}
