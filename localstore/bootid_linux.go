package localstore

import (
	"os"
	"strings"
)

// bootID tells this run of the kernel from all others.
func bootID() (string, error) {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(text)), err
}
