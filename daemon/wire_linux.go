package daemon

import (
	"io"
	"net"
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sitTime is how long a thread waits for a client's next request before the runtime's poller does.
const sitTime = 2 * time.Millisecond

// turns tells which connection was the last to answer a request, and bounds how many wait in the kernel.
//
// The runtime's poller costs more than a small request does: a client that takes a reply wakes the poller's thread for
// nothing, since it tells of room to write too. So a connection whose client asks one thing after another while no
// other client does waits for the next request on a thread of its own, for a moment. With several at work
// the poller finds many at a time, and is the better choice.
type turns struct {
	last    atomic.Pointer[served]
	sitting atomic.Int32
}

// sit takes one of the places for waiting in the kernel; some thread of the program's must stay free.
func (t *turns) sit(s *served) bool {
	if t == nil || !s.alone {
		return false
	}
	if t.sitting.Add(1) < int32(runtime.GOMAXPROCS(0)) {
		return true
	}
	t.sitting.Add(-1)
	return false
}

func (t *turns) rise() { t.sitting.Add(-1) }

// done notes that a connection has answered, and whether others have since it did so last.
func (t *turns) done(s *served) {
	if t == nil {
		return
	}
	if s.alone = t.last.Load() == s; !s.alone {
		t.last.Store(s)
	}
}

// socket reads and writes a connection. One goroutine at a time may read, one may write.
type socket struct {
	raw    syscall.RawConn
	seated bool

	// Of the read under way, and of the write.
	in, out struct {
		buf   []byte
		flags int
		n     int
		err   error
	}
	recv, send func(fd uintptr) bool
}

func newSocket(conn *net.UnixConn) (*socket, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	s := &socket{raw: raw}
	s.recv, s.send = s.receive, s.transmit
	return s, nil
}

// seat makes calls wait that do not say that they shall not. Many connections are too short for it.
func (s *socket) seat() error {
	if s.seated {
		return nil
	}
	wait := unix.NsecToTimeval(int64(sitTime))
	var set error
	err := s.raw.Control(func(fd uintptr) {
		if set = unix.SetsockoptTimeval(int(fd), unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait); set == nil {
			set = unix.SetNonblock(int(fd), false)
		}
	})
	if err == nil {
		err = os.NewSyscallError("prepare socket", set)
	}
	s.seated = err == nil
	return err
}

// read reads what there is, and waits for it in the kernel first if sit is set.
func (s *socket) read(p []byte, sit bool) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	s.in.buf, s.in.flags = p, unix.MSG_DONTWAIT
	if sit {
		if err := s.seat(); err != nil {
			return 0, err
		}
		s.in.flags = 0
	}
	err := s.raw.Read(s.recv)
	s.in.buf = nil
	switch {
	case err != nil:
		return 0, err
	case s.in.err != nil:
		return 0, os.NewSyscallError("recvfrom", s.in.err)
	case s.in.n == 0:
		return 0, io.EOF
	}
	return s.in.n, nil
}

func (s *socket) receive(fd uintptr) bool {
	s.in.n, s.in.err = transfer(unix.SYS_RECVFROM, fd, s.in.buf, s.in.flags)
	s.in.flags = unix.MSG_DONTWAIT
	return s.in.err != unix.EAGAIN
}

func (s *socket) write(p []byte) (int, error) {
	s.out.buf, s.out.n, s.out.err = p, 0, nil
	err := s.raw.Write(s.send)
	s.out.buf = nil
	if err == nil {
		err = os.NewSyscallError("sendto", s.out.err)
	}
	return s.out.n, err
}

func (s *socket) transmit(fd uintptr) bool {
	for s.out.n < len(s.out.buf) {
		n, err := transfer(unix.SYS_SENDTO, fd, s.out.buf[s.out.n:], unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		if err == unix.EAGAIN {
			return false
		}
		if err != nil {
			s.out.err = err
			return true
		}
		s.out.n += n
	}
	return true
}

// transfer is a system call without the peer's address, which package unix would give each time.
func transfer(call, fd uintptr, p []byte, flags int) (int, error) {
	for {
		n, _, errno := unix.Syscall6(call, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), uintptr(flags), 0, 0)
		switch errno {
		case 0:
			return int(n), nil
		case unix.EINTR:
		default:
			return 0, errno
		}
	}
}
