package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/rs/zerolog"

	"nixdaemon/daemon/config"
	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/client"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker"
	"nixdaemon/worker/forward"
	"nixdaemon/worker/remote/peer"
	"nixdaemon/worker/remote/ssh"
	"nixdaemon/worker/serving"
	"nixdaemon/worker/settings"
)

// forwarding serves a store that is another daemon's.
type forwarding struct {
	cfg     *config.Config
	log     zerolog.Logger
	options forward.Options
	master  *ssh.Master // nil for a daemon of this machine
	keys    keyring
	ids     activity.IDs
	errands *errands
}

// dialer opens a connection to another daemon.
type dialer func(ctx context.Context) (io.ReadWriteCloser, error)

// newForwarding chooses how to reach the daemon by the scheme of its store
// reference. own are the paths of our sockets.
func newForwarding(cfg *config.Config, log zerolog.Logger, own []string) (*forwarding, error) {
	f := &forwarding{cfg: cfg, log: log, options: forward.Options{
		Dir: storepath.Dir(cfg.Store.StoreDir), Settings: cfg.Settings,
	}}
	switch {
	case cfg.Store.SocketPath != "":
		f.options.Name = name(cfg)
		f.options.Dial = notOurselves(cfg.Store.SocketPath, own, client.Unix(cfg.Store.SocketPath))
	case cfg.Store.Reference.Scheme == "ssh-ng", cfg.Store.Reference.Scheme == "mounted-ssh-ng":
		if err := f.dialSSH(); err != nil {
			return nil, err
		}
	default:
		return nil, fmt.Errorf("cannot serve store '%s': only local stores and those of other daemons can be served", cfg.Store.Reference)
	}
	f.errands = newErrands(f.options.Dir, settings.ShownReference(f.options.Name), log)
	return f, nil
}

// dialSSH prepares to reach a daemon of another machine. It keeps its own
// settings, whatever our clients want (libstore/ssh-store.cc, setOptions).
func (f *forwarding) dialSSH() error {
	c, err := peer.Parse(f.cfg.Store.Reference, peer.Defaults{
		Dir: storepath.Dir(f.cfg.Store.StoreDir), SystemFeatures: f.cfg.Settings.SystemFeatures,
	})
	if err != nil {
		return err
	}
	f.master, err = c.Master(nil, f.cfg.Settings.Verbosity >= settings.LevelChatty, nil)
	if err != nil {
		return err
	}
	f.options.Name, f.options.Dir, f.options.Elsewhere, f.options.Mounted = c.URI, c.Dir, true, c.Mounted
	f.options.Dial = peer.Dialer(f.master, c.Command())
	return nil
}

// name is what upstream calls the store in messages (libstore/uds-remote-store.cc).
func name(cfg *config.Config) string {
	if cfg.Store.SocketPath == cfg.SocketPath {
		return "daemon"
	}
	return "unix://" + cfg.Store.SocketPath
}

// errOurselves ends what would go round until we are out of descriptors.
var errOurselves = errors.New("it belongs to this daemon itself")

// notOurselves refuses to dial a socket of ours.
func notOurselves(path string, own []string, dial dialer) dialer {
	return func(ctx context.Context) (io.ReadWriteCloser, error) {
		if target, err := os.Stat(path); err == nil {
			for _, p := range own {
				if info, err := os.Stat(p); err == nil && os.SameFile(info, target) {
					return nil, fmt.Errorf("cannot connect to socket at '%s': %w", path, errOurselves)
				}
			}
		}
		return dial(ctx)
	}
}

func (f *forwarding) serve(ctx context.Context, stream io.ReadWriter, peer Peer) error {
	b := forward.New(f.options)
	return worker.Serve(ctx, stream, worker.Options{
		Store: b, Builder: f.errands.noting(b), Collector: b, Substituter: b, Roots: b.Roots(),
		RequireSigs: f.cfg.Settings.RequireSigs, Keys: f.keys.trustedKeys, NixVersion: NixVersion,
		Settings: f.cfg.Settings, IDs: &f.ids, User: peer.User, Client: peer.Client, Trusted: peer.Trusted, Memory: peer.Memory, Log: f.log,
		Observer: peer.Observer, Audit: peer.Audit,
		JSONLog: jsonLog(f.cfg.Settings.JSONLogPath),
	})
}

// building is 0: the other daemon builds.
func (f *forwarding) building() []string { return nil }

// retire has nothing to give back: each connection to the other daemon ends with the client that it is for.
func (f *forwarding) retire() {}

// converse answers over the serve protocol.
func (f *forwarding) converse(ctx context.Context, stream io.ReadWriter, peer Peer, write bool) error {
	b := forward.New(f.options)
	return conversation(ctx, stream, f.cfg, serving.Options{
		Store: b, Builder: f.errands.noting(b), Roots: b.Roots(), Write: write, User: peer.User, Client: peer.Client, Observer: peer.Observer,
	})
}

// close ends the connection that all share; each connection closes its own.
func (f *forwarding) close() error {
	if f.master == nil {
		return nil
	}
	return f.master.Close()
}
