package daemon

import (
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// kqueueHangups watches all connections with one kqueue and one goroutine.
type kqueueHangups struct {
	kqueue int
	done   chan struct{}

	mu   sync.Mutex
	gone map[uint64]func()
}

// wakeIdent is the user event that ends the goroutine.
const wakeIdent = 0

func newHangups() (hangups, error) {
	kq, err := unix.Kqueue()
	if err != nil {
		return nil, os.NewSyscallError("kqueue", err)
	}
	unix.CloseOnExec(kq)
	h := &kqueueHangups{kqueue: kq, done: make(chan struct{}), gone: make(map[uint64]func())}
	wake := unix.Kevent_t{Ident: wakeIdent, Filter: unix.EVFILT_USER, Flags: unix.EV_ADD | unix.EV_CLEAR}
	if _, err := unix.Kevent(kq, []unix.Kevent_t{wake}, nil, nil); err != nil {
		unix.Close(kq)
		return nil, os.NewSyscallError("kevent", err)
	}
	go h.run()
	return h, nil
}

// watch asks for the end of the writing side alone: EVFILT_WRITE carries
// EV_EOF when the peer has closed, not when it has shut down its sending.
func (h *kqueueHangups) watch(conn *net.UnixConn, gone func()) (func(), error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	var ident uint64
	var ctlErr error
	control := func(flags uint16) error {
		err := raw.Control(func(fd uintptr) {
			ident = uint64(fd)
			h.mu.Lock()
			if flags&unix.EV_ADD != 0 {
				h.gone[ident] = gone
			} else {
				delete(h.gone, ident)
			}
			h.mu.Unlock()
			event := unix.Kevent_t{Ident: ident, Filter: unix.EVFILT_WRITE, Flags: flags}
			_, ctlErr = unix.Kevent(h.kqueue, []unix.Kevent_t{event}, nil, nil)
		})
		if err != nil {
			return err
		}
		return os.NewSyscallError("kevent", ctlErr)
	}
	if err := control(unix.EV_ADD | unix.EV_CLEAR); err != nil {
		return nil, err
	}
	return func() { control(unix.EV_DELETE) }, nil
}

func (h *kqueueHangups) run() {
	defer close(h.done)
	events := make([]unix.Kevent_t, 64)
	for {
		n, err := unix.Kevent(h.kqueue, nil, events, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return
		}
		for _, e := range events[:n] {
			if e.Filter == unix.EVFILT_USER {
				return
			}
			if e.Flags&unix.EV_EOF != 0 {
				h.report(uint64(e.Ident))
			}
		}
	}
}

func (h *kqueueHangups) report(ident uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if gone := h.gone[ident]; gone != nil {
		delete(h.gone, ident)
		gone()
	}
}

func (h *kqueueHangups) close() error {
	wake := unix.Kevent_t{Ident: wakeIdent, Filter: unix.EVFILT_USER, Fflags: unix.NOTE_TRIGGER}
	if _, err := unix.Kevent(h.kqueue, []unix.Kevent_t{wake}, nil, nil); err != nil {
		return os.NewSyscallError("kevent", err)
	}
	<-h.done
	return unix.Close(h.kqueue)
}
