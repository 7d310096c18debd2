package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"golang.org/x/sys/unix"

	"nixdaemon/protocol"
	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/wire"
)

// Conn is one connection, for one goroutine at a time.
type Conn struct {
	stream io.ReadWriteCloser
	in     *protocol.Reader
	out    *protocol.Writer
	info   protocol.ServerInfo
	log    activity.Sink
	// heard is true once the daemon said something in the current call.
	heard bool
	// broken is true when the stream is out of step.
	broken bool
	// spent is true once the current call has taken some of its data.
	spent bool
	// pushed receives what the current call's daemon writes; nil for nothing.
	pushed io.Writer
	// settings are those sent last; nil for none.
	settings *protocol.ClientOptions
	opened   time.Time
}

// ErrDisconnected says that a daemon hung up when it owed an answer
// (libstore/remote-store.cc, initConnection).
var ErrDisconnected = errors.New("Nix daemon disconnected unexpectedly (maybe it crashed?)")

// Open connects, logs in and sends the settings.
func Open(ctx context.Context, o Options) (*Conn, error) {
	o = New(o).o
	stream, err := o.Dial(ctx)
	if err != nil {
		return nil, err
	}
	c := &Conn{stream: stream, log: o.Log, opened: time.Now()}
	err = c.run(ctx, func(*Conn) error { return c.login(o) })
	if err != nil {
		stream.Close()
		return nil, o.loginError(ctx, err)
	}
	return c, nil
}

// loginError hides what kind of error it is: a refusal of the login is not one
// of the request that wanted a connection.
func (o *Options) loginError(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil || o.Name == "":
		return fmt.Errorf("log in to daemon: %w", err)
	}
	return fmt.Errorf("cannot open connection to remote store '%s': error: %v", o.Name, err)
}

func (c *Conn) login(o Options) error {
	greeting := protocol.NewGreeting(c.stream)
	in, out := wire.NewReader(greeting), wire.NewWriter(c.stream)
	var err error
	if c.in, c.out, c.info, err = protocol.ClientHandshake(in, out, o.Dir, o.Version); err != nil {
		if text, junk := greeting.Junk(err); junk {
			return fmt.Errorf("protocol mismatch, got '%s'", text)
		}
		return c.lost(err)
	}
	greeting.Done()
	c.in.Features = o.Features
	if err := c.listen(nil); err != nil {
		return err
	}
	return c.configure(o.Settings)
}

// configure sends the settings unless they are those sent last.
func (c *Conn) configure(s *protocol.ClientOptions) error {
	if s == c.settings || s == nil || c.in.Version.Has(protocol.FeatureDisableSetOptions) {
		return nil
	}
	err := c.Call(protocol.OpSetOptions, func(w *protocol.Writer) { w.Options(*s) }, nil)
	if err == nil {
		c.settings, c.heard = s, false
	}
	return err
}

// lost marks the stream as out of step and says why.
func (c *Conn) lost(err error) error {
	c.broken = true
	var own *dataError
	if errors.As(err, &own) {
		return own.err
	}
	for _, gone := range []error{io.EOF, io.ErrUnexpectedEOF, io.ErrClosedPipe, net.ErrClosed, unix.EPIPE, unix.ECONNRESET} {
		if errors.Is(err, gone) {
			return ErrDisconnected
		}
	}
	return err
}

// Close hangs up.
func (c *Conn) Close() error { return c.stream.Close() }

// Version is what was negotiated.
func (c *Conn) Version() protocol.Version { return c.in.Version }

// Server is what the daemon said of itself.
func (c *Conn) Server() protocol.ServerInfo { return c.info }

// run calls f and hangs up if the context ends first, since nothing else stops
// a daemon's work.
func (c *Conn) run(ctx context.Context, f func(*Conn) error) error {
	c.heard, c.spent = false, false
	stop := context.AfterFunc(ctx, func() { c.stream.Close() })
	err := f(c)
	if !stop() {
		c.broken = true
		if err != nil {
			return errors.Join(ctx.Err(), err)
		}
	}
	return err
}

// Call makes a request whose fields request writes, and reads its reply with
// reply; either may be nil. A daemon's refusal is a *protocol.Error.
func (c *Conn) Call(op protocol.Op, request func(*protocol.Writer), reply func(*protocol.Reader) error) error {
	c.out.Op(op)
	if request != nil {
		request(c.out)
	}
	return c.finish(nil, reply)
}

// CallPulled is Call for a request whose data the daemon asks for.
func (c *Conn) CallPulled(op protocol.Op, request func(*protocol.Writer), data io.Reader, reply func(*protocol.Reader) error) error {
	c.out.Op(op)
	request(c.out)
	return c.finish(&spending{data, &c.spent}, reply)
}

func isRemote(err error) bool {
	var remote *protocol.Error
	return errors.As(err, &remote)
}

func (c *Conn) finish(data io.Reader, reply func(*protocol.Reader) error) error {
	if err := c.out.Flush(); err != nil {
		// The daemon may have said why it hung up.
		if said := c.listen(data); isRemote(said) {
			return said
		}
		return c.lost(err)
	}
	if err := c.listen(data); err != nil {
		return err
	}
	return c.reply(reply)
}

func (c *Conn) reply(read func(*protocol.Reader) error) error {
	if read == nil {
		return nil
	}
	c.in.StartRequest()
	if err := read(c.in); err != nil {
		return c.lost(err)
	}
	return nil
}

// listen follows frames up to the one that ends the request. Only a refusal
// leaves the stream in step.
func (c *Conn) listen(data io.Reader) error {
	for {
		done, err := c.frame(data)
		if err != nil && !isRemote(err) {
			err = c.lost(err)
		}
		if done || err != nil {
			return err
		}
		c.heard = true
	}
}

func (c *Conn) frame(data io.Reader) (done bool, err error) {
	c.in.StartRequest()
	tag, err := c.in.Frame()
	if err != nil {
		return false, err
	}
	switch tag {
	case protocol.FrameLast:
		c.heard = true
		return true, nil
	case protocol.FrameError:
		remote, err := c.in.Error()
		if err != nil {
			return false, err
		}
		return true, remote
	case protocol.FrameRead:
		return false, c.answer(data)
	case protocol.FrameWrite:
		return false, c.take()
	}
	known, err := c.in.Tell(tag, c.log)
	if err == nil && !known {
		err = wire.Errorf("got unknown message type %x from Nix daemon", uint64(tag))
	}
	return false, err
}

// CallPushed is Call for a request whose result the daemon writes to while it
// works.
func (c *Conn) CallPushed(op protocol.Op, request func(*protocol.Writer), to io.Writer, reply func(*protocol.Reader) error) error {
	c.pushed = to
	defer func() { c.pushed = nil }()
	return c.Call(op, request, reply)
}

func (c *Conn) take() error {
	if c.pushed == nil {
		return wire.Errorf("no sink")
	}
	data, err := c.in.Bytes(wire.MaxString)
	if err != nil {
		return err
	}
	if _, err := c.pushed.Write(data); err != nil {
		return &dataError{err}
	}
	return nil
}

// maxAnswer bounds what is read to answer one "read" frame.
const maxAnswer = 1 << 20

func (c *Conn) answer(data io.Reader) error {
	if data == nil {
		return wire.Errorf("daemon asks for data that the request does not have")
	}
	most, err := c.in.Uint64()
	if err != nil {
		return err
	}
	buf := make([]byte, min(most, maxAnswer))
	n, err := io.ReadAtLeast(data, buf, 1)
	if err != nil && err != io.EOF {
		return &dataError{err}
	}
	c.out.Bytes(buf[:n])
	return c.out.Flush()
}
