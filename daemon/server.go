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
)

// DrainTime is how long requests under way may go on after the order to stop.
const DrainTime = 8 * time.Second

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
	// Drain is how long requests may go on after the order to stop; 0 is
	// DrainTime.
	Drain time.Duration
	// Limits bound what all clients together take.
	Limits Limits
	// Greeting is how long a client may take to say who it is; 0 is
	// GreetingTime.
	Greeting time.Duration

	clients atomic.Uint64
}

// Peer is a client that was let in.
type Peer struct {
	Identity
	Trusted bool
	// Client is a number of its own for each connection.
	Client uint64
	// Memory is what its requests share with those of others.
	Memory wire.Ledger
}

// Run accepts on all listeners until the context ends, then stops in order. A
// listener that fails for good ends it with an error.
func (s *Server) Run(ctx context.Context, listeners []net.Listener) error {
	watch, err := newHangups()
	if err != nil {
		return err
	}
	defer watch.close()
	// Requests outlive the order to stop, by at most the drain time.
	work, cancelWork := context.WithCancel(context.WithoutCancel(ctx))
	defer cancelWork()
	accepting, stop := context.WithCancel(ctx)
	defer stop()

	r := &run{s: s, watch: watch, crowd: newCrowd(s.Limits), conns: make(map[*served]struct{})}
	var accepts sync.WaitGroup
	errs := make([]error, len(listeners))
	for i, l := range listeners {
		accepts.Go(func() {
			errs[i] = r.accept(accepting, work, l)
			stop()
		})
	}
	<-accepting.Done()
	for _, l := range listeners {
		l.Close()
	}
	accepts.Wait()
	r.finish(cancelWork)
	return errors.Join(errs...)
}

// run is one call of Run.
type run struct {
	s     *Server
	watch hangups
	crowd *crowd
	turns turns
	wait  sync.WaitGroup

	mu       sync.Mutex
	conns    map[*served]struct{}
	draining bool
}

// acceptPause is how long to wait after an error that may pass, such as a
// lack of descriptors.
const acceptPause = 50 * time.Millisecond

func (r *run) accept(ctx, work context.Context, l net.Listener) error {
	for {
		conn, err := l.Accept()
		if ctx.Err() != nil {
			if conn != nil {
				conn.Close()
			}
			return nil
		}
		if errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("accept connection: %w", err)
		}
		if err != nil {
			r.s.Log.Error().Err(err).Msg("while processing connection")
			pause(ctx, acceptPause)
			continue
		}
		r.wait.Go(func() { r.serve(work, conn.(*net.UnixConn)) })
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

// finish hangs up on idle clients, gives the others the drain time, then
// cancels what is left and waits for it.
func (r *run) finish(cancel context.CancelFunc) {
	drain := cmp.Or(r.s.Drain, DrainTime)
	r.mu.Lock()
	r.draining = true
	busy := 0
	for c := range r.conns {
		if c.drain() {
			busy++
		}
	}
	r.mu.Unlock()
	if busy > 0 {
		r.s.Log.Info().Int("busy", busy).Dur("at_most", drain).Msg("waiting for requests under way")
	}
	t := time.AfterFunc(drain, func() {
		cancel()
		r.hangUp()
	})
	r.wait.Wait()
	t.Stop()
}

// hangUp ends every connection: their clients wait for nothing that will come.
func (r *run) hangUp() {
	r.mu.Lock()
	defer r.mu.Unlock()
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
		return
	}
	defer guest.leave()
	peer.Memory = guest
	log.Info().Int("pid", peer.PID).Str("user", peer.User).Bool("trusted", peer.Trusted).
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
	c := &served{conn: conn, socket: socket, turns: &r.turns, greeting: cmp.Or(r.s.Greeting, GreetingTime)}
	if !r.add(c) {
		return
	}
	defer r.remove(c)
	if err := r.s.Serve(ctx, c, peer); err != nil && ctx.Err() == nil {
		log.Error().Str("user", peer.User).Int("pid", peer.PID).Msg("unexpected Nix daemon error: " + err.Error())
	}
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
	id, err := identify(conn, r.s.Accounts)
	if err != nil {
		return Peer{}, err
	}
	peer := Peer{Identity: id, Client: r.s.clients.Add(1)}
	if r.s.Trust != nil {
		peer.Trusted = *r.s.Trust
		return peer, nil
	}
	peer.Trusted, err = r.s.Policy.Judge(id, r.s.Accounts)
	return peer, err
}

func (r *run) add(c *served) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.draining {
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
