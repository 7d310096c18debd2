package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"nixdaemon/daemon/config"
	"nixdaemon/daemon/supervisor"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker"
	"nixdaemon/worker/settings"
)

// Main is the program: it reads the configuration of the process, does what it
// says until signals tell it to end, which come through the channel, and gives
// the exit status.
func Main(signals chan os.Signal) int {
	control, listeners, err := supervisor.Inherited()
	if err != nil {
		fmt.Fprintf(os.Stderr, "error: %v\n", err)
		return 1
	}
	cfg, err := config.Load(config.Process())
	supervised := err == nil && cfg.Mode == config.ModeSocket && control == nil
	if !supervised { // the server says it
		for _, w := range cfg.Warnings {
			fmt.Fprintf(os.Stderr, "warning: %s\n", w)
		}
	}
	if err == nil {
		err = runMode(signals, cfg, control, listeners)
	}
	return exitStatus(err, cfg)
}

// exitStatus says what went wrong, unless the server has, and gives the exit status.
func exitStatus(err error, cfg *config.Config) int {
	var start *supervisor.StartError
	var usage *settings.UsageError
	switch {
	case err == nil || errors.Is(err, errToldToStop):
		return 0
	case errors.As(err, &start) && start.State.ExitCode() > 0:
		return start.State.ExitCode()
	}
	fmt.Fprintf(os.Stderr, "error: %v\n", err)
	if errors.As(err, &usage) {
		fmt.Fprintln(os.Stderr, cfg.UsageHint())
	}
	return 1
}

// errToldToStop is the cause when there is nothing to finish yet, or no more.
var errToldToStop = errors.New("told to stop")

