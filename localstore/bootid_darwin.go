package localstore

import "golang.org/x/sys/unix"

// bootID tells this run of the kernel from all others.
func bootID() (string, error) { return unix.Sysctl("kern.bootsessionuuid") }
