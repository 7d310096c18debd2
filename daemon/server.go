package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"nixdaemon/protocol/wire"
	"nixdaemon/worker"
)

// GreetingTime is how long a client may take, once it is connected, to say
// that it is one. Afterwards it may be silent for as long as it likes.
const GreetingTime = time.Minute

// Server accepts connections and serves each in a goroutine of its own.
type Server struct {
	// Policy and Accounts decide who gets in. Trust, if not nil, decides
	// instead (--force-trusted and its like).
	Policy   Policy
	Accounts Accounts
	Trust    *bool
	// Serve answers one connection until it ends. idle is called with false
	// when a request begins and with true when none is under way.
	Serve func(ctx context.Context, stream io.ReadWriter, peer Peer) error
	Log   zerolog.Logger
	// Drain is how long clients may stay after the order to drain; 0: as long
	// as they like.
	Drain time.Duration
	// Limits bound what all clients together take.
	Limits Limits
	// Observer is told of clients; nil if nobody wants to know.
	Observer ConnectionObserver
	// Refused is told of clients that were not let in, Audit of what clients do
	// that is privileged; both may be nil.
	Refused func(err error)
	Audit   func(p Peer, deed worker.Privilege)
	// Draining is called when no client can come any more and some have still to leave; nil calls nothing. Run waits for
	// it as it does for clients, but has nothing to hurry it with.
	Draining func()
	// Greeting is how long a client may take to say who it is; 0 is
	// GreetingTime.
	Greeting time.Duration

	clients atomic.Uint64
	open    atomic.Int64
	busy    atomic.Int64
	traffic traffic
}

// Connections is how many clients are connected at the moment.
func (s *Server) Connections() int { return int(s.open.Load()) }

// Busy is how many of them wait for an answer.
func (s *Server) Busy() int { return int(s.busy.Load()) }

// Traffic is how many bytes came from clients and went to them.
func (s *Server) Traffic() (received, sent uint64) {
	return s.traffic.received.Load(), s.traffic.sent.Load()
}

// Peer is a client that was let in.
type Peer struct {
	Identity
	Trusted bool
	// Client is a number of its own for each connection.
	Client uint64
	// Memory is what its requests share with those of others.
	Memory wire.Ledger
	// Greeted is the client if it was greeted while the store was opened; else nil.
	Greeted *worker.Greeting
	// Observer is told what the client does, Audit what of that is privileged;
	// both may be nil.
	Observer worker.Observer
	Audit    func(worker.Privilege)
}

// Run accepts on all listeners until drain is closed, and then ends with the
// last client. When the context ends it hangs up on all and ends. A listener
// that fails for good drains the server, and is an error.
func (s *Server) Run(ctx context.Context, drain <-chan struct{}, listeners []net.Listener) error {
	watch, err := newHangups()
	if err != nil {
		return err
	}
	defer watch.close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	failed := make(chan struct{}, len(listeners))
	stopped := make(chan struct{})

	r := &run{s: s, watch: watch, crowd: newCrowd(s.Limits), conns: make(map[*served]struct{})}
	var accepts sync.WaitGroup
	errs := make([]error, len(listeners))
	for i, l := range listeners {
		accepts.Go(func() {
			errs[i] = r.accept(ctx, stopped, l)
			failed <- struct{}{}
		})
	}
	select {
	case <-drain:
	case <-ctx.Done():
	case <-failed:
	}
	close(stopped)
	for _, l := range listeners {
		l.Close()
	}
	accepts.Wait()
	r.finish(ctx, cancel)
	return errors.Join(errs...)
}

// run is one call of Run.
type run struct {
	s     *Server
	watch hangups
	crowd *crowd
	turns turns
	wait  sync.WaitGroup

	mu    sync.Mutex
	conns map[*served]struct{}
	ended bool // no connection may begin any more
}

// acceptPause is how long to wait after an error that may pass, such as a
// lack of descriptors.
const acceptPause = 50 * time.Millisecond

