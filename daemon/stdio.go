package daemon

import (
	"context"
	"errors"
	"io"
	"os"
	"time"

	"github.com/coreos/go-systemd/v22/journal"
	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"nixdaemon/daemon/config"
	"nixdaemon/daemon/status/daemonlog"
	"nixdaemon/protocol"
	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/client"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker"
	"nixdaemon/worker/settings"
)

// runStdio serves one client on standard input and output, who is trusted
// unless the command line says otherwise: whoever started us could as well
// have opened the store.
func runStdio(ctx context.Context, cfg *config.Config) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := newStdio(ctx, unix.Stdin, unix.Stdout)
	if err != nil {
		return err
	}
	defer stream.close()
	unwatch, err := watchReader(unix.Stdout, cancel)
	if err != nil {
		return err
	}
	defer unwatch()
	log := newStdioLog(cfg.Settings)
	through := throughDaemon(ctx, cfg)
	events, audit := stdioEvents(cfg.Settings, log)
	w, err := newWatcher(cfg, events, audit)
	if err != nil {
		return err
	}
	defer w.close()
	watch := new(observers)
	if through == cfg { // else the daemon has an eye on us
		watch.add(w)
	}
	b, err := assembleTelling(ctx, through, log, watch)
	if err != nil {
		return err
	}
	peer := Peer{Identity: Identity{User: ownName(), PID: os.Getppid()}, Trusted: cfg.Trust != config.TrustNone, Client: 1}
	peer.Audit = func(p worker.Privilege) { w.audit(peer, p) }
	seen := watch.Connected(Connection{Peer: peer, Since: time.Now()})
	peer.Observer = seen
	if cfg.Mode == config.ModeServe {
		err = b.converse(ctx, stream, peer, cfg.Write)
	} else {
		err = b.serve(ctx, stream, peer)
	}
	if ctx.Err() != nil {
		err = nil // nobody is there to be told
	}
	seen.Disconnected(err)
	return errors.Join(err, b.close())
}

// assembleTelling is assemble for somebody who has not been greeted yet, but sees our standard error: ssh shows it. There
// it says how far the verification is, if there is one.
func assembleTelling(ctx context.Context, cfg *config.Config, log zerolog.Logger, watch *observers) (backend, error) {
	plain := &plainLog{out: os.Stderr, level: activity.Warn}
	defer watch.recovery.telling(tellEvery, func(text string) { plain.Message(activity.Warn, text) })()
	b, err := assemble(ctx, cfg, 0, log, watch, nil)
	if f, ok := b.(*forwarding); ok {
		f.options.Log = plain
	}
	return b, err
}

// stdioEvents are the logs for what a client on standard input does, and for
// what of that is privileged. Its user sees our standard error, so they are the
// system's journal if we are root; elsewhere the former is for those alone who
// say -v, and the latter is the file of audit-log-file.
func stdioEvents(s *settings.Settings, log zerolog.Logger) (events, audit zerolog.Logger) {
	if os.Geteuid() != 0 || !journal.Enabled() {
		return log, zerolog.Nop()
	}
	o := daemonlog.Stderr(daemonlog.Journal, levelOf(s))
	o.Out = io.Discard // what the journal does not take
	events = daemonlog.New(o)
	return events, events
}

// ownName is the user that we run as.
func ownName() string {
	if uid := os.Getuid(); uid != 0 {
		return decimal(uint32(uid))
	}
	return "root"
}

// throughDaemon goes through the daemon of this machine where one runs that
// lets us do everything, instead of opening the store beside it: it knows what
// all clients want, and so builds nothing twice nor more at once than it
// should. That is so only where nobody has said which store to open.
func throughDaemon(ctx context.Context, cfg *config.Config) *config.Config {
	if cfg.Store.Kind != config.StoreLocal || cfg.Store.Reference.Kind != settings.ReferenceAuto || len(cfg.Store.Reference.Params) > 0 {
		return cfg
	}
	c := client.New(client.Options{Dial: client.Unix(cfg.SocketPath), Dir: storepath.Dir(cfg.Store.StoreDir), MaxConns: 1,
		Log: &plainLog{out: os.Stderr, level: activity.Warn}}) // it may have a store to verify first
	defer c.Close()
	info, err := c.Server(ctx)
	if err != nil || info.Trust != protocol.Trusted {
		return cfg
	}
	through := *cfg
	through.Store.Kind, through.Store.SocketPath = config.StoreRemote, cfg.SocketPath
	through.Store.Reference = settings.StoreReference{Kind: settings.ReferenceDaemon, Scheme: "unix"}
	return &through
}
