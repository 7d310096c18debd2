package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"

	"github.com/rs/zerolog"

	"nixdaemon/protocol"
	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/wire"
	"nixdaemon/worker/session"
	"nixdaemon/worker/settings"
)

// Options is what a connection is served with. Every field must be set unless
// it says otherwise.
type Options struct {
	Store     Store
	Builder   Builder
	Collector Collector
	// Substituter answers what could be substituted; nil: nothing could be.
	Substituter Substituter
	// Roots are the connection's temporary roots, which Serve closes.
	Roots TempRoots
	// RequireSigs refuses input-addressed paths without a trusted signature;
	// it is the store's own setting, which no client changes.
	RequireSigs bool
	// Keys gives the keys that a connection's settings trust.
	Keys func(*settings.Settings) pathinfo.Keys
	// NixVersion is the release that we tell clients we are.
	NixVersion string
	// Settings are the daemon's; a client's wishes make a copy.
	Settings *settings.Settings
	// IDs numbers activities.
	IDs *activity.IDs
	// User and Client tell who asks; see session.Session.
	User   string
	Client uint64
	// Trusted clients may do what lets one become root.
	Trusted bool
	// Memory is what the connection shares with others for its requests; nil:
	// each request has its own bound and no other.
	Memory wire.Ledger
	// MakeRoom waits until there is space for what a client is about to add, as
	// far as its settings want that; nil: nobody makes any.
	MakeRoom func(ctx context.Context, sess *session.Session) error
	// Greeted is the client if it was greeted beforehand, by [Greet]; nil if not.
	Greeted *Greeting
	// Nested is set when the client is a builder, of whose build Store and
	// Builder show it no more than it may see; nil for ordinary clients.
	Nested Nested
	// Observer is told what the connection does; nil if nobody wants to know.
	Observer Observer
	// Audit is told of what is privileged, on the connection's goroutine, when
	// it has been done or refused and before the client has its answer; nil:
	// nobody is.
	Audit func(Privilege)
	// JSONLog opens where everything that the client may see is written as
	// well, which is closed with the connection; nil: nowhere.
	JSONLog func() (io.WriteCloser, error)
	// Log is the daemon's own log.
	Log zerolog.Logger
}

// idler is a stream that wants to know when a request is answered, so that its
// owner can tell idle connections from busy ones.
type idler interface{ Idle() }

// greeter is a stream that wants to know when the client has said who it is,
// so that its owner can hang up on those that never do.
type greeter interface{ Greeted() }

// conn is one connection, worked on by one goroutine.
type conn struct {
	o      Options
	in     *protocol.Reader
	out    *protocol.Writer // the tunnel's while work goes on
	tunnel *tunnel
	// sess is replaced, not changed: builds may still look at the old one.
	sess *session.Session
	// forward is the store if that is another daemon's, else nil.
	forward Forwarder
	// fatal is set when the stream is out of step: the connection ends after
	// what has been written.
	fatal error
	// told is the error that the client was told last.
	told error
	idle func()
}

// Serve answers a client's requests until it hangs up or the stream cannot be
// followed any more. The end of the context cancels the request under way and
// ends the connection after it; a read that waits for the client ends only
// with the stream, which its owner closes. The error says why the connection
// ended when that was not the client's doing: one that goes away, or has been
// told that its request makes no sense, gives nil.
func Serve(ctx context.Context, stream io.ReadWriter, o Options) (err error) {
	defer func() {
		if p := recover(); p != nil {
			logPanic(&o, p).Msg("connection ended by a panic")
			err = fmt.Errorf("serve connection: panic: %v", p)
		}
	}()
	defer func() { err = errors.Join(err, o.Roots.Close()) }()
	c, err := greet(ctx, stream, o)
	if err != nil {
		return orderly(err)
	}
	defer c.in.Release()
	defer c.tunnel.close()
	c.sess = &session.Session{
		User: o.User, Client: o.Client, Trusted: o.Trusted,
		Settings: o.Settings, Log: c.log(), Roots: o.Roots,
	}
	if c.forward != nil {
		c.forward.Follow(c.sess)
	}
	return orderly(c.serve(ctx))
}

// greet logs the client in.
func greet(ctx context.Context, stream io.ReadWriter, o Options) (*conn, error) {
	forward, _ := o.Store.(Forwarder)
	in, out, err := login(ctx, stream, &o, forward)
	if err != nil {
		return nil, err
	}
	if o.Memory != nil {
		in.Share(o.Memory)
	}
	in.Features = DerivationFeatures(o.Settings.ExperimentalFeatures)
	c := &conn{o: o, in: in, out: out, forward: forward, idle: func() {}}
	if i, ok := stream.(idler); ok {
		c.idle = i.Idle
	}
	c.tunnel = newTunnel(out, activity.Level(o.Settings.Verbosity))
	c.logJSON()
	out.Frame(protocol.FrameLast)
	if err := out.Flush(); err != nil {
		c.tunnel.close()
		return nil, err
	}
	c.rest()
	return c, nil
}

