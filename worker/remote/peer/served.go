package peer

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"nixdaemon/protocol"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/serve"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker/remote/ssh"
)

// served is a store that is spoken to by the serve protocol.
type served struct {
	cfg    Config
	o      Options
	dial   func(context.Context) (io.ReadWriteCloser, error)
	master *ssh.Master
	slots  chan struct{} // one token per open or opening connection
	idle   chan *line    // those of them that nobody uses
	closed chan struct{}
	once   sync.Once // closes closed
}

// line is a connection.
type line struct {
	*serve.Conn
	stream io.ReadWriteCloser
}

var (
	_ Store  = (*served)(nil)
	_ Rester = (*served)(nil)
)

func newServed(cfg Config, o Options, dial func(context.Context) (io.ReadWriteCloser, error), master *ssh.Master) *served {
	return &served{cfg: cfg, o: o, dial: dial, master: master,
		slots: make(chan struct{}, cfg.MaxConnections), idle: make(chan *line, cfg.MaxConnections), closed: make(chan struct{})}
}

// errClosed is the error of calls on a store that was closed.
var errClosed = errors.New("use of closed store")

// do borrows a connection for f, which is kept if f does not fail, or fails
// with a failure of a build. The context's end hangs up. What comes after an
// idle connection was lost unnoticed is not tried again: ssh notices.
func (s *served) do(ctx context.Context, f func(*serve.Conn) error) error {
	l, err := s.take(ctx)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { l.stream.Close() })
	err = f(l.Conn)
	usable := stop()
	var failure *serve.BuildFailure
	usable = usable && (err == nil || errors.As(err, &failure))
	s.give(l, usable)
	if err != nil && ctx.Err() != nil {
		return errors.Join(ctx.Err(), err)
	}
	return err
}

func (s *served) take(ctx context.Context) (*line, error) {
	for {
		select {
		case <-s.closed:
			return nil, errClosed
		case l := <-s.idle:
			if ended, ok := l.stream.(interface{ Ended() bool }); ok && ended.Ended() {
				s.give(l, false)
				continue
			}
			return l, nil
		default:
		}
		select {
		case <-s.closed:
			return nil, errClosed
		case <-ctx.Done():
			return nil, ctx.Err()
		case l := <-s.idle:
			return l, nil
		case s.slots <- struct{}{}:
			l, err := s.open(ctx)
			if err != nil {
				<-s.slots
			}
			return l, err
		}
	}
}

func (s *served) open(ctx context.Context) (*line, error) {
	stream, err := s.dial(ctx)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { stream.Close() })
	conn, err := serve.Dial(stream, s.cfg.Dir, serve.Latest, s.cfg.Authority.Host)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		stream.Close()
		return nil, err
	}
	conn.Features(s.o.Features)
	return &line{conn, stream}, nil
}

func (s *served) give(l *line, usable bool) {
	select {
	case <-s.closed:
		usable = false
	default:
	}
	if usable {
		s.idle <- l // has room for every connection there may be
		select {
		case <-s.closed:
			s.hangUp() // it was closed meanwhile
		default:
		}
		return
	}
	l.stream.Close()
	<-s.slots
}

// hangUp closes the idle connections.
func (s *served) hangUp() {
	for {
		select {
		case l := <-s.idle:
			l.stream.Close()
			<-s.slots
		default:
			return
		}
	}
}

// Rest implements Rester.
func (s *served) Rest() { s.hangUp() }

// Close implements Store.
func (s *served) Close() error {
	s.once.Do(func() { close(s.closed) })
	s.hangUp()
	return s.master.Close()
}

// Config implements Store.
func (s *served) Config() Config { return s.cfg }

// URI implements Store.
func (s *served) URI() string { return s.cfg.URI }

// Dir implements Store.
func (s *served) Dir() storepath.Dir { return s.cfg.Dir }

// ValidPaths implements Store.
func (s *served) ValidPaths(ctx context.Context, paths []storepath.Path, substitute bool) (valid []storepath.Path, err error) {
	if len(paths) == 0 {
		return nil, nil
	}
	err = s.do(ctx, func(c *serve.Conn) error {
		valid, err = c.ValidPaths(serve.ValidPathsRequest{Substitute: substitute, Paths: sorted(paths)})
		return err
	})
	return valid, err
}

func sorted(paths []storepath.Path) []storepath.Path {
	return storepath.SortUnique(append([]storepath.Path{}, paths...))
}

