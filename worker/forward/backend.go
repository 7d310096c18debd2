package forward

import (
	"context"
	"io"

	"nixdaemon/protocol"
	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/client"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker"
	"nixdaemon/worker/session"
	"nixdaemon/worker/settings"
)

// Options says which daemon to forward to.
type Options struct {
	// Dial connects to the daemon. It must be set.
	Dial func(ctx context.Context) (io.ReadWriteCloser, error)
	// Name is the store reference by which errors call the daemon.
	Name string
	// Dir is the store directory; "" is storepath.DefaultDir.
	Dir storepath.Dir
	// Settings are our own, which a client's differ from. They must be set.
	Settings *settings.Settings
	// Elsewhere says that the daemon is on another machine. Settings are kept to
	// ourselves then, as upstream does, and its files are not to be had.
	Elsewhere bool
	// Mounted says that the files of a daemon on another machine are here, too, so that links can be roots there.
	Mounted bool
	// Log receives what the daemon says before Follow was called; nil drops it.
	Log activity.Sink
	// Version is what is offered; the zero value is protocol.ClientVersion.
	Version protocol.Version
}

// Backend is another daemon's store, for one connection of ours. It is used
// for one request at a time, as a connection is.
type Backend struct {
	o      Options
	client *client.Client
	// byHash does not offer to key realisations by derivation path: it is for
	// clients that do not know that key. It is rarely used.
	byHash *client.Client
	log    activity.Relay // its destination is known only after the login
}

var (
	_ worker.Store       = (*Backend)(nil)
	_ worker.Forwarder   = (*Backend)(nil)
	_ worker.Builder     = (*Backend)(nil)
	_ worker.Collector   = (*Backend)(nil)
	_ worker.Substituter = (*Backend)(nil)
)

// New makes the backend of one connection. It connects when it is first asked
// something, and sends no settings before Follow was called. Close it.
func New(o Options) *Backend {
	if o.Version.Number == 0 {
		o.Version = protocol.ClientVersion()
	}
	b := &Backend{o: o}
	b.log.Turn(o.Log)
	b.client = b.connect(o.Version)
	b.byHash = b.connect(protocol.Version{Number: o.Version.Number})
	return b
}

func (b *Backend) connect(v protocol.Version) *client.Client {
	return client.New(client.Options{
		Dial: b.o.Dial, Dir: b.o.Dir, Version: v, MaxConns: 1, Log: &b.log, Name: b.o.Name,
		Features: derivation.AllFeatures(),
	})
}

// Close hangs up, which drops the temporary roots.
func (b *Backend) Close() error {
	err := b.client.Close()
	if e := b.byHash.Close(); err == nil {
		err = e
	}
	return err
}

// Dir is the store directory.
func (b *Backend) Dir() storepath.Dir { return b.client.Dir() }

// Trust is what the other daemon said of us; unknown if it said nothing or
// cannot be reached, which the first request will tell.
func (b *Backend) Trust(ctx context.Context) protocol.Trust {
	info, err := b.client.Server(ctx)
	if err != nil {
		return protocol.TrustUnknown
	}
	return info.Trust
}

// Follow takes on the settings and the log of our client's connection. The
// settings are sent with the next request.
func (b *Backend) Follow(sess *session.Session) {
	b.log.Turn(sess.Log)
	b.configure(sess.Settings)
}

func (b *Backend) configure(s *settings.Settings) {
	if b.o.Elsewhere {
		return
	}
	options := clientOptions(s, b.o.Settings)
	b.client.SetSettings(options)
	b.byHash.SetSettings(options)
}
