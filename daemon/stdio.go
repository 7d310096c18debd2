package daemon

import (
	"context"
	"errors"
	"io"
	"os"

	"github.com/rs/zerolog"

	"nixdaemon/daemon/config"
	"nixdaemon/protocol"
	"nixdaemon/protocol/client"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker"
	"nixdaemon/worker/settings"
)

// stdio is standard input and output as one stream.
type stdio struct {
	io.Reader
	io.Writer
}

// runStdio serves one client on standard input and output, who is trusted
// unless the command line says otherwise: whoever started us could as well
// have opened the store.
func runStdio(ctx context.Context, cfg *config.Config) error {
	log := newStdioLog(cfg.Settings)
	trail, err := openTrail(cfg.Settings.AuditLogFile, zerolog.Nop())
	if err != nil {
		return err
	}
	defer trail.close()
	b, err := assemble(ctx, throughDaemon(ctx, cfg), 0, log, new(observers), nil)
	if err != nil {
		return err
	}
	peer := Peer{Identity: Identity{User: ownName()}, Trusted: cfg.Trust != config.TrustNone}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { os.Stdin.Close() })
	defer stop()
	unwatch, err := watchReader(os.Stdout, cancel)
	if err != nil {
		return errors.Join(err, b.close())
	}
	defer unwatch()
	peer.Audit = func(p worker.Privilege) { trail.note(peer, p) }
	stream := stdio{os.Stdin, os.Stdout}
	if cfg.Mode == config.ModeServe {
		err = b.converse(ctx, stream, peer, cfg.Write)
	} else {
		err = b.serve(ctx, stream, peer)
	}
	if ctx.Err() != nil {
		err = nil // nobody is there to be told
	}
	return errors.Join(err, b.close())
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
	c := client.New(client.Options{Dial: client.Unix(cfg.SocketPath), Dir: storepath.Dir(cfg.Store.StoreDir), MaxConns: 1})
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
