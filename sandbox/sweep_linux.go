//go:build linux && (amd64 || arm64)

package sandbox

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"nixdaemon/sandbox/internal/child"
)

// sweepUser kills all processes of uid at once and says whether there was none.
//
// kill(-1) as that uid is what no fork can outrun: the kernel delivers it under the lock that fork needs.
// It has to come from a process of its own. A thread of ours that took the uid would expose us to the very processes
// that it is there to kill: who may signal one thread may kill its whole process. The helper is a child that shares our
// memory but runs nothing besides a few system calls held in registers (sweep_linux_*.s), so it costs no copy of page
// tables and no exec. What a process of uid can do to it in the microseconds between setresuid and kill is to stop or
// kill it; then another helper is made. It cannot be traced, since changing the uid has made its memory undumpable.
//
// The answer "none" is the kernel's own count of that user's processes, zombies included, taken from the flag that a
// change of user under RLIMIT_NPROC 0 raises and execve reports as EAGAIN. Kernels before 5.14 count the helper
// and so never answer "none".
func sweepUser(uid uint32) (alone bool, err error) {
	if uid == 0 {
		return false, ErrRootBuilder
	}
	if os.Geteuid() != 0 {
		return false, fmt.Errorf("kill processes of uid %d: %w", uid, unix.EPERM)
	}
	// A sweep that a hostile process interrupts a thousand times over is not luck any more.
	for range 1000 {
		status, err := runSweeper(uid)
		if err != nil {
			return false, fmt.Errorf("kill processes of uid %d: %w", uid, err)
		}
		if !status.Exited() {
			continue
		}
		switch status.ExitStatus() {
		case sweptNone:
			return true, nil
		case sweptSome:
			return false, nil
		default:
			return false, fmt.Errorf("kill processes of uid %d: cannot change to that uid", uid)
		}
	}
	return false, fmt.Errorf("kill processes of uid %d: the helper was killed each time", uid)
}

// Exit statuses of the helper; sweep_linux_*.s has them as numbers.
const (
	sweptNone = 0
	sweptSome = 1
)

// sweepArgs is what the helper reads; its layout is known to sweep_linux_*.s.
type sweepArgs struct {
	_    unix.Rlimit // offset 0: the limit that the helper sets, all zeros
	argv [2]*byte    // offset 16
	path [2]byte     // offset 32
}

// runSweeper starts one helper and waits for it.
func runSweeper(uid uint32) (unix.WaitStatus, error) {
	args := &sweepArgs{path: [2]byte{'/', 0}}
	args.argv[0] = &args.path[0]
	var pinner runtime.Pinner
	pinner.Pin(args)
	defer pinner.Unpin()
	pid, err := startSweeper(uid, args)
	if err != nil {
		return 0, err
	}
	var status unix.WaitStatus
	for {
		_, err := unix.Wait4(pid, &status, unix.WUNTRACED, nil)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return 0, err
		case status.Stopped():
			unix.Kill(pid, unix.SIGKILL)
		default:
			runtime.KeepAlive(args)
			return status, nil
		}
	}
}

// startSweeper clones the helper and gives its process id.
func startSweeper(uid uint32, args *sweepArgs) (int, error) {
	return child.Clone(func() int { return cloneSweeper(uintptr(uid), args) })
}

// cloneSweeper returns the helper's pid or a negative error number.
//
//go:noescape
func cloneSweeper(uid uintptr, args *sweepArgs) int
