package client

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"nixdaemon/protocol"
	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/storepath"
)

// defaultMaxConns is how many connections a pool opens at most.
const defaultMaxConns = 8

// Options says which daemon to speak to, and how.
type Options struct {
	// Dial opens a connection. It must be set.
	Dial func(ctx context.Context) (io.ReadWriteCloser, error)
	// Dir is the daemon's store directory; "" is storepath.DefaultDir.
	Dir storepath.Dir
	// Version is what is offered; the zero value is protocol.ClientVersion.
	Version protocol.Version
	// MaxConns bounds the open connections; 0 is 8.
	MaxConns int
	// Settings are sent once over each connection; nil sends none.
	Settings *protocol.ClientOptions
	// Log receives what daemons tell during requests; nil drops it.
	Log activity.Sink
	// Name is what errors of connecting call the daemon, a store reference;
	// "" leaves the name out.
	Name string
	// Features are what replies may say; zero allows nothing experimental.
	Features derivation.Features
	// MaxAge is how old a connection may be to be used again; 0 is any age.
	MaxAge time.Duration
}

// Client is a pool of connections. Its methods are safe for concurrent use.
type Client struct {
	*pool
	log activity.Sink
}

// pool is what a client shares with those that LoggingTo gives.
type pool struct {
	o     Options
	slots chan struct{} // one token per open or opening connection
	idle  chan *Conn    // those of them that nobody uses

	mu       sync.Mutex
	closed   bool
	settings *protocol.ClientOptions // to send; nil for none
}

// ErrClosed is returned by calls on a Client that was closed.
var ErrClosed = errors.New("use of closed client")

// New makes a pool. It opens nothing yet.
func New(o Options) *Client {
	if o.Dir == "" {
		o.Dir = storepath.DefaultDir
	}
	if o.Version.Number == 0 {
		o.Version = protocol.ClientVersion()
	}
	if o.Log == nil {
		o.Log = activity.Discard{}
	}
	if o.MaxConns == 0 {
		o.MaxConns = defaultMaxConns
	}
	return &Client{log: o.Log, pool: &pool{
		o: o, settings: o.Settings,
		slots: make(chan struct{}, o.MaxConns), idle: make(chan *Conn, o.MaxConns),
	}}
}

// LoggingTo gives a client with the same connections whose requests tell what
// they do to another sink; nil drops it.
func (c *Client) LoggingTo(log activity.Sink) *Client {
	if log == nil {
		log = activity.Discard{}
	}
	return &Client{log: log, pool: c.pool}
}

// SetSettings has other settings sent over each connection, before its next
// request.
func (c *pool) SetSettings(s *protocol.ClientOptions) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settings = s
}

func (c *pool) currentSettings() *protocol.ClientOptions {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.settings
}

// Close closes the idle connections. Those in use are closed when their call
// ends.
func (c *pool) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	var errs []error
	for {
		select {
		case conn := <-c.idle:
			errs = append(errs, conn.Close())
			<-c.slots
		default:
			return errors.Join(errs...)
		}
	}
}

// Dir is the daemon's store directory.
func (c *pool) Dir() storepath.Dir { return c.o.Dir }

// Do borrows a connection for f. The connection is kept if f leaves it in
// step. When a connection that lay idle turns out to be dead before the daemon
// said anything, f is called again with a new one, unless it has begun to send
// data, which cannot be had a second time.
func (c *Client) Do(ctx context.Context, f func(*Conn) error) error {
	for {
		conn, reused, err := c.take(ctx, c.log)
		if err != nil {
			return err
		}
		err = conn.run(ctx, func(conn *Conn) error {
			if err := conn.configure(c.currentSettings()); err != nil {
				return err
			}
			return f(conn)
		})
		again := reused && conn.broken && !conn.heard && !conn.spent && ctx.Err() == nil
		c.give(conn)
		if err == nil || !again {
			return err
		}
	}
}

// take gives an idle connection or opens one, and waits for either if there
// are as many as there may be.
func (c *pool) take(ctx context.Context, log activity.Sink) (conn *Conn, reused bool, err error) {
	if c.isClosed() {
		return nil, false, ErrClosed
	}
	for {
		conn, err := c.awaitIdle(ctx)
		if err != nil {
			return nil, false, err
		}
		if conn == nil {
			break
		}
		if !conn.stale() && (c.o.MaxAge == 0 || time.Since(conn.opened) < c.o.MaxAge) {
			conn.log = log
			return conn, true, nil
		}
		conn.Close()
		<-c.slots
	}
	o := c.o
	o.Settings, o.Log = c.currentSettings(), log
	conn, err = Open(ctx, o)
	if err != nil {
		<-c.slots
	}
	return conn, false, err
}

// awaitIdle gives an idle connection, or nil with a slot for a new one.
func (c *pool) awaitIdle(ctx context.Context) (*Conn, error) {
	select {
	case conn := <-c.idle:
		return conn, nil
	default:
	}
	select {
	case conn := <-c.idle:
		return conn, nil
	case c.slots <- struct{}{}:
		return nil, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (c *pool) isClosed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}

// give takes a connection back. Hanging up may take a while, in which the
// others go on; until then it counts.
func (c *pool) give(conn *Conn) {
	if conn.broken || !c.keep(conn) {
		conn.Close()
		<-c.slots
	}
}

func (c *pool) keep(conn *Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.idle <- conn // has room for every connection there may be
	return true
}
