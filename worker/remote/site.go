package remote

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"time"

	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/derivation"
	"nixdaemon/worker/remote/peer"
	"nixdaemon/worker/settings"
)

const (
	// idleTime is how long a connection waits for the next build, mostIdle how many to one machine do.
	idleTime = time.Minute
	mostIdle = 8
	// A machine that does not answer is avoided for firstAvoided, then twice that and so on, up to longestAvoided.
	firstAvoided   = 2 * time.Second
	longestAvoided = 2 * time.Minute
)

// sites are what all clients share of the machines: connections, and which of them do not answer.
type sites struct {
	b    *Builders
	open func(context.Context, settings.StoreReference, peer.Options) (peer.Store, error)

	mu     sync.Mutex
	all    map[string]*site
	signal chan struct{} // closed, and made anew, when a build ends
	closed bool
}

// site is one machine, whoever describes it.
type site struct {
	idle   []*link
	fails  int
	avoid  time.Time // until then
	expiry *time.Timer
}

// identity tells machines apart as far as connections go.
func (m *Machine) identity() string { return m.URI + "\x00" + m.SSHKey + "\x00" + m.HostKey }

func (s *sites) changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.signal
}

// freed tells everybody who waits that a build has ended.
func (s *sites) freed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.signal)
	s.signal = make(chan struct{})
}

func (s *sites) avoided(m *Machine) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	site := s.all[m.identity()]
	return site != nil && s.b.now().Before(site.avoid)
}

// failed has a machine avoided for a while.
func (s *sites) failed(m *Machine) {
	s.mu.Lock()
	defer s.mu.Unlock()
	site := s.siteLocked(m)
	span := longestAvoided
	if site.fails < 10 {
		span = min(span, firstAvoided<<site.fails)
	}
	site.fails++
	site.avoid = s.b.now().Add(span)
}

func (s *sites) siteLocked(m *Machine) *site {
	key := m.identity()
	if s.all[key] == nil {
		if len(s.all) >= mostSites {
			s.forgetLocked()
		}
		s.all[key] = &site{}
	}
	return s.all[key]
}

// mostSites bounds how many machines are known: who is trusted may name any number.
const mostSites = 1000

// forgetLocked forgets those of which there is nothing to know.
func (s *sites) forgetLocked() {
	for key, site := range s.all {
		if len(site.idle) == 0 && s.b.now().After(site.avoid) {
			delete(s.all, key)
		}
	}
}

// link is a connection, for one build at a time.
type link struct {
	store peer.Store
	kind  peer.Kind
	// log is that of the build that has the connection: what the other side does before it builds, such as substituting
	// inputs, is told, too. What comes between builds is dropped.
	log activity.Relay

	mu      sync.Mutex
	output  io.Writer // receives what the other side's standard error says; nil keeps it
	kept    strings.Builder
	outErr  error
	onError func()
}

// maxKept bounds what is kept of what ssh says while it connects.
const maxKept = 16 << 10

// stderr takes a line of ssh's.
func (l *link) stderr(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.output == nil {
		if l.kept.Len() < maxKept {
			l.kept.WriteString(line + "\n")
		}
		return
	}
	if l.outErr != nil {
		return
	}
	if _, l.outErr = io.WriteString(l.output, line+"\n"); l.outErr != nil {
		l.onError()
	}
}

// printTo has what builders print written to w, if it arrives that way; onError is called when that fails.
func (l *link) printTo(w io.Writer, onError func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.output, l.outErr, l.onError = w, nil, onError
}

// printError is why no more is printed.
func (l *link) printError() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.outErr
}

// connectError is a machine that does not answer, with what ssh has to say of that.
type connectError struct {
	err  error
	said string
}

func (e *connectError) Error() string { return e.err.Error() }

func (e *connectError) Unwrap() error { return e.err }

// said is what to add to the text of a failed connection.
func said(err error) string {
	if e, ok := errors.AsType[*connectError](err); ok && e.said != "" {
		return ": " + e.said
	}
	return ""
}

