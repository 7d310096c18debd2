package sandbox

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"nixdaemon/sandbox/internal/child"
	"nixdaemon/sandbox/internal/plan"
)

// networks keeps network namespaces that hold nothing but a loopback device, since making one costs as much as the rest
// of a sandbox together. A builder has no privileges over the one it gets, so all that it can leave behind there is what
// the kernel remembers of its traffic. One through which a single packet has passed is therefore not used again; nor, where
// the daemon may look, is one whose counters tell of packets that found no way. One of which nothing is told is as it was
// made: sockets, and the names that they were bound to, go with their processes. The zero value is ready.
type networks struct {
	// Guarded by mu.
	mu     sync.Mutex
	unused []*network
	closed bool
}

// network is a namespace in the hands of one builder.
type network struct {
	pool *networks
	// owner is the descriptor of the user namespace that it belongs to, -1 for the daemon's.
	owner int
	// socket asks for the traffic, and keeps the namespace; ns is what is entered.
	socket, ns int
	// counters are the kernel's, as they were in the beginning.
	counters []counter
}

// keepNetworks bounds how many wait for builders.
const keepNetworks = 32

func (n *networks) get(f *forker, owner int) (*network, error) {
	if w := n.take(owner); w != nil {
		return w, nil
	}
	w, err := makeNetwork(f, owner)
	if err != nil {
		return nil, fmt.Errorf("make network namespace: %w", err)
	}
	w.pool = n
	return w, nil
}

func (n *networks) take(owner int) *network {
	n.mu.Lock()
	defer n.mu.Unlock()
	for i := len(n.unused) - 1; i >= 0; i-- {
		if w := n.unused[i]; w.owner == owner {
			n.unused = append(n.unused[:i], n.unused[i+1:]...)
			return w
		}
	}
	return nil
}

// release gives the namespace back when all its processes are gone.
func (w *network) release() {
	if !w.untouched() || !w.pool.put(w) {
		w.close()
	}
}

func (n *networks) put(w *network) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed || len(n.unused) >= keepNetworks {
		return false
	}
	n.unused = append(n.unused, w)
	return true
}

func (n *networks) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closed = true
	for _, w := range n.unused {
		w.close()
	}
	n.unused = nil
}

func (w *network) close() {
	closeCounters(w.counters)
	unix.Close(w.ns)
	unix.Close(w.socket)
}

// makeNetwork has a child make the namespace and, in the descriptor table that it shares with the daemon, a socket.
func makeNetwork(f *forker, owner int) (*network, error) {
	t, err := f.thread(plainThread)
	if err != nil {
		return nil, err
	}
	image := child.NewImage(plan.Network(owner))
	defer image.Close()
	pid, err := t.do(func() (int, error) { return image.Start(unix.CLONE_FILES) })
	if err != nil {
		return nil, err
	}
	pid, failure := image.Finish(pid)
	if failure != nil {
		return nil, &stepError{failure.Step, failure.Errno}
	}
	child.Reap(pid)
	w := &network{owner: owner, socket: image.Kept()}
	if w.socket <= 0 {
		return nil, errors.New("its process was killed") // there is no socket, and 0 is somebody else's
	}
	w.ns, err = unix.IoctlRetInt(w.socket, unix.SIOCGSKNS)
	if err != nil {
		unix.Close(w.socket)
		return nil, fmt.Errorf("get namespace of socket: %w", err)
	}
	unix.CloseOnExec(w.ns)
	if owner < 0 {
		// To be in the namespace for a moment takes privileges in the daemon's own.
		if w.counters, err = openCounters(w.ns); err != nil {
			w.close()
			return nil, err
		}
	}
	return w, nil
}

// untouched asks whether nobody has sent anything. Any doubt counts as touched.
func (w *network) untouched() bool {
	if !w.silent() {
		return false
	}
	for i := range w.counters {
		if !w.counters[i].unchanged() {
			return false
		}
	}
	return true
}

// silent asks whether no packet has passed through the loopback device.
func (w *network) silent() bool {
	// struct nlmsghdr, then struct if_stats_msg: the 64-bit counters of the device with index 1, which is the loopback.
	request := make([]byte, unix.SizeofNlMsghdr+sizeofIfStatsMsg)
	binary.NativeEndian.PutUint32(request, uint32(len(request)))
	binary.NativeEndian.PutUint16(request[4:], unix.RTM_GETSTATS)
	binary.NativeEndian.PutUint16(request[6:], unix.NLM_F_REQUEST)
	binary.NativeEndian.PutUint32(request[unix.SizeofNlMsghdr+4:], 1)
	binary.NativeEndian.PutUint32(request[unix.SizeofNlMsghdr+8:], 1<<(unix.IFLA_STATS_LINK_64-1))
	if err := unix.Sendto(w.socket, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return false
	}
	reply := make([]byte, 4096)
	n, _, err := unix.Recvfrom(w.socket, reply, 0)
	// The counters begin after the header, the message and an attribute's header with the numbers of packets received
	// and sent.
	const packets = unix.SizeofNlMsghdr + sizeofIfStatsMsg + unix.SizeofNlAttr
	if err != nil || n < packets+16 || binary.NativeEndian.Uint16(reply[4:]) != unix.RTM_NEWSTATS {
		return false
	}
	return binary.NativeEndian.Uint64(reply[packets:]) == 0 && binary.NativeEndian.Uint64(reply[packets+8:]) == 0
}

// sizeofIfStatsMsg is the size of struct if_stats_msg of linux/if_link.h.
const sizeofIfStatsMsg = 12
