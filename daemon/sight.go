package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/rs/zerolog"

	"nixdaemon/daemon/config"
	"nixdaemon/daemon/status"
	"nixdaemon/daemon/status/board"
	"nixdaemon/daemon/status/statussocket"
	"nixdaemon/localstore"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker"
	"nixdaemon/worker/build"
)

// sight lets people and programs see what a server does, each as much as is
// their business, and end builds of theirs.
type sight struct {
	board *board.Board
	dir   string
	log   zerolog.Logger
	// audit is told who ends builds for everybody, or may not.
	audit func(Peer, worker.Privilege)
	mux   *http.ServeMux
	// builds is nil before the store is open.
	builds atomic.Pointer[watched]
	socket *statussocket.Server
}

var (
	_ ConnectionObserver  = (*sight)(nil)
	_ statussocket.Daemon = (*sight)(nil)
)

// statusDirName is the directory of the status sockets in the state directory.
const statusDirName = "status-socket"

// statusDir is where a server has its status socket, and keeps the logs that
// are read along.
func statusDir(cfg *config.Config) string {
	if cfg.Store.StateDir != "" {
		return filepath.Join(cfg.Store.StateDir, statusDirName)
	}
	return filepath.Join(cfg.StateDir, statusDirName)
}

func newSight(cfg *config.Config, watch *observers, audit func(Peer, worker.Privilege), log zerolog.Logger) *sight {
	s := &sight{board: board.New(NixVersion), dir: statusDir(cfg), log: log, audit: audit}
	s.mux = statussocket.NewMux(s)
	watch.add(s.board)
	watch.add(s)
	return s
}

// watched is what of a backend can be looked into.
type watched struct {
	board.Sources
	work  builds            // nil if another daemon builds
	store *localstore.Store // nil if it is none of ours
}

// builds are those that go on here. The errors are build.ErrNoBuild and build.ErrNotYours.
type builds interface {
	Cancel(id build.BuildID, by string, mine bool) error
	FollowLog(id build.BuildID, by string, mine bool) (*build.LogReader, error)
}

var (
	_ builds = (*build.Scheduler)(nil)
	_ builds = (*awayBuilders)(nil)
)

// over has the board look at what a backend does.
func (s *sight) over(b backend) {
	var w watched
	switch b := b.(type) {
	case *local:
		w.work, w.store = b.scheduler, b.store
		w.Sources = board.Sources{
			Dir: b.store.Dir(), Builds: b.scheduler.Status, Waits: b.scheduler.Waits, Fetches: b.subst.Fetching, Garbage: b.collector.gc.Running,
		}
	case *away:
		w.work, w.Sources = &b.working, b.working.sources(storepath.Dir(b.cfg.Store.StoreDir))
	case *forwarding:
		w.Sources = board.Sources{Dir: b.options.Dir, Builds: b.errands.status}
	default:
		w.Problem = func() string { return problem(b) }
		s.board.Watch(w.Sources)
		return
	}
	s.builds.Store(&w)
	s.board.Watch(w.Sources)
}

// work gives what goes on here, or an error for whoever means something that does not.
func (s *sight) work(what string) (builds, error) {
	w := s.builds.Load()
	switch {
	case w == nil:
		return nil, errUnknown(what)
	case w.work == nil:
		return nil, fmt.Errorf("%w here: '%s' is the work of another daemon, which is to be asked", statussocket.ErrUnknown, what)
	}
	return w.work, nil
}

