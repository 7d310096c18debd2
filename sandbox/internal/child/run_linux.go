//go:build linux && (amd64 || arm64)

package child

import (
	"runtime"
	"slices"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"nixdaemon/sandbox/internal/plan"
)

// Failure is a step that has failed.
type Failure struct {
	Step  plan.Step
	Errno unix.Errno
}

// Start clones a child that runs the image's steps, in new namespaces as flags say, and returns its process id.
// The calling thread is the one whose end kills a child that asked to die with its parent.
// The caller goes on with [Image.Finish], on any thread.
func (m *Image) Start(flags uintptr) (int, error) {
	atomic.StoreUint32(m.alive, 1)
	flags |= unix.CLONE_VM | uintptr(unix.SIGCHLD)
	if !m.forks() {
		flags |= unix.CLONE_CHILD_CLEARTID
	}
	return Clone(func() int { return cloneAndRun(flags, &m.calls[0], m.report, m.alive) })
}

// Clone calls what clones a process that shares our memory, and gives its id; clone gives that or a negative error number.
// All signals are blocked meanwhile: a handler that ran in the child would run on our stack.
func Clone(clone func() int) (int, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var all, before unix.Sigset_t
	for i := range all.Val {
		all.Val[i] = ^all.Val[i]
	}
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &all, &before); err != nil {
		return 0, err
	}
	pid := clone()
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &before, nil); err != nil {
		return 0, err
	}
	if pid < 0 {
		return 0, unix.Errno(-pid)
	}
	return pid, nil
}

// forks tells whether the child clones another, which takes its place, and ends.
func (m *Image) forks() bool {
	return slices.ContainsFunc(m.steps, func(s plan.Step) bool { return s.Result == plan.ResultFork })
}

// Finish waits until the child that Start returned has executed its last step, and returns the id of the process that
// did, which the caller has to wait for. If a step has failed there is no process any more.
func (m *Image) Finish(pid int) (int, *Failure) {
	if m.forks() {
		Reap(pid)
		pid = int(atomic.LoadUintptr(&m.report.pid))
		if pid == 0 {
			return 0, m.failure()
		}
	}
	for atomic.LoadUint32(m.alive) != 0 {
		// Interrupted, woken or too late: the loop looks again.
		unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(m.alive)), futexWait, 1, 0, 0, 0)
	}
	f := m.failure()
	if f != nil {
		Reap(pid)
	}
	return pid, f
}

// Kept is the result of the step with plan.ResultKeep, once the child has ended without a failure.
func (m *Image) Kept() int { return int(atomic.LoadUintptr(&m.report.kept)) }

// Reap waits for a child that is ending, and returns how it has ended.
func Reap(pid int) unix.WaitStatus {
	var status unix.WaitStatus
	for {
		if _, err := unix.Wait4(pid, &status, 0, nil); err != unix.EINTR {
			return status
		}
	}
}

// futexWait is FUTEX_WAIT of linux/futex.h.
const futexWait = 0

func (m *Image) failure() *Failure {
	failed := atomic.LoadUintptr(&m.report.failed)
	if failed == 0 {
		return nil
	}
	i := (failed - uintptr(unsafe.Pointer(&m.calls[0]))) / callSize
	return &Failure{m.steps[i], unix.Errno(m.report.errno)}
}

// cloneAndRun returns the child's id or a negative error number.
//
//go:noescape
func cloneAndRun(flags uintptr, calls *call, report *report, alive *uint32) int
