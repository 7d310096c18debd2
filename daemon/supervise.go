package daemon

import (
	"context"
	"errors"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"nixdaemon/daemon/config"
	"nixdaemon/daemon/supervisor"
)

// supervise is the process that the service manager knows: it keeps a server
// running behind the sockets.
func supervise(signals chan os.Signal, program string, cfg *config.Config, log zerolog.Logger) error {
	inherited, err := supervisor.Inherit()
	if err != nil {
		return err
	}
	o := supervisor.Options{
		Program: program, Args: os.Args, Notify: notifier(log), Log: log,
		// Nobody is left to serve when process 1 has ended.
		Stay:      os.Getpid() == 1,
		OwnMounts: needsOwnMounts(cfg.Store.RealDir),
		Deafen:    func() (hear func()) { return deafen(signals) },
	}
	if o.Watchdog, err = daemon.SdWatchdogEnabled(false); err != nil {
		log.Warn().Err(err).Msg("the service manager's watchdog")
	}
	if inherited != nil {
		o.Listeners = inherited.Listeners
	} else if o.Listeners, o.Publish, err = listeners(cfg); err != nil {
		return err
	}
	// Only now: the service manager's sockets are not for servers, builders and hooks.
	o.Env = serverEnvironment()
	s := supervisor.New(o)
	if inherited != nil {
		if err := s.Adopt(inherited); err != nil {
			return err
		}
	}
	err = s.Run(signals)
	// What is installed as a service may have no ExecStopPost= that does it.
	if err := releaseCgroups(); err != nil {
		log.Warn().Err(err).Msg("leave the service's cgroup to the next daemon")
	}
	return err
}

// deafen ignores SIGHUP, which ends programs that do not listen for it.
func deafen(signals chan<- os.Signal) (hear func()) {
	signal.Ignore(syscall.SIGHUP)
	return func() { signal.Notify(signals, syscall.SIGHUP) }
}

// serverEnvironment is ours without what speaks of the service manager.
func serverEnvironment() []string {
	var env []string
	for _, e := range os.Environ() {
		name, _, _ := strings.Cut(e, "=")
		switch name {
		case "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID":
		default:
			env = append(env, e)
		}
	}
	return env
}

// listeners gives descriptors of the sockets that the service manager passed,
// or of our own, and what has clients find the latter; nil for the former,
// where clients connect and wait.
func listeners(cfg *config.Config) (fds []int, publish func() error, err error) {
	ls, err := Inherited()
	if err != nil {
		return nil, nil, err
	}
	if len(ls) == 0 {
		if l := fromStandardInput(); l != nil {
			ls = []net.Listener{l}
		}
	}
	if len(ls) == 0 {
		l, p, err := Listen(cfg.SocketPath)
		if err != nil {
			return nil, nil, err
		}
		ls, publish = []net.Listener{l}, p
	}
	for _, l := range ls {
		fd, err := descriptor(l)
		if err := errors.Join(err, l.Close()); err != nil {
			return nil, nil, err
		}
		fds = append(fds, fd)
	}
	return fds, publish, nil
}

// descriptor copies a listener's, which Go's runtime knows nothing of then.
func descriptor(l net.Listener) (int, error) {
	raw, err := l.(syscall.Conn).SyscallConn()
	if err != nil {
		return 0, err
	}
	var fd int
	var dupErr error
	err = raw.Control(func(of uintptr) { fd, dupErr = unix.FcntlInt(of, unix.F_DUPFD_CLOEXEC, firstInherited) })
	return fd, errors.Join(err, os.NewSyscallError("fcntl", dupErr))
}

// obey carries out what the supervisor orders, and signals that were sent to
// the server itself: the first to drain, the second to end. A server whose supervisor has left drains already, so it ends
// at the first: that is how systemd asks whatever is left for its end when the machine goes down, and it waits a minute
// and a half for who does not comply (systemd-shutdown, DefaultTimeoutStopSec=).
func obey(ctx context.Context, control *supervisor.Control, signals <-chan os.Signal, s *Server, drain func(), cancel context.CancelFunc) (stop func()) {
	ctx, done := context.WithCancel(ctx)
	finished := make(chan struct{}, 2)
	go func() {
		control.Obey(supervisor.Orders{
			Drain:  func() int { drain(); return s.Connections() },
			Cancel: cancel,
			Alive:  func() {},
		})
		finished <- struct{}{}
	}()
	go func() {
		defer func() { finished <- struct{}{} }()
		for told := 0; ; {
			select {
			case <-ctx.Done():
				return
			case sig := <-signals:
				if sig == syscall.SIGHUP {
					continue // the supervisor's affair
				}
				if drain(); told > 0 || control.Orphaned() {
					cancel()
				}
				told++
			}
		}
	}()
	return func() {
		done()
		control.Close()
		<-finished
		<-finished
	}
}