func runMode(signals chan os.Signal, cfg *config.Config, control *supervisor.Control, listeners []net.Listener) error {
	switch cfg.Mode {
	case config.ModeVersion:
		_, err := fmt.Print(versionLine(cfg.VersionText(NixVersion)))
		return err
	case config.ModeHelp:
		return help(cfg.Command)
	}
	unix.Umask(0o022)
	program, err := programPath() // relative to where we are
	if err != nil {
		return err
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	log := newLog(cfg)
	if cfg.Mode == config.ModeSocket && control == nil {
		return supervise(signals, program, cfg, log)
	}
	files, err := raiseFileLimit()
	if err != nil {
		return err
	}
	if cfg.Mode == config.ModeStdio || cfg.Mode == config.ModeServe {
		ctx, cancel := context.WithCancelCause(context.Background())
		defer cancel(nil)
		go func() { // ends with the process
			<-signals
			cancel(errToldToStop)
		}()
		return runStdio(ctx, cfg)
	}
	return runServer(signals, cfg, control, listeners, log, defaultLimits(files))
}

// help shows the manual, as upstream does for "--help".
func help(command string) error {
	man := exec.Command("man", command)
	man.Stdin, man.Stdout, man.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := man.Run(); err != nil {
		_, err = fmt.Print(usage)
		return err
	}
	return nil
}

const usage = `Usage: nix-daemon [--daemon] [--stdio] [--version] [--help] [--check-installation]
                  [--option NAME VALUE] [--SETTING VALUE]

       nix-daemon status [--json] [--watch]
       nix-daemon log [--follow] DERIVATION
       nix-daemon cancel BUILD...

       nix-store --serve [--write] [--option NAME VALUE] [--SETTING VALUE]

Serves the Nix store on a socket, or on standard input and output; called as
nix-store to other machines that reach it as ssh://. Settings are those of nix.conf(5).
`

// runServer serves the sockets until the supervisor, or a signal, says that it
// is enough.
func runServer(signals <-chan os.Signal, cfg *config.Config, control *supervisor.Control, listeners []net.Listener, log zerolog.Logger, limits Limits) error {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	s := &Server{
		Policy: Policy{
			Allowed: cfg.Settings.AllowedUsers, Trusted: cfg.Settings.TrustedUsers,
			BuildUsersGroup: cfg.Settings.BuildUsersGroup,
		},
		Accounts: &SystemAccounts{},
		Trust:    forcedTrust(cfg.Trust),
		Log:      log,
		Limits:   limits.over(cfg.Settings.MaxConnections, cfg.Settings.MaxConnectionsPerUser, cfg.Settings.MaxRequestMemory),
		Drain:    time.Duration(cfg.Settings.DrainTimeout) * time.Second,
	}
	w, err := newWatcher(cfg, log, log)
	if err != nil {
		return err
	}
	defer w.close()
	w.Meter.Serve(s)
	s.Refused, s.Audit = w.refused, w.audit
	watch := new(observers)
	watch.add(w)
	if endpoint := cfg.Settings.TraceEndpoint; endpoint != "" {
		t, err := startTracer(endpoint, storepath.Dir(cfg.Store.StoreDir), log)
		if err != nil {
			return err
		}
		defer t.exporter.Close()
		watch.add(t)
	}
	seen := newSight(cfg, watch, w.audit, log)
	drain := make(chan struct{})
	defer obey(ctx, control, signals, s, sync.OnceFunc(func() { seen.board.Drain(); close(drain) }), func() { cancel(errToldToStop) })()
	opened := opening(control)
	open := func(ctx context.Context) (backend, error) {
		return assemble(ctx, cfg, control.Supervisor(), log, watch, paths(listeners))
	}
	known := func(b backend) {
		ask(w.Meter, b)
		seen.over(b)
	}
	openCtx, stopOpening := context.WithCancel(ctx)
	defer stopOpening()
	first := &attempt{done: make(chan struct{})}
	go first.open(openCtx, open) // it is waited for here, or by the backend
	begun := watch.recovery.begun()
	told := func() {}
	if control.TakesOver() { // who served until now goes on until we are ready
		begun, told = nil, watch.recovery.telling(tellEvery, func(text string) { log.Warn().Msg(text) })
	}
	var b backend
	select {
	case <-first.done:
		b, err = first.b, first.err
	case <-begun:
		b = startRecovering(&reopening{ctx: ctx, open: open, opened: known, log: log, cfg: cfg, tellEvery: tellEvery}, first, &watch.recovery, stopOpening)
	}
	told()
	opened()
	var unopened *unopenedError
	switch r, _ := b.(*reopening); {
	case r != nil:
		seen.over(r)
	case err == nil:
		known(b)
	case errors.As(err, &unopened) && !control.TakesOver():
		b = startReopening(ctx, open, known, err, log)
		seen.over(b)
	default: // also where a server goes on that has opened it
		return err
	}
	defer serveMetrics(cfg.Settings.MetricsListenAddress, &w.Registry, drain, log)()
	seen.mount("GET /metrics", &w.Registry)
	seen.open(s)
	control.Ready()
	defer telling(control, s, b)()
	s.Serve, s.Observer, s.Draining = answering(b.serve, cfg), watch, b.retire
	return errors.Join(s.Run(ctx, drain, listeners), seen.close(), b.close())
}

// paths are those of the listeners' sockets.
func paths(listeners []net.Listener) []string {
	var paths []string
	for _, l := range listeners {
		paths = append(paths, strings.TrimSuffix(l.Addr().String(), unpublished))
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
		return &unopenedError{error: err}
	}
	return worker.Serve(ctx, stream, worker.Options{
		Store: b.store, Builder: b.builder, Collector: b.collector, Substituter: b.subst, Roots: b.store.NewTempRoots(),
		RequireSigs: b.cfg.Store.RequireSigs, Keys: b.keys.trustedKeys, NixVersion: NixVersion, Settings: b.cfg.Settings,
		IDs: &b.ids, User: peer.User, Client: peer.Client, Trusted: peer.Trusted, Memory: peer.Memory, Greeted: peer.Greeted, Log: b.log,
		MakeRoom: b.auto.makeRoom, Observer: peer.Observer, Audit: peer.Audit, JSONLog: jsonLog(b.cfg.Settings.JSONLogPath),
	})
}
