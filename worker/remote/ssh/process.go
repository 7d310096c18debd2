package ssh

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// grace is how long a process may take to end once it has nothing more to read
// or write, and again once it was asked to.
const grace = time.Second

// process is a started command.
type process struct {
	// done is closed when the process has been reaped.
	done chan struct{}

	// mu is held while the group is signalled or the process reaped, so that
	// no signal reaches a reused number.
	mu     sync.Mutex
	pid    int
	reaped bool
}

// startProcess starts a command in a process group of its own. Lines that it
// writes to its standard error go to log, or without one to ours.
func startProcess(cmd *exec.Cmd, log func(line string)) (*process, error) {
	p := &process{done: make(chan struct{})}
	lines := &lineWriter{emit: log}
	cmd.Stderr = lines
	if log == nil {
		cmd.Stderr = os.Stderr
	}
	// What it leaves behind, such as a shared connection that persists, may
	// hold its standard error open.
	cmd.WaitDelay = grace
	cmd.SysProcAttr = attributes()
	started := make(chan error)
	go func() {
		defer close(p.done)
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := cmd.Start(); err != nil {
			started <- err
			return
		}
		p.pid = cmd.Process.Pid
		started <- nil
		p.reap(cmd)
		lines.flush()
	}()
	if err := <-started; err != nil {
		<-p.done
		return nil, err
	}
	return p, nil
}

// reap waits for the end of the process and ends what is left of its group.
func (p *process) reap(cmd *exec.Cmd) {
	if AwaitEnd(p.pid) {
		p.mu.Lock()
		p.reaped = true
		syscall.Kill(-p.pid, syscall.SIGKILL) // before its number is free again
		p.mu.Unlock()
	}
	cmd.Wait() // how it ended shows in what the stream says
	p.mu.Lock()
	p.reaped = true
	p.mu.Unlock()
}

func (p *process) signal(s syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.reaped {
		syscall.Kill(-p.pid, s)
	}
}

// ended tells whether the process has ended.
func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// stop returns when the process is gone: by itself if it goes in time.
func (p *process) stop() {
	if !p.within(grace) {
		p.terminate()
	}
}

// terminate asks the process to end, and makes it if it does not.
func (p *process) terminate() {
	p.signal(syscall.SIGTERM)
	if !p.within(grace) {
		p.signal(syscall.SIGKILL)
	}
	<-p.done
}

func (p *process) within(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-p.done:
		return true
	case <-t.C:
		return false
	}
}

// maxLine bounds a line of a process's standard error; longer ones are split.
const maxLine = 16 << 10

// lineWriter passes lines on.
type lineWriter struct {
	emit func(string)
	line []byte
}

// Write never fails.
func (l *lineWriter) Write(data []byte) (int, error) {
	for _, c := range data {
		if c == '\n' || len(l.line) == maxLine {
			l.flushLine()
		}
		if c != '\n' {
			l.line = append(l.line, c)
		}
	}
	return len(data), nil
}

func (l *lineWriter) flushLine() {
	n := len(l.line)
	if n > 0 && l.line[n-1] == '\r' { // ssh ends its own lines so
		n--
	}
	l.emit(string(l.line[:n]))
	l.line = l.line[:0]
}

func (l *lineWriter) flush() {
	if len(l.line) > 0 {
		l.flushLine()
	}
}

// execError names a program that cannot be run as upstream does.
func execError(program string, err error) error {
	var errno syscall.Errno
	switch {
	case errors.Is(err, exec.ErrNotFound):
		errno = syscall.ENOENT
	case !errors.As(err, &errno):
		return err
	}
	return &startError{program, errno}
}

type startError struct {
	program string
	errno   syscall.Errno
}

// Error spells the cause as strerror(3) does.
func (e *startError) Error() string {
	cause := e.errno.Error()
	return "unable to execute '" + e.program + "': " + string(cause[0]&^0x20) + cause[1:]
}

// Unwrap gives the cause.
func (e *startError) Unwrap() error { return e.errno }
