package remote

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"nixdaemon/protocol/storepath"
	"nixdaemon/protocol/wire"
	"nixdaemon/worker/build"
	"nixdaemon/worker/remote/ssh"
	"nixdaemon/worker/settings"
)

// The descriptors of a hook beside the standard ones (libstore/unix/build/hook-instance.cc): what builders print, and
// the other end of that, from which the hook takes what ssh has said.
const (
	fdOutput     = 4
	fdOutputRead = 5
)

// maxHookLine bounds a line of a hook.
const maxHookLine = 1 << 20

// maxGrace bounds the milliseconds that a hook may take to end: somebody waits.
const maxGrace = 60_000

// hook is one process of a build hook's.
type hook struct {
	cmd   *exec.Cmd
	stdin *os.File
	in    *wire.Writer
	// said is the hook's standard output and error.
	said   *os.File
	lines  *bufio.Reader
	output *os.File // what builders print

	// grace is how long it may take to end after SIGTERM, before SIGKILL. Without, there is no SIGTERM.
	grace time.Duration

	once   sync.Once
	status error

	mu     sync.Mutex
	killed bool
	last   *time.Timer // sends SIGKILL
}

// startHook starts the program of the setting build-hook and tells it the settings.
func startHook(set *settings.Settings) (*hook, error) {
	program, err := findProgram(set.BuildHook[0])
	if err != nil {
		return nil, build.Trace("while resolving the 'build-hook' setting'", err)
	}
	h, err := spawn(program, append(append([]string{filepath.Base(program)}, set.BuildHook[1:]...), strconv.Itoa(int(set.Verbosity))))
	if err != nil {
		return nil, err
	}
	h.grace = time.Duration(min(set.BuildHookKillTimeout, maxGrace)) * time.Millisecond
	for name, value := range set.All() {
		h.in.Uint64(1)
		h.in.String(name)
		h.in.String(value)
	}
	// What goes wrong here goes wrong again at the first question.
	h.in.Uint64(0)
	return h, nil
}

// notStarted is the error of a program that cannot be executed. To upstream it has started, and ended at once.
type notStarted struct{ err error }

func (e *notStarted) Error() string { return fmt.Sprintf("start build hook: %v", e.err) }

func (e *notStarted) Unwrap() error { return e.err }

// findProgram looks for a program as upstream does (libutil/executable-path.cc): a name with a slash is a path.
func findProgram(name string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	p, err := exec.LookPath(name)
	if err != nil && !errors.Is(err, exec.ErrDot) {
		return "", &build.Error{Msg: build.Textf("Could not find executable '%s'", name)}
	}
	return filepath.Abs(p)
}

// spawn starts a hook in a session of its own.
func spawn(program string, args []string) (_ *hook, err error) {
	var files []*os.File
	pipe := func() (r, w *os.File) {
		if err != nil {
			return nil, nil
		}
		r, w, err = os.Pipe()
		files = append(files, r, w)
		return r, w
	}
	theirIn, in := pipe()
	said, theirSaid := pipe()
	output, theirOutput, outputErr := outputPipe(err)
	files = append(files, output, theirOutput)
	if err = errors.Join(err, outputErr); err != nil {
		closeAll(files)
		return nil, fmt.Errorf("make pipes for build hook: %w", err)
	}
	cmd := &exec.Cmd{
		Path: program, Args: args, Dir: "/", Stdin: theirIn, Stdout: theirSaid, Stderr: theirSaid,
		ExtraFiles:  []*os.File{fdOutput - 3: theirOutput, fdOutputRead - 3: output},
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
	err = cmd.Start()
	closeAll([]*os.File{theirIn, theirSaid, theirOutput})
	if err != nil {
		closeAll([]*os.File{in, said, output})
		return nil, &notStarted{err}
	}
	// Whoever reads must be able to stop, though descendants of the hook may hold the other end.
	if output, err = interruptible(output); err != nil {
		h := &hook{cmd: cmd, stdin: in, said: said}
		h.kill()
		return nil, err
	}
	return &hook{cmd: cmd, stdin: in, in: wire.NewWriter(in), said: said, lines: bufio.NewReader(said), output: output}, nil
}

// outputPipe makes a pipe whose ends are used as they are by another process: the poller keeps away from them.
func outputPipe(before error) (r, w *os.File, err error) {
	if before != nil {
		return nil, nil, nil
	}
	var fds [2]int
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err := unix.Pipe(fds[:]); err != nil {
		return nil, nil, err
	}
	unix.CloseOnExec(fds[0])
	unix.CloseOnExec(fds[1])
	return os.NewFile(uintptr(fds[0]), "build output"), os.NewFile(uintptr(fds[1]), "build output"), nil
}

// interruptible gives the same file with deadlines.
func interruptible(f *os.File) (*os.File, error) {
	defer f.Close()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		if f != nil {
			f.Close()
		}
	}
}

// try asks whether the hook would build a derivation.
func (h *hook) try(b *Builders, need build.Need) error {
	h.in.String("try")
	h.in.Bool(need.Willing)
	h.in.String(need.System)
	h.in.String(b.o.Dir.Print(need.DrvPath))
	h.in.Strings(need.Features)
	return h.in.Flush()
}

