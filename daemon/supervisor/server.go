package supervisor

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// phase is where a server is in its life.
type phase string

const (
	starting phase = "starting"
	serving  phase = "serving"
	draining phase = "draining"
)

// server is one, as the supervisor sees it. Its fields belong to the supervisor's loop.
type server struct {
	pid   int
	conn  *net.UnixConn // the control socket
	phase phase
	begun time.Time // of the phase
	// clients is how many a draining server still has, -1 until it has told.
	clients int
	status  string
	// asked is when the question that has no answer yet was put; zero if there is none.
	asked time.Time
}

// event is what a server has said, or how it ended.
type event struct {
	from *server
	line string
	end  *os.ProcessState
}

// launch starts a server, the next one if another goes on until it is ready.
func (s *Supervisor) launch(next bool) (*server, error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, fmt.Errorf("make control socket: %w", err)
	}
	defer unix.Close(theirs)
	conn, err := fileConn(ours)
	if err != nil {
		return nil, err
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	defer null.Close()
	files := []uintptr{null.Fd(), 1, 2, uintptr(theirs)}
	for _, fd := range s.o.Listeners {
		files = append(files, uintptr(fd))
	}
	passed := fmt.Sprintf("%s=%d %d", variable, len(s.o.Listeners), os.Getpid())
	if next {
		passed += " " + takesOver
	}
	pid, err := syscall.ForkExec(s.o.Program, s.o.Args, &syscall.ProcAttr{
		Env:   append(s.o.Env[:len(s.o.Env):len(s.o.Env)], passed),
		Files: files, Sys: s.attributes(),
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start '%s': %w", s.o.Program, err), conn.Close())
	}
	return s.watch(pid, conn, starting), nil
}

// watch has a server's messages and its end delivered to the loop.
func (s *Supervisor) watch(pid int, conn *net.UnixConn, in phase) *server {
	v := &server{pid: pid, conn: conn, phase: in, begun: time.Now(), clients: -1}
	heard := make(chan struct{})
	go func() {
		defer close(heard)
		for lines := newLines(conn); lines.Scan(); {
			s.deliver(event{from: v, line: lines.Text()})
		}
	}()
	go func() {
		state := await(pid)
		// First what it said, then its end.
		conn.SetReadDeadline(time.Now().Add(time.Second))
		<-heard
		conn.Close()
		s.deliver(event{from: v, end: state})
	}()
	return v
}

// await waits for a child to end.
func await(pid int) *os.ProcessState {
	p, err := os.FindProcess(pid)
	if err != nil {
		return &os.ProcessState{}
	}
	state, err := p.Wait()
	if err != nil {
		return &os.ProcessState{}
	}
	return state
}

func (s *Supervisor) deliver(e event) {
	select {
	case s.events <- e:
	case <-s.left:
	}
}

// order tells a server what to do. If it cannot be told it has ended, or will be found not to answer.
func (v *server) order(what string) {
	v.conn.SetWriteDeadline(time.Now().Add(sayLimit))
	io.WriteString(v.conn, what+"\n")
}

func (v *server) enter(p phase) { v.phase, v.begun, v.asked = p, time.Now(), time.Time{} }

// drain has the server finish.
func (v *server) drain() {
	if v.phase != draining {
		v.enter(draining)
	}
	v.order(orderDrain)
}

// hear takes in a message. Those that a server of another release may send and we do not know are none of our business.
func (v *server) hear(line string) (patience bool) {
	what, rest, _ := strings.Cut(line, " ")
	switch what {
	case sayReady:
		if v.phase == starting {
			v.enter(serving)
		}
	case sayPatience:
		return true
	case sayStatus:
		v.status = rest
	case sayAlive:
		v.asked = time.Time{}
	case sayDraining:
		if n, err := strconv.Atoi(rest); err == nil {
			v.clients = n
		}
	}
	return false
}

// socketPair gives two connected stream sockets that no other child inherits.
func socketPair() (ours, theirs int, err error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return 0, 0, os.NewSyscallError("socketpair", err)
	}
	unix.CloseOnExec(fds[0])
	unix.CloseOnExec(fds[1])
	return fds[0], fds[1], nil
}

// fileConn takes a descriptor over.
func fileConn(fd int) (*net.UnixConn, error) {
	f := os.NewFile(uintptr(fd), "control socket")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	conn, ok := c.(*net.UnixConn)
	if !ok {
		return nil, errors.Join(errors.New("control socket of another kind"), c.Close())
	}
	return conn, nil
}