func (r *run) accept(ctx context.Context, stopped <-chan struct{}, l net.Listener) error {
	for {
		conn, err := l.Accept()
		select {
		case <-stopped:
			// Whoever was accepted at the last moment is served: no other server will.
			if err != nil {
				return nil
			}
		default:
		}
		if errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("accept connection: %w", err)
		}
		if err != nil {
			r.s.Log.Error().Err(err).Msg("while processing connection")
			pause(ctx, acceptPause)
			continue
		}
		own, ok := conn.(*net.UnixConn)
		if !ok { // the service manager's socket is of another kind: nobody knows who is there
			conn.Close()
			r.s.Log.Error().Stringer("address", l.Addr()).Msg("refused a connection that did not come through a Unix socket")
			continue
		}
		r.s.open.Add(1)
		r.wait.Go(func() {
			defer r.s.open.Add(-1)
			r.serve(ctx, own)
		})
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// finish waits until the last client has gone, hanging up on all when the
// context ends or the drain has taken too long.
func (r *run) finish(ctx context.Context, cancel context.CancelFunc) {
	if n := r.s.Connections(); n > 0 {
		r.s.Log.Info().Int("clients", n).Dur("at_most", r.s.Drain).Msg("waiting for clients to finish")
		if r.s.Draining != nil {
			r.wait.Go(r.s.Draining) // it may take its time, which is not the clients'
		}
	}
	if r.s.Drain > 0 {
		defer time.AfterFunc(r.s.Drain, cancel).Stop()
	}
	defer context.AfterFunc(ctx, r.hangUp)()
	r.wait.Wait()
}

// hangUp ends every connection: their clients wait for nothing that will come.
func (r *run) hangUp() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = true
	for c := range r.conns {
		c.conn.Close()
	}
}

func (r *run) serve(ctx context.Context, conn *net.UnixConn) {
	defer conn.Close()
	log := r.s.Log
	peer, err := r.admit(conn)
	var guest *guest
	if err == nil {
		guest, err = r.crowd.enter(peer)
	}
	if err != nil {
		log.Error().Msg("while processing connection: " + err.Error())
		if r.s.Refused != nil {
			r.s.Refused(err)
		}
		return
	}
	defer guest.leave()
	peer.Memory = guest
	log.Info().Int("pid", peer.PID).Str("user", peer.User).Bool("trusted", peer.Trusted).Uint64("connection", peer.Client).
		Msg(accepted(peer))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop, err := r.watch.watch(conn, cancel)
	if err != nil {
		log.Error().Err(err).Msg("while processing connection")
		return
	}
	defer stop()
	socket, err := newSocket(conn)
	if err != nil {
		log.Error().Err(err).Msg("while processing connection")
		return
	}
	c := &served{conn: conn, socket: socket, turns: &r.turns, count: &r.s.busy, traffic: &r.s.traffic, greeting: cmp.Or(r.s.Greeting, GreetingTime)}
	if !r.add(c) {
		return
	}
	defer r.remove(c)
	defer c.rest()
	if r.s.Audit != nil {
		who := peer
		peer.Audit = func(deed worker.Privilege) { r.s.Audit(who, deed) }
	}
	disconnected := func(error) {}
	if r.s.Observer != nil {
		o := r.s.Observer.Connected(Connection{Peer: peer, Since: time.Now()})
		peer.Observer, disconnected = o, o.Disconnected
	}
	err = r.s.Serve(ctx, c, peer)
	var unopened *unopenedError
	if errors.As(err, &unopened) || err != nil && ctx.Err() == nil { // those who are told why nothing works hang up
		level := zerolog.ErrorLevel
		if unopened != nil && unopened.told {
			level = zerolog.DebugLevel // of all its clients we need not hear
		}
		log.WithLevel(level).Str("user", peer.User).Int("pid", peer.PID).Msg("unexpected Nix daemon error: " + err.Error())
	}
	disconnected(err)
}

// accepted is upstream's text (nix/unix/daemon.cc, daemonLoop).
func accepted(peer Peer) string {
	pid, user, trusted := "<unknown>", "<unknown>", ""
	if peer.PID != 0 {
		pid = fmt.Sprint(peer.PID)
	}
	if peer.Known {
		user = peer.User
	}
	if peer.Trusted {
		trusted = " (trusted)"
	}
	return "accepted connection from pid " + pid + ", user " + user + trusted
}

// admit decides about a client. One that is refused has its connection closed
// with its greeting unread, which it sees as a reset.
func (r *run) admit(conn *net.UnixConn) (Peer, error) {
	id, trusted, err := r.s.judge(conn)
	if err != nil {
		return Peer{}, err
	}
	return Peer{Identity: id, Trusted: trusted, Client: r.s.clients.Add(1)}, nil
}

// judge tells who is at the other end and whether they are trusted, or refuses
// them.
func (s *Server) judge(conn *net.UnixConn) (id Identity, trusted bool, err error) {
	if id, err = identify(conn, s.Accounts); err != nil {
		return id, false, err
	}
	if s.Trust != nil {
		return id, *s.Trust, nil
	}
	trusted, err = s.Policy.Judge(id, s.Accounts)
	return id, trusted, err
}

func (r *run) add(c *served) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended {
		return false
	}
	r.conns[c] = struct{}{}
	return true
}

func (r *run) remove(c *served) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.conns, c)
}
