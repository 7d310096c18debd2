package supervisor

import "syscall"

// attributes are those of a server's process. It is in a process group of its own: what a terminal sends to its
// foreground is the supervisor's to act upon.
func (s *Supervisor) attributes() *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{Setpgid: true}
	if s.o.OwnMounts {
		// Not Unshareflags, with which Go makes all mounts private: then what is mounted later would not be seen.
		a.Cloneflags = syscall.CLONE_NEWNS
	}
	return a
}
