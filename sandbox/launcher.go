package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ErrClosed is returned by [Launcher.Start] after [Launcher.Close].
var ErrClosed = errors.New("launcher is closed")

// ErrEnded is returned by [Process.Mount] when the builder has ended.
var ErrEnded = errors.New("builder has ended")

// Launcher starts builders. It owns the threads that fork them.
// All methods may be called from any goroutine.
type Launcher struct {
	forker    forker
	isolator  isolator
	processes sync.WaitGroup // started and not yet waited for

	// Guarded by mu.
	mu     sync.Mutex
	closed bool
}

// NewLauncher returns a Launcher that must be closed.
// It marks every descriptor above 2 that the daemon holds at this moment close-on-exec,
// so that what the daemon itself inherited (from a service manager, a shell) never reaches a builder.
func NewLauncher() (*Launcher, error) {
	if err := closeOnExecAll(); err != nil {
		return nil, fmt.Errorf("mark inherited descriptors close-on-exec: %w", err)
	}
	return &Launcher{}, nil
}

func closeOnExecAll() error {
	entries, err := os.ReadDir(ownDescriptors)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if fd, err := strconv.Atoi(e.Name()); err == nil && fd > 2 {
			unix.CloseOnExec(fd)
		}
	}
	return nil
}

// Start runs the builder. When ctx ends, its whole tree is killed as by [Process.Kill].
// The caller reads [Process.Output] to its end and calls [Process.Wait], in every case.
//
// Errors name the step and its target: "start builder '/x/y': no such file or directory".
func (l *Launcher) Start(ctx context.Context, spec Spec) (*Process, error) {
	if err := spec.validate(); err != nil {
		return nil, err
	}
	if err := l.enter(); err != nil {
		return nil, fmt.Errorf("start builder '%s': %w", spec.Path, err)
	}
	p, err := l.start(ctx, &spec)
	if err != nil {
		l.processes.Done()
		return nil, err
	}
	return p, nil
}

// Close refuses new builders, waits until every started one has been waited for, and ends the threads.
// It may be called more than once.
func (l *Launcher) Close() error {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.processes.Wait()
	l.forker.close()
	l.isolator.close()
	return nil
}

// enter counts a process in, under the lock, so that Close cannot miss it.
func (l *Launcher) enter() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return ErrClosed
	}
	l.processes.Add(1)
	return nil
}

func (l *Launcher) start(ctx context.Context, spec *Spec) (*Process, error) {
	if spec.User != nil {
		if err := killUser(spec.User.UID); err != nil {
			return nil, err
		}
	}
	tty, err := openTerminal(spec.User)
	if err != nil {
		return nil, err
	}
	defer tty.slave.Close()
	child, err := l.fork(ctx, spec, tty.slave)
	if err != nil {
		tty.master.Close()
		spec.tidy()
		return nil, err
	}
	return newProcess(ctx, child, spec, tty.master, func() {
		if child.release != nil {
			child.release()
		}
		spec.tidy()
		l.processes.Done()
	}), nil
}

// fork retries while the program is open for writing: a file that the daemon has just written and closed can still be
// open, for a millisecond, in a child that another thread forked and that has not yet reached its exec.
func (l *Launcher) fork(ctx context.Context, spec *Spec, slave *os.File) (*started, error) {
	// Opened for each builder: a description shared by builders would let them share locks and flags.
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	files := []uintptr{null.Fd(), slave.Fd(), slave.Fd()}
	for delay := time.Millisecond; ; delay *= 2 {
		child, err := l.forkOnce(spec, files)
		if !errors.Is(err, syscall.ETXTBSY) || delay > time.Second {
			return child, err
		}
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return nil, fmt.Errorf("start builder '%s': %w", spec.Path, context.Cause(ctx))
		}
	}
}

// started is a builder that has been executed.
type started struct {
	pid int
	// release gives back what it has held, once nothing of it is left; nil for nothing.
	release func()
	// attach mounts into its root; nil if that is the daemon's.
	attach attacher
}

func (l *Launcher) forkOnce(spec *Spec, files []uintptr) (*started, error) {
	if spec.Isolation != nil {
		return l.isolator.fork(&l.forker, spec, files)
	}
	pid, err := l.forker.fork(spec, files)
	return &started{pid: pid}, err
}

// forkExec is the one call that creates a builder; only thread-wide attributes are added by the caller.
func forkExec(spec *Spec, files []uintptr) (int, error) {
	pid, err := withoutCores(func() (int, error) {
		return syscall.ForkExec(spec.Path, spec.Args, &syscall.ProcAttr{
			Dir:   spec.Dir,
			Env:   nonNil(spec.Env),
			Files: files,
			Sys:   sysProcAttr(spec),
		})
	})
	if err != nil {
		return 0, startError(spec, err)
	}
	return pid, nil
}

// nonNil keeps an empty environment empty: for syscall.ForkExec nil means its own.
func nonNil(env []string) []string {
	if env == nil {
		return []string{}
	}
	return env
}

func credential(u *User) *syscall.Credential {
	if u == nil {
		return nil
	}
	return &syscall.Credential{Uid: u.UID, Gid: u.GID, Groups: u.Groups}
}

// startError finds out which step of the child failed, since the kernel's answer is only a number.
func startError(spec *Spec, cause error) error {
	if spec.User != nil && os.Geteuid() != 0 && errors.Is(cause, syscall.EPERM) {
		return fmt.Errorf("run builder '%s' as uid %d: %w", spec.Path, spec.User.UID, cause)
	}
	if st, err := os.Stat(spec.Dir); errors.Is(err, cause) || err == nil && !st.IsDir() {
		return fmt.Errorf("enter directory '%s': %w", spec.Dir, cause)
	}
	return fmt.Errorf("start builder '%s': %w", spec.Path, cause)
}
