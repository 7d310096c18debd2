package supervisor

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// inheritance is the variable in which a supervisor leaves its servers to the program that it becomes.
const inheritance = "_NIXDAEMON_INHERITANCE"

// becomeNew turns the process into the program that now stands at its place, if that is another one than at the start.
// The servers stay its children. If it cannot, the old program goes on.
//
// A signal that comes before the new program listens would end it. SIGHUP is ignored meanwhile, which lasts beyond
// execve(2): the new program is about to start a server in any case, which reads what there is to reload. SIGTERM and
// SIGINT ask for the end and get it, if less orderly than otherwise (Go's runtime lets them be neither held back nor
// ignored): the servers finish what they have begun.
func (s *Supervisor) becomeNew() {
	if s.next != nil || s.leaving > 0 || !s.changed() {
		return
	}
	passed, will, err := s.will()
	if err == nil {
		s.o.Log.Info().Str("program", s.o.Program).Msg("becoming the new program")
		if s.o.Deafen != nil {
			defer s.o.Deafen()()
		}
		// Our own environment, not the servers': the service manager goes on to expect us.
		err = syscall.Exec(s.o.Program, s.o.Args, append(os.Environ(), inheritance+"="+will))
	}
	for _, fd := range passed {
		unix.Close(fd)
	}
	s.o.Log.Error().Err(err).Msg("become the new program")
}

// changed compares the program's file with what it was at the start.
func (s *Supervisor) changed() bool {
	now, err := os.Stat(s.o.Program)
	return err == nil && s.program != nil &&
		(!os.SameFile(now, s.program) || !now.ModTime().Equal(s.program.ModTime()) || now.Size() != s.program.Size())
}

// will names what the next program needs: the descriptors of the listening sockets, then process, control socket and
// phase of each server, the current one first. The descriptors are copies that survive.
func (s *Supervisor) will() (passed []int, text string, err error) {
	var words []string
	for _, listener := range s.o.Listeners {
		fd, err := surviving(uintptr(listener))
		if err != nil {
			return passed, "", err
		}
		passed, words = append(passed, fd), append(words, strconv.Itoa(fd))
	}
	for _, v := range append([]*server{s.current}, s.old...) {
		raw, err := v.conn.SyscallConn()
		if err != nil {
			return passed, "", err
		}
		var fd int
		var dupErr error
		if err := raw.Control(func(of uintptr) { fd, dupErr = surviving(of) }); err != nil || dupErr != nil {
			return passed, "", errors.Join(err, dupErr)
		}
		passed, words = append(passed, fd), append(words, fmt.Sprintf("%d:%d:%s", v.pid, fd, v.phase))
	}
	return passed, strings.Join(words, " "), nil
}

// surviving copies a descriptor so that the next program has it.
func surviving(fd uintptr) (int, error) {
	fd2, err := unix.FcntlInt(fd, unix.F_DUPFD, firstPassed)
	return fd2, os.NewSyscallError("fcntl", err)
}

// Inheritance is what the process has of the program that it was before.
type Inheritance struct {
	// Listeners are the descriptors of listening sockets.
	Listeners []int
	servers   []heir
}

type heir struct {
	pid, fd int
	phase   phase
}

// Inherit gives what a supervisor has left to this process; nil if there was none. The variable is removed.
func Inherit() (*Inheritance, error) {
	value, ok := os.LookupEnv(inheritance)
	if !ok {
		return nil, nil
	}
	os.Unsetenv(inheritance)
	return parseInheritance(value)
}

func parseInheritance(value string) (*Inheritance, error) {
	var in Inheritance
	for _, word := range strings.Fields(value) {
		parts := strings.Split(word, ":")
		pid, err := strconv.Atoi(parts[0])
		if err != nil || pid < firstPassed {
			return nil, fmt.Errorf("bad value '%s' of variable %s", value, inheritance)
		}
		if len(parts) == 1 {
			in.Listeners = append(in.Listeners, pid)
			continue
		}
		if len(parts) != 3 {
			return nil, fmt.Errorf("bad value '%s' of variable %s", value, inheritance)
		}
		fd, err := strconv.Atoi(parts[1])
		if err != nil || fd < firstPassed {
			return nil, fmt.Errorf("bad value '%s' of variable %s", value, inheritance)
		}
		in.servers = append(in.servers, heir{pid: pid, fd: fd, phase: phase(parts[2])})
	}
	if len(in.Listeners) == 0 || len(in.servers) == 0 {
		return nil, fmt.Errorf("bad value '%s' of variable %s", value, inheritance)
	}
	for _, fd := range in.Listeners {
		unix.CloseOnExec(fd)
	}
	return &in, nil
}

// Adopt takes over the servers of an inheritance, before Run.
func (s *Supervisor) Adopt(in *Inheritance) error {
	for i, h := range in.servers {
		unix.CloseOnExec(h.fd)
		conn, err := fileConn(h.fd)
		if err != nil {
			return fmt.Errorf("take over server %d: %w", h.pid, err)
		}
		v := s.watch(h.pid, conn, h.phase)
		if i == 0 {
			s.current = v
			continue
		}
		s.old = append(s.old, v)
	}
	s.ready = true
	return nil
}
