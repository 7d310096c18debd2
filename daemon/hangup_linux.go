package daemon

import (
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// epollHangups watches all connections with one epoll instance and one
// goroutine.
type epollHangups struct {
	epoll, wake int
	done        chan struct{}

	mu   sync.Mutex
	last int32
	gone map[int32]func()
}

func newHangups() (hangups, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		unix.Close(epoll)
		return nil, os.NewSyscallError("eventfd", err)
	}
	h := &epollHangups{epoll: epoll, wake: wake, done: make(chan struct{}), gone: make(map[int32]func())}
	if err := unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, wake, &unix.EpollEvent{Events: unix.EPOLLIN}); err != nil {
		unix.Close(epoll)
		unix.Close(wake)
		return nil, os.NewSyscallError("epoll_ctl", err)
	}
	go h.run()
	return h, nil
}

func (h *epollHangups) watch(conn *net.UnixConn, gone func()) (func(), error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	h.last++
	key := h.last
	h.gone[key] = gone
	h.mu.Unlock()
	control := func(op int) error {
		var opErr error
		err := raw.Control(func(fd uintptr) {
			// EPOLLHUP is always reported; asking for nothing else leaves
			// reading to the runtime's own poller.
			opErr = unix.EpollCtl(h.epoll, op, int(fd), &unix.EpollEvent{Events: unix.EPOLLONESHOT, Fd: key})
		})
		if err != nil {
			return err
		}
		return os.NewSyscallError("epoll_ctl", opErr)
	}
	if err := control(unix.EPOLL_CTL_ADD); err != nil {
		h.forget(key)
		return nil, err
	}
	return func() {
		h.forget(key)
		control(unix.EPOLL_CTL_DEL) // a closed socket has left already
	}, nil
}

func (h *epollHangups) forget(key int32) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.gone, key)
}

func (h *epollHangups) run() {
	defer close(h.done)
	events := make([]unix.EpollEvent, 64)
	for {
		n, err := unix.EpollWait(h.epoll, events, -1)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return
		}
		for _, e := range events[:n] {
			if e.Fd == 0 {
				return
			}
			h.report(e.Fd)
		}
	}
}

func (h *epollHangups) report(key int32) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if gone := h.gone[key]; gone != nil {
		delete(h.gone, key)
		gone()
	}
}

func (h *epollHangups) close() error {
	if _, err := unix.Write(h.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0}); err != nil {
		return os.NewSyscallError("write eventfd", err)
	}
	<-h.done
	unix.Close(h.wake)
	return unix.Close(h.epoll)
}
