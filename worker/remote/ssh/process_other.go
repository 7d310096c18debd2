//go:build !linux

package ssh

import "syscall"

// attributes leaves it to the ends of its pipes to end the process with us:
// there is nothing like Linux's signal.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// AwaitEnd cannot wait for a child without reaping it.
func AwaitEnd(int) bool { return false }