// line reads a line of what the hook says.
func (h *hook) line() (string, error) {
	var line []byte
	for {
		part, err := h.lines.ReadSlice('\n')
		if len(line)+len(part) > maxHookLine {
			return "", fmt.Errorf("a line of the build hook is longer than %d bytes", maxHookLine)
		}
		line = append(line, part...)
		if err == nil {
			return string(line[:len(line)-1]), nil
		}
		if err != bufio.ErrBufferFull {
			return string(line), lineError(err)
		}
	}
}

// lastWords are what a hook that has died had to say.
func (h *hook) lastWords() string {
	h.terminate()
	text, err := io.ReadAll(io.LimitReader(h.lines, maxHookLine))
	if err != nil {
		return ""
	}
	return strings.TrimRight(string(text), " \t\n\r")
}

// terminate asks the hook's process group to end, and makes it if it does not (the setting build-hook-kill-timeout).
func (h *hook) terminate() {
	if h.grace == 0 {
		h.signal(unix.SIGKILL)
		return
	}
	h.signal(unix.SIGTERM)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.last == nil && !h.killed {
		h.last = time.AfterFunc(h.grace, func() { h.signal(unix.SIGKILL) })
	}
}

func (h *hook) signal(s unix.Signal) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.killed {
		unix.Kill(-h.cmd.Process.Pid, s)
	}
}

// abort is terminate, after which nothing is heard any more even if a descendant has left the group.
func (h *hook) abort() {
	h.terminate()
	h.said.SetReadDeadline(time.Now())
}

// kill ends the hook, if it has not ended by itself, and everything that it has started. The error is how it ended.
func (h *hook) kill() error {
	h.once.Do(func() {
		h.stdin.Close()
		h.terminate()
		// Where its end cannot be seen before its number is free again it is given no time.
		ssh.AwaitEnd(h.cmd.Process.Pid)
		h.signal(unix.SIGKILL) // what it has left behind
		// The number may be another's once it has been waited for.
		h.mu.Lock()
		h.killed = true
		if h.last != nil {
			h.last.Stop()
		}
		h.mu.Unlock()
		h.status = h.cmd.Wait()
		closeAll([]*os.File{h.said, h.output})
	})
	return h.status
}

// hookBuild is a hook that has accepted a derivation.
type hookBuild struct {
	hook    *hook
	machine string
	dir     storepath.Dir
}

// Machine implements build.Reservation.
func (b *hookBuild) Machine() string { return b.machine }

// Cancel implements build.Reservation.
func (b *hookBuild) Cancel() { b.hook.kill() }

// Build implements build.Reservation (libstore/build/derivation-building-goal.cc, buildWithHook).
func (b *hookBuild) Build(ctx context.Context, t build.Task) error {
	h := b.hook
	defer h.kill()
	stop := context.AfterFunc(ctx, h.abort)
	defer stop()
	// A hook that reads slowly must be heard meanwhile. What it does not read any more it does not need.
	written := make(chan struct{})
	go func() {
		defer close(written)
		b.tell(t)
		h.stdin.Close()
	}()
	printed := make(chan error, 1)
	go func() { printed <- h.copyOutput(t.Output) }()
	for {
		line, err := h.line()
		if err != nil {
			break // it has ended, or soon will
		}
		t.Log.Line(line)
	}
	h.output.SetReadDeadline(time.Now())
	err := <-printed
	if err == nil {
		err = h.drainOutput(t.Output)
	}
	status := h.kill()
	<-written
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return err
	}
	return hookFailure(status)
}

func (b *hookBuild) tell(t build.Task) {
	in := b.hook.in
	in.Count(len(t.Inputs))
	for _, p := range t.Inputs {
		in.String(b.dir.Print(p))
	}
	in.Strings(t.Wanted)
	in.Flush()
}

// copyOutput passes on what builders print until the deadline. If that is not wanted any more the hook ends.
func (h *hook) copyOutput(to io.Writer) error {
	buf := make([]byte, 8<<10)
	for {
		n, err := h.output.Read(buf)
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				h.terminate()
				return err
			}
		}
		if err != nil {
			return nil
		}
	}
}

// drainOutput passes on what is still in the pipe.
func (h *hook) drainOutput(to io.Writer) error {
	raw, err := h.output.SyscallConn()
	if err != nil {
		return err
	}
	if err := h.output.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	buf := make([]byte, 64<<10)
	for {
		var n int
		if err := raw.Read(func(fd uintptr) bool {
			n, err = unix.Read(int(fd), buf)
			return true
		}); err != nil || n <= 0 {
			return nil
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return err
		}
	}
}

func hookFailure(status error) error {
	if status == nil {
		return nil
	}
	exit, ok := errors.AsType[*exec.ExitError](status)
	if !ok {
		return status
	}
	ws, ok := exit.Sys().(syscall.WaitStatus)
	if !ok {
		return status
	}
	if ws.Signaled() {
		return &build.RemoteFailure{Signal: ws.Signal()}
	}
	return &build.RemoteFailure{ExitCode: ws.ExitStatus()}
}