// PathInfos implements Store.
func (s *served) PathInfos(ctx context.Context, paths []storepath.Path) (infos []*pathinfo.Info, err error) {
	err = s.do(ctx, func(c *serve.Conn) error {
		infos, err = c.PathInfos(paths)
		return err
	})
	return infos, err
}

// Closure implements Store.
func (s *served) Closure(ctx context.Context, paths []storepath.Path) (closure []storepath.Path, err error) {
	err = s.do(ctx, func(c *serve.Conn) error {
		closure, err = c.Closure(sorted(paths), false)
		return err
	})
	return closure, err
}

// NAR implements Store.
func (s *served) NAR(ctx context.Context, p storepath.Path) (io.ReadCloser, error) {
	return openArchive(ctx, func(ctx context.Context, w io.Writer) error {
		return s.do(ctx, func(c *serve.Conn) error { return c.Dump(p, w) })
	})
}

// Import implements Store. The other side checks no signatures, ever.
func (s *served) Import(ctx context.Context, infos []*pathinfo.Info, nar func(context.Context, *pathinfo.Info, io.Writer) error, o ImportOptions) error {
	infos, err := referencesFirst(s.cfg.Dir, infos)
	if err != nil || len(infos) == 0 {
		return err
	}
	return s.do(ctx, func(c *serve.Conn) error {
		for _, info := range infos {
			if err := c.Add(info, func(w io.Writer) error { return nar(ctx, info, w) }); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *served) unsupported(operation string) error { return &Unsupported{operation, s.cfg.URI} }

// Realisation implements Store: it cannot.
func (s *served) Realisation(context.Context, pathinfo.DrvOutput) (*pathinfo.Realisation, error) {
	return nil, s.unsupported("queryRealisation")
}

// RegisterRealisation implements Store: it cannot.
func (s *served) RegisterRealisation(context.Context, *pathinfo.Realisation) error {
	return s.unsupported("registerDrvOutput")
}

// KeysByPath implements Store.
func (s *served) KeysByPath(ctx context.Context) (byPath bool, err error) {
	err = s.do(ctx, func(c *serve.Conn) error {
		byPath = c.Version().AtLeast(8)
		return nil
	})
	return byPath, err
}

func (o BuildOptions) served() serve.BuildOptions {
	return serve.BuildOptions{MaxSilentTime: o.MaxSilentTime, BuildTimeout: o.BuildTimeout, MaxLogSize: o.MaxLogSize, KeepFailed: o.KeepFailed}
}

// BuildDerivation implements Store. The mode has no place in the protocol.
func (s *served) BuildDerivation(ctx context.Context, drvPath storepath.Path, drv *derivation.BasicDerivation, o BuildOptions) (res derivation.BuildResult, err error) {
	err = s.do(ctx, func(c *serve.Conn) error {
		res, err = c.BuildDerivation(serve.BuildDerivationRequest{DrvPath: drvPath, Derivation: drv, Options: o.served()})
		return err
	})
	return res, err
}

// BuildPathsWithResults implements Store. The protocol tells no results: what
// it does not call a failure was made somehow.
func (s *served) BuildPathsWithResults(ctx context.Context, paths []derivation.DerivedPath, o BuildOptions) ([]derivation.KeyedBuildResult, error) {
	begun := time.Now().Unix()
	err := s.do(ctx, func(c *serve.Conn) error { return c.BuildPaths(paths, o.served()) })
	if err != nil {
		return nil, err
	}
	results := make([]derivation.KeyedBuildResult, len(paths))
	for i, p := range paths {
		results[i].Path = p
		results[i].Status = derivation.StatusSubstituted
		if p.Drv != nil {
			results[i].Status = derivation.StatusBuilt
			results[i].StartTime, results[i].StopTime = begun, time.Now().Unix()
		}
	}
	return results, nil
}

// Trust implements Store.
func (s *served) Trust(ctx context.Context) (protocol.Trust, error) {
	return protocol.TrustUnknown, s.Connect(ctx)
}

// AddSignatures implements Store: it cannot.
func (s *served) AddSignatures(context.Context, storepath.Path, []pathinfo.Signature) error {
	return s.unsupported("addSignatures")
}

// AddBuildLog implements Store: it cannot.
func (s *served) AddBuildLog(context.Context, storepath.Path, io.Reader) error {
	return s.unsupported("addBuildLog")
}

// Connect implements Store.
func (s *served) Connect(ctx context.Context) error {
	return s.do(ctx, func(*serve.Conn) error { return nil })
}