// connect gives a connection to a machine, an idle one if there is one that lives.
func (s *sites) connect(ctx context.Context, m *Machine, set *settings.Settings) (*link, error) {
	for {
		l := s.takeIdle(m)
		if l == nil {
			break
		}
		if l.store.Connect(ctx) == nil {
			return l, nil
		}
		l.store.Close()
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
	}
	l, err := s.dial(ctx, m, set)
	if err != nil && ctx.Err() == nil {
		s.failed(m)
	}
	if err == nil {
		s.answered(m)
	}
	return l, err
}

func (s *sites) answered(m *Machine) {
	s.mu.Lock()
	defer s.mu.Unlock()
	site := s.siteLocked(m)
	site.fails, site.avoid = 0, time.Time{}
}

func (s *sites) dial(ctx context.Context, m *Machine, set *settings.Settings) (*link, error) {
	l := &link{}
	ref, err := s.b.reachable(m)
	if err != nil {
		return nil, err
	}
	l.store, err = s.open(ctx, ref, peer.Options{
		Defaults: peer.Defaults{Dir: s.b.o.Dir, SocketPath: s.b.o.SocketPath, SystemFeatures: set.SystemFeatures},
		Log:      &l.log,
		Stderr:   l.stderr, Verbose: set.Verbosity >= settings.LevelChatty, Features: derivation.AllFeatures(), MaxConnections: 1, Keep: true,
	})
	if err != nil {
		return nil, err
	}
	l.kind = l.store.Config().Kind
	if err := l.store.Connect(ctx); err != nil {
		l.store.Close()
		failed := &connectError{err: err}
		if l.kind == peer.SSH {
			l.mu.Lock()
			failed.said = strings.TrimRight(l.kept.String(), " \t\r\n")
			l.mu.Unlock()
		}
		return nil, failed
	}
	return l, nil
}

func (s *sites) takeIdle(m *Machine) *link {
	s.mu.Lock()
	defer s.mu.Unlock()
	site := s.all[m.identity()]
	if site == nil || len(site.idle) == 0 {
		return nil
	}
	l := site.idle[len(site.idle)-1]
	site.idle = site.idle[:len(site.idle)-1]
	return l
}

// giveBack keeps a connection for the next build. What builds have printed arrives at a connection of the serve protocol
// in its own time, so that its end must be waited for: upstream's hook, a process for each build, does the same. The way
// to the machine stays, and the next build needs no login.
func (s *sites) giveBack(m *Machine, l *link, whole bool) {
	rester, rests := l.store.(peer.Rester)
	switch {
	case whole && rests:
		rester.Rest()
	case rests:
		l.store.Close()
		l.stopPrinting()
		return
	}
	l.stopPrinting()
	if !whole || !s.keep(m, l) {
		l.store.Close()
	}
}

// keep keeps a connection if there is room for it.
func (s *sites) keep(m *Machine, l *link) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	site := s.siteLocked(m)
	if s.closed || len(site.idle) >= mostIdle {
		return false
	}
	site.idle = append(site.idle, l)
	if site.expiry == nil {
		site.expiry = time.AfterFunc(idleTime, func() { s.expire(m) })
	} else {
		site.expiry.Reset(idleTime)
	}
	return true
}

// stopPrinting drops what comes from now on.
func (l *link) stopPrinting() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.output, l.onError = io.Discard, nil
}

// expire closes the connections of a machine that nobody has used for a while.
func (s *sites) expire(m *Machine) {
	s.mu.Lock()
	site := s.all[m.identity()]
	var idle []*link
	if site != nil {
		idle, site.idle = site.idle, nil
	}
	s.mu.Unlock()
	closeLinks(idle)
}

// close closes all connections that are idle.
func (s *sites) close() error {
	s.mu.Lock()
	s.closed = true
	var idle []*link
	for _, site := range s.all {
		idle = append(idle, site.idle...)
		site.idle = nil
		if site.expiry != nil {
			site.expiry.Stop()
		}
	}
	s.mu.Unlock()
	return closeLinks(idle)
}

// closeLinks closes connections side by side: an ssh that does not end takes its time, and others must not wait for it.
func closeLinks(links []*link) error {
	errs := make([]error, len(links))
	var closing sync.WaitGroup
	for i, l := range links {
		closing.Go(func() { errs[i] = l.store.Close() })
	}
	closing.Wait()
	return errors.Join(errs...)
}
