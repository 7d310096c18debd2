package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"nixdaemon/daemon/config"
	"nixdaemon/worker"
	"nixdaemon/worker/settings"
)

// Main is the program: it reads the configuration of the process, does what it
// says until the context ends, and gives the exit status.
func Main(ctx context.Context) int {
	cfg, err := config.Load(config.Process())
	for _, w := range cfg.Warnings {
		fmt.Fprintf(os.Stderr, "warning: %s\n", w)
	}
	if err == nil {
		err = runMode(ctx, cfg)
	}
	if ctx.Err() != nil && errors.Is(err, context.Cause(ctx)) {
		err = nil // told to stop before there was anything to stop
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "error: %v\n", err)
		var usage *settings.UsageError
		if errors.As(err, &usage) {
			fmt.Fprintln(os.Stderr, cfg.UsageHint())
		}
		return 1
	}
	return 0
}

func runMode(ctx context.Context, cfg *config.Config) error {
	switch cfg.Mode {
	case config.ModeVersion:
		_, err := fmt.Print(versionLine(cfg.VersionText(NixVersion)))
		return err
	case config.ModeHelp:
		return help()
	}
	unix.Umask(0o022)
	if err := os.Chdir("/"); err != nil {
		return err
	}
	files, err := raiseFileLimit()
	if err != nil {
		return err
	}
	log := newLog(os.Stderr, cfg.Settings.Verbosity)
	if cfg.Mode == config.ModeStdio {
		return runStdio(ctx, cfg, log)
	}
	return runSocket(ctx, cfg, log, defaultLimits(files))
}

// help shows the manual, as upstream does for "--help".
func help() error {
	man := exec.Command("man", "nix-daemon")
	man.Stdin, man.Stdout, man.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := man.Run(); err != nil {
		_, err = fmt.Print(usage)
		return err
	}
	return nil
}

const usage = `Usage: nix-daemon [--daemon] [--stdio] [--version] [--help]
                  [--option NAME VALUE] [--SETTING VALUE]

Serves the Nix store on a socket, or on standard input and output.
Settings are those of nix.conf(5).
`

// runSocket listens and serves until the context ends.
func runSocket(ctx context.Context, cfg *config.Config, log zerolog.Logger, limits Limits) error {
	listeners, err := Inherited()
	if err != nil {
		return err
	}
	// The socket first: clients may connect, and wait, while the store opens.
	if len(listeners) == 0 {
		l, err := Listen(cfg.SocketPath)
		if err != nil {
			return err
		}
		listeners = []net.Listener{l}
	}
	manager := notifier{log, extendEvery}
	opened := manager.opening(ctx)
	b, err := assemble(ctx, cfg, log, paths(listeners))
	opened()
	if err != nil {
		return err
	}
	manager.ready()
	defer context.AfterFunc(ctx, manager.stopping)()
	s := &Server{
		Policy: Policy{
			Allowed: cfg.Settings.AllowedUsers, Trusted: cfg.Settings.TrustedUsers,
			BuildUsersGroup: cfg.Settings.BuildUsersGroup,
		},
		Accounts: &SystemAccounts{},
		Trust:    forcedTrust(cfg.Trust),
		Serve:    b.serve,
		Log:      log,
		Limits:   limits.over(cfg.Settings.MaxConnections, cfg.Settings.MaxConnectionsPerUser, cfg.Settings.MaxRequestMemory),
	}
	return errors.Join(s.Run(ctx, listeners), b.close())
}

// paths are those of the listeners' sockets.
func paths(listeners []net.Listener) []string {
	var paths []string
	for _, l := range listeners {
		paths = append(paths, l.Addr().String())
	}
	return paths
}

func forcedTrust(t config.Trust) *bool {
	if t == config.TrustByPeer {
		return nil
	}
	trusted := t == config.TrustAll
	return &trusted
}

// stdio is standard input and output as one stream.
type stdio struct {
	io.Reader
	io.Writer
}

// runStdio serves one client on standard input and output, who is trusted
// unless the command line says otherwise: whoever started us could as well
// have opened the store.
func runStdio(ctx context.Context, cfg *config.Config, log zerolog.Logger) error {
	b, err := assemble(ctx, cfg, log, nil)
	if err != nil {
		return err
	}
	peer := Peer{Identity: Identity{User: "root"}, Trusted: cfg.Trust != config.TrustNone}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { os.Stdin.Close() })
	defer stop()
	err = b.serve(ctx, stdio{os.Stdin, os.Stdout}, peer)
	return errors.Join(err, b.close())
}

// raiseFileLimit lifts the soft limit on open files to the hard one and gives
// that.
func raiseFileLimit() (uint64, error) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 0, os.NewSyscallError("getrlimit", err)
	}
	limit.Cur = limit.Max
	return uint64(limit.Max), os.NewSyscallError("setrlimit", unix.Setrlimit(unix.RLIMIT_NOFILE, &limit))
}

// serve serves a connection.
func (b *local) serve(ctx context.Context, stream io.ReadWriter, peer Peer) error {
	if err := b.store.Refresh(ctx); err != nil {
		return err
	}
	return worker.Serve(ctx, stream, worker.Options{
		Store: b.store, Builder: b.builder, Collector: b.collector, Substituter: b.subst, Roots: b.store.NewTempRoots(),
		RequireSigs: b.cfg.Store.RequireSigs, Keys: b.keys.trustedKeys, NixVersion: NixVersion, Settings: b.cfg.Settings,
		IDs: &b.ids, User: peer.User, Client: peer.Client, Trusted: peer.Trusted, Memory: peer.Memory, Log: b.log,
		MakeRoom: b.auto.makeRoom,
	})
}