// mount has something more answered on the socket, for root and those who are
// trusted.
func (s *sight) mount(pattern string, h http.Handler) {
	s.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		if !statussocket.ViewerOf(r.Context()).All {
			http.Error(w, "not allowed: this is for root and trusted users", http.StatusForbidden)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// mostLooking bounds the connections of those who look, and those of one user
// who is neither trusted nor root.
const (
	mostLooking        = 256
	mostLookingPerUser = 16
)

// open listens for those who want to look, who are judged as the clients of a
// server. Without a place for the socket nobody can look, which is no reason
// not to serve.
func (s *sight) open(server *Server) {
	crowd := newCrowd(Limits{Connections: mostLooking, PerUser: mostLookingPerUser})
	var err error
	s.socket, err = statussocket.Open(statussocket.Options{
		Dir: s.dir, Listen: bind, Handler: s.mux,
		Admit: func(conn *net.UnixConn) (status.Viewer, func(), error) {
			id, trusted, err := server.judge(conn)
			if err != nil {
				return status.Viewer{}, nil, err
			}
			g, err := crowd.enter(Peer{Identity: id, Trusted: trusted})
			if err != nil {
				return status.Viewer{}, nil, err
			}
			return status.Viewer{User: id.User, All: trusted || id.Known && id.UID == 0, PID: id.PID}, g.leave, nil
		},
		Refused: func(err error) { s.log.Info().Err(err).Msg("refused to tell the status") },
	})
	if err != nil {
		s.log.Warn().Err(err).Msg("nobody can ask for the status")
	}
}

func (s *sight) close() error {
	if s.socket == nil {
		return nil
	}
	return s.socket.Close()
}

// Connected is part of ConnectionObserver.
func (s *sight) Connected(c Connection) ClientObserver {
	return s.board.Connect(status.Connection{Client: c.Client, User: c.User, PID: c.PID, Trusted: c.Trusted, Since: c.Since})
}

// Server is part of statussocket.Daemon.
func (s *sight) Server() status.Server {
	server := s.board.Server()
	s.board.AddWaits(&server)
	return server
}

// errUnknown says that something means no build.
func errUnknown(what string) error { return fmt.Errorf("%w as '%s'", statussocket.ErrUnknown, what) }

// find gives the builds that are meant, at least one.
func (s *sight) find(what string) ([]status.Build, error) {
	found, err := status.Match(s.board.Server().Builds, what)
	if err == nil && len(found) == 0 {
		err = errUnknown(what)
	}
	return found, err
}

// buildNumber is the number of one of our builds.
func buildNumber(id string) build.BuildID {
	_, number, _ := strings.Cut(id, "-")
	n, err := strconv.ParseUint(number, 10, 64)
	if err != nil {
		return 0 // which none has
	}
	return build.BuildID(n)
}

// Cancel is part of statussocket.Daemon. Those who are trusted end a build for
// everybody, others for themselves.
func (s *sight) Cancel(v status.Viewer, what string) (string, error) {
	found, err := s.find(what)
	if err != nil {
		return "", err
	}
	work, err := s.work(what)
	if err != nil {
		return "", err
	}
	var errs []error
	for _, b := range found {
		if err = work.Cancel(buildNumber(b.ID), v.User, !v.All); err != nil {
			errs = append(errs, err)
			continue
		}
		s.log.Info().Str("user", v.User).Str("derivation", b.Derivation).Bool("for_everybody", v.All).
			Msg("build of '" + b.Derivation + "' cancelled by " + v.User)
	}
	if refused := errors.Is(err, build.ErrNotYours); v.All || refused {
		s.audit(Peer{Identity: Identity{User: v.User, PID: v.PID}, Trusted: v.All}, worker.Privilege{
			Action: worker.ActionCancel, Subject: []string{found[0].Derivation}, Err: err, Refused: refused,
		})
	}
	switch {
	case len(errs) < len(found):
		return found[0].Derivation, nil
	case errors.Is(errs[0], build.ErrNotYours):
		return "", fmt.Errorf("%w to cancel the build of '%s': others want it, not you", statussocket.ErrForbidden, found[0].Derivation)
	}
	return "", errUnknown(what)
}

// OpenLog is part of statussocket.Daemon. The log of a build that runs is for
// those who want that build, and for the trusted; what is stored is for
// everybody, as are the files.
func (s *sight) OpenLog(ctx context.Context, v status.Viewer, what string, running bool) (statussocket.Log, error) {
	if w := s.builds.Load(); !running && w != nil && w.store != nil {
		return s.storedLog(ctx, w.store, what)
	}
	found, err := s.find(what)
	if err != nil {
		return nil, err
	}
	work, err := s.work(what)
	if err != nil {
		return nil, err
	}
	if !running { // it is kept elsewhere
		return nil, errUnknown(what)
	}
	err = errUnknown(what)
	for _, b := range found {
		var r *build.LogReader
		switch r, err = work.FollowLog(buildNumber(b.ID), v.User, !v.All); {
		case err == nil:
			return shown(r.Read, r.Close), nil
		case errors.Is(err, build.ErrNotYours):
			err = fmt.Errorf("%w to see the log of '%s' while it is built: others want it, not you", statussocket.ErrForbidden, b.Derivation)
		default:
			err = errUnknown(what) // it has just ended
		}
	}
	return nil, err
}

// storedLog opens the log of a derivation, or of the one that a path was made
// by.
func (s *sight) storedLog(ctx context.Context, store *localstore.Store, what string) (statussocket.Log, error) {
	p, err := s.meant(store.Dir(), what)
	if err != nil {
		return nil, err
	}
	if !p.IsDerivation() {
		info, err := store.PathInfo(ctx, p)
		if err != nil || info == nil || info.Deriver.IsZero() {
			return nil, errUnknown(what)
		}
		p = info.Deriver
	}
	log, err := store.OpenBuildLog(p)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w nor a log of '%s'", statussocket.ErrUnknown, store.Dir().Print(p))
	}
	if err != nil {
		return nil, err
	}
	return shown(func(_ context.Context, b []byte) (int, error) { return log.Read(b) }, log.Close), nil
}

// meant is the path that somebody means whose log is stored: as such, or as one
// of the builds that have ended of late.
func (s *sight) meant(dir storepath.Dir, what string) (storepath.Path, error) {
	p, err := dir.Parse(what)
	if err != nil {
		p, err = storepath.ParseBase(what)
	}
	if err == nil {
		return p, nil
	}
	var ended []status.Build
	for _, e := range s.board.Server().Recent {
		if e.Kind == "build" {
			ended = append(ended, status.Build{Derivation: e.What})
		}
	}
	found, err := status.Match(ended, what)
	if err != nil {
		return storepath.Path{}, err
	}
	if len(found) > 0 {
		return dir.Parse(found[0].Derivation)
	}
	running, err := s.find(what)
	if err != nil {
		return storepath.Path{}, err
	}
	return storepath.Path{}, fmt.Errorf("'%s' is not built yet; --follow reads its log along", running[0].Derivation)
}

// shownLog is a log as clients show it.
type shownLog struct {
	read  func(context.Context, []byte) (int, error)
	close func() error
	text  bytes.Buffer
	lines io.WriteCloser // into text
	raw   []byte
	err   error
}

func shown(read func(context.Context, []byte) (int, error), close func() error) *shownLog {
	l := &shownLog{read: read, close: close, raw: make([]byte, 32<<10)}
	l.lines = build.LogText(&l.text)
	return l
}

// Read is part of statussocket.Log.
func (l *shownLog) Read(ctx context.Context, p []byte) (int, error) {
	for l.text.Len() == 0 && l.err == nil {
		var n int
		n, l.err = l.read(ctx, l.raw)
		l.lines.Write(l.raw[:n])
		if l.err == io.EOF {
			l.lines.Close()
		}
	}
	if l.text.Len() > 0 {
		return l.text.Read(p)
	}
	return 0, l.err
}

// Close is part of statussocket.Log.
func (l *shownLog) Close() error { return l.close() }

// spoolFor is where logs are kept that are read along; "" where nobody can.
func spoolFor(cfg *config.Config) string {
	if cfg.Mode != config.ModeSocket {
		return ""
	}
	dir := statusDir(cfg)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return ""
	}
	return dir
}