// login answers the greeting, unless that was done.
func login(ctx context.Context, stream io.ReadWriter, o *Options, forward Forwarder) (*protocol.Reader, *protocol.Writer, error) {
	if g := o.Greeted; g != nil {
		return g.in, g.out, nil
	}
	in, out, err := protocol.ServerHandshake(wire.NewReader(stream), wire.NewWriter(stream), o.Store.Dir(),
		offered(o.Nested), protocol.ServerInfo{NixVersion: o.NixVersion, Trust: trust(ctx, o.Trusted, forward)})
	if g, ok := stream.(greeter); ok && err == nil {
		g.Greeted()
	}
	return in, out, err
}

// trust is the client's standing. Who may do everything here may do no more
// with another daemon's store than we may (daemon.cc, processConnection).
func trust(ctx context.Context, trusted bool, forward Forwarder) protocol.Trust {
	switch {
	case !trusted:
		return protocol.NotTrusted
	case forward != nil:
		return forward.Trust(ctx)
	}
	return protocol.Trusted
}

// DerivationFeatures are the experimental features that decide what derivations
// may say, as package derivation names them.
func DerivationFeatures(on settings.FeatureSet) derivation.Features {
	return derivation.Features{
		CADerivations:      on.Enabled(settings.CADerivations),
		DynamicDerivations: on.Enabled(settings.DynamicDerivations),
		ImpureDerivations:  on.Enabled(settings.ImpureDerivations),
		GitHashing:         on.Enabled(settings.GitHashing),
		BLAKE3Hashes:       on.Enabled(settings.BLAKE3Hashes),
	}
}

func logPanic(o *Options, p any) *zerolog.Event {
	return o.Log.Error().Str("user", o.User).Str("panic", fmt.Sprint(p)).Bytes("stack", debug.Stack())
}

// rest tells the stream's owner that the client waits for nothing. A request
// that is here already, or a part of one, is something to wait for.
func (c *conn) rest() {
	if c.in.Buffered() == 0 {
		c.idle()
	}
}

func (c *conn) serve(ctx context.Context) error {
	for {
		c.in.StartRequest()
		op, err := c.in.Op()
		if err != nil {
			return c.noOp(err)
		}
		c.o.Log.Debug().Uint64("op", uint64(op)).Msg("received daemon op")
		c.tunnel.debugOp(op)
		if err := c.observed(op, func() error { return c.perform(ctx, op) }); err != nil {
			return c.giveUp(unexpected(err))
		}
		if err := c.out.Flush(); err != nil {
			return err
		}
		if c.fatal != nil {
			return c.brokenOff()
		}
		c.rest()
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}

// perform answers one request. Its error means that the connection must end.
func (c *conn) perform(ctx context.Context, op protocol.Op) (err error) {
	defer func() {
		if p := recover(); p != nil {
			logPanic(&c.o, p).Stringer("op", op).Msg("request ended by a panic")
			err = fmt.Errorf("internal error in %s", op)
		}
	}()
	handle, err := c.handler(op)
	if err != nil {
		return err
	}
	return handle(c, ctx)
}

// noOp ends a connection on which no request follows. Only a number that is
// too large to be one is worth a word.
func (c *conn) noOp(err error) error {
	var malformed *wire.Error
	if !errors.As(err, &malformed) {
		return err
	}
	c.sendError(err)
	return orderly(c.out.Flush())
}

// giveUp tells the client why its connection ends. Upstream sends such an
// error twice, once from each of two handlers (daemon.cc, processConnection);
// clients read the first. A client that has only stopped sending reads it too.
func (c *conn) giveUp(err error) error {
	if isGone(err) {
		return nil
	}
	c.tunnel.stopWork()
	c.sendError(err)
	c.sendError(err)
	c.logEnd(err)
	return orderly(c.out.Flush())
}

// brokenOff ends a connection whose client has been told why, if it could be.
func (c *conn) brokenOff() error {
	var malformed *wire.Error
	if errors.As(c.fatal, &malformed) {
		c.logEnd(c.fatal)
		return nil
	}
	return c.fatal
}

func (c *conn) logEnd(err error) {
	c.o.Log.Info().Str("user", c.o.User).Err(err).Msg("connection ended by a request that cannot be followed")
}

// work runs f while log frames may be sent, ends that with "last" or "error",
// and writes the reply after "last". The result is nil: failed work leaves the
// connection as it was, unless f has set c.fatal.
func (c *conn) work(f func() error, reply func()) error {
	c.tunnel.startWork()
	err := f()
	c.tunnel.stopWork()
	if err != nil {
		c.sendError(err)
		return nil
	}
	c.out.Frame(protocol.FrameLast)
	if reply != nil {
		reply()
	}
	return nil
}

func (c *conn) sendError(err error) {
	c.told = err
	e := wireError(err)
	if !c.out.Version.AtLeast(26) {
		e = &protocol.Error{Message: wholeText(e), Status: e.Status}
	}
	c.out.Error(e)
}

// one is the reply of requests that have nothing to tell.
func (c *conn) one() { c.out.Uint64(1) }
