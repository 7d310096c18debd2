package sandbox

import (
	"fmt"
	"syscall"
)

// sweepUser kills all processes of uid at once, by the system's kill program run as that uid.
// It never claims that nothing was there: the caller looks.
func sweepUser(uid uint32) (alone bool, err error) {
	if uid == 0 {
		return false, ErrRootBuilder
	}
	pid, err := syscall.ForkExec("/bin/kill", []string{"kill", "-KILL", "-1"}, &syscall.ProcAttr{
		Env: []string{},
		Sys: &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, NoSetGroups: true}},
	})
	if err != nil {
		return false, fmt.Errorf("kill processes of uid %d: %w", uid, err)
	}
	for {
		// Its status does not matter: nothing to kill is a failure for the program.
		if _, err := syscall.Wait4(pid, nil, 0, nil); err != syscall.EINTR {
			return false, err
		}
	}
}
