//go:build !linux

package supervisor

import "syscall"

func (s *Supervisor) attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
