package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"nixdaemon/sandbox/cgroup"
)

// Result is how a builder ended.
type Result struct {
	// ExitCode is the exit status, or -1 when a signal ended the builder.
	ExitCode int
	// Signal is the signal that ended the builder, or 0.
	Signal syscall.Signal
	// CPUUser and CPUSystem are the processor time of the builder and of all descendants that were waited for.
	CPUUser, CPUSystem time.Duration
}

// Process is a started builder with everything that it has started in turn.
// All methods may be called from any goroutine.
type Process struct {
	pid  int
	tree *tree
	user *User
	// cgroup is what the builder and all that it has started are in; nil for none. It is open until Wait has returned.
	cgroup *os.File
	// isolated: the builder is process 1 of its namespace, so the kernel ends all others with it, and reports its end only
	// when they are gone.
	isolated bool
	output   *output
	attach   attacher    // nil if not isolated
	release  func()      // counts the process out of its Launcher
	unwatch  func() bool // stops watching the context; false when killing has begun
	watched  chan struct{}

	waitOnce sync.Once
	result   Result
	waitErr  error

	// mu is held while the pid is signalled or reaped, so that no signal reaches a reused pid.
	mu     sync.Mutex
	reaped bool
}

func newProcess(ctx context.Context, child *started, spec *Spec, master *os.File, release func()) *Process {
	p := &Process{
		pid:      child.pid,
		attach:   child.attach,
		tree:     newTree(child.pid, spec),
		user:     spec.User,
		cgroup:   spec.Cgroup,
		isolated: spec.Isolation != nil,
		output:   &output{master: master},
		release:  release,
		watched:  make(chan struct{}),
	}
	p.unwatch = context.AfterFunc(ctx, func() {
		defer close(p.watched)
		p.Kill()
	})
	return p
}

// Pid is the process id of the builder, which is also its session and process group.
func (p *Process) Pid() int { return p.pid }

// Output is what the builder writes to its standard output and error, unchanged.
// It ends when all who hold the terminal have closed it, at the latest one second after Wait has returned.
// Reading to the end releases the terminal. It is for one reader at a time.
func (p *Process) Output() io.Reader { return p.output }

// Kill ends the builder and all that it has started, without waiting for them to be gone: [Process.Wait] does.
// It may be called at any time and any number of times; after Wait it does nothing.
//
// A build is over when its output is, even if the builder lives on without its terminal:
// calling Kill at the end of the output, then Wait, gives that meaning and leaves the exit status of a builder
// that has ended by itself as it was.
func (p *Process) Kill() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.reaped {
		return nil
	}
	if p.isolated {
		return killOne(p.pid)
	}
	if p.cgroup != nil {
		if err := cgroup.Kill(p.cgroup); err != nil {
			return errors.Join(err, killGroup(p.pid))
		}
	}
	// The builder itself first: it may not yet have changed its user.
	err := killGroup(p.pid)
	if p.output.ended.Load() {
		// Nobody waits for the tree to let go of the terminal any more, and Wait clears the rest.
		return err
	}
	if p.user != nil {
		_, sweepErr := sweepUser(p.user.UID)
		return errors.Join(err, sweepErr)
	}
	return errors.Join(err, p.tree.kill())
}

// Wait waits until the builder has ended, kills what is left of its tree, and returns once nothing of it remains.
// Every call returns the same. An error means that the tree could not be killed, not that the builder failed.
func (p *Process) Wait() (Result, error) {
	p.waitOnce.Do(p.wait)
	return p.result, p.waitErr
}

func (p *Process) wait() {
	defer p.release()
	err := awaitExit(p.pid)
	if !p.unwatch() {
		<-p.watched
	}
	p.waitErr = errors.Join(err, p.finish())
	p.output.expire(time.Now().Add(time.Second))
}

// finish clears the rest of the tree and reaps the builder, whose zombie keeps its pid reserved until then.
func (p *Process) finish() error {
	if p.isolated {
		return p.reap(func() error { return nil })
	}
	if p.cgroup != nil {
		if err := cgroup.Clear(p.cgroup); err != nil {
			return errors.Join(err, p.reap(p.tree.killAll))
		}
	}
	if p.user != nil {
		err := p.reap(func() error { return killGroup(p.pid) })
		return errors.Join(err, killUser(p.user.UID))
	}
	return p.reap(p.tree.killAll)
}

func (p *Process) reap(clear func() error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	clearErr := clear()
	var status unix.WaitStatus
	var usage unix.Rusage
	for {
		_, err := unix.Wait4(p.pid, &status, 0, &usage)
		if err == nil {
			break
		}
		if err != unix.EINTR {
			return errors.Join(clearErr, fmt.Errorf("wait for builder %d: %w", p.pid, err))
		}
	}
	p.reaped = true
	p.result = newResult(status, &usage)
	return clearErr
}

func newResult(status unix.WaitStatus, usage *unix.Rusage) Result {
	r := Result{
		ExitCode:  status.ExitStatus(),
		CPUUser:   time.Duration(usage.Utime.Nano()),
		CPUSystem: time.Duration(usage.Stime.Nano()),
	}
	if status.Signaled() {
		r.ExitCode, r.Signal = -1, status.Signal()
	}
	return r
}

func killOne(pid int) error {
	if err := unix.Kill(pid, unix.SIGKILL); err != nil && err != unix.ESRCH {
		return fmt.Errorf("kill builder %d: %w", pid, err)
	}
	return nil
}

// killGroup kills the process group of a builder that has not been reaped. That all have gone is no error,
// nor (macOS) that only zombies are left.
func killGroup(pid int) error {
	err := unix.Kill(-pid, unix.SIGKILL)
	if err == nil || err == unix.ESRCH || err == unix.EPERM {
		return nil
	}
	return fmt.Errorf("kill process group %d: %w", pid, err)
}
