package daemon

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// firstInherited is the number of the first inherited socket (sd_listen_fds(3)).
const firstInherited = 3

// ErrActivation says that sockets were passed to somebody else.
var ErrActivation = errors.New("unexpected systemd environment variables")

// Inherited gives the sockets that a service manager passed, none if it passed
// none. Where they have names, only those called "nix-daemon.socket" are
// taken, as upstream does since 2.35. The variables are removed, so that
// builders and hooks do not see them.
func Inherited() ([]net.Listener, error) {
	count, pid, names := os.Getenv("LISTEN_FDS"), os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDNAMES")
	for _, name := range []string{"LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"} {
		os.Unsetenv(name)
	}
	if count == "" {
		return nil, nil
	}
	n, err := strconv.Atoi(count)
	if err != nil || n < 1 || pid != strconv.Itoa(os.Getpid()) {
		return nil, ErrActivation
	}
	return inheritedListeners(n, strings.Split(names, ":"))
}

// fromStandardInput gives the listening socket that standard input is, as inetd
// passes it to servers that wait (launchd.plist(5), inetdCompatibility); nil if
// it is something else.
func fromStandardInput() net.Listener {
	accepts, err := unix.GetsockoptInt(0, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	if err != nil || accepts == 0 {
		return nil
	}
	l, err := net.FileListener(os.Stdin) // works on a copy
	if err != nil {
		return nil
	}
	if _, ok := l.(*net.UnixListener); !ok { // peers of others have no credentials
		l.Close()
		return nil
	}
	return l
}

func inheritedListeners(n int, names []string) ([]net.Listener, error) {
	var listeners []net.Listener
	for i := range n {
		fd := firstInherited + i
		unix.CloseOnExec(fd)
		if i < len(names) && names[i] != "" && names[i] != "unknown" && names[i] != "nix-daemon.socket" {
			continue
		}
		f := os.NewFile(uintptr(fd), "inherited socket "+strconv.Itoa(fd))
		l, err := net.FileListener(f) // works on a copy
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("listen on inherited socket %d: %w", fd, err)
		}
		listeners = append(listeners, l)
	}
	if len(listeners) == 0 {
		return nil, ErrActivation
	}
	return listeners, nil
}

// unpublished ends the name of a socket that clients shall not find yet. The
// kernel goes on to call it so where sockets are listed (ss(8)): what is bound
// cannot be given another name there. Upstream binds at the final name after it
// has removed what was there, so that clients find nothing, then somebody who
// does not listen, and at last a daemon that has yet to find out whether it can
// start. Here they find the socket of the one before until there is one that
// serves.
const unpublished = ".new"

// Listen creates the daemon's own socket, for everybody to connect to, and
// publishes it under its name when publish is called. A socket that is already
// there is replaced, as upstream does: whether a daemon listens on it cannot be
// asked without a race.
func Listen(path string) (l net.Listener, publish func() error, err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, nil, err
	}
	hidden := path + unpublished
	if err := os.Remove(hidden); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, nil, err
	}
	if l, err = bind(hidden); err != nil {
		return nil, nil, fmt.Errorf("cannot bind to socket '%s': %w", path, err)
	}
	if err := os.Chmod(hidden, 0o666); err != nil {
		return nil, nil, errors.Join(err, l.Close())
	}
	return l, func() error { return os.Rename(hidden, path) }, nil
}

// maxSocketPath is what fits sockaddr_un with its final zero (unix(7)).
const maxSocketPath = len(unix.RawSockaddrUnix{}.Path) - 1

// bind listens at a path of any length: where it does not fit the address it
// is reached through its directory's descriptor.
func bind(path string) (net.Listener, error) {
	if len(path) <= maxSocketPath {
		return listenKeeping(path)
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return bindBeneath(dir, filepath.Base(path))
}

// listenKeeping leaves the socket in place when the listener closes: a service
// manager, or the next daemon, may already own the name by then.
func listenKeeping(path string) (net.Listener, error) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	return l, nil
}
