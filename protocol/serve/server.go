package serve

import (
	"context"
	"errors"
	"fmt"
	"io"

	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
	"nixdaemon/protocol/wire"
)

// Handler is what a server asks of a store. Errors end the conversation.
type Handler interface {
	// ValidPaths gives those of the paths that are valid, after making them
	// temporary roots or trying to substitute them as asked.
	ValidPaths(ctx context.Context, req ValidPathsRequest) ([]storepath.Path, error)
	// PathInfo gives the metadata of a path, nil if it is not valid.
	PathInfo(ctx context.Context, p storepath.Path) (*pathinfo.Info, error)
	// Dump writes the archive of a valid path.
	Dump(ctx context.Context, p storepath.Path, w io.Writer) error
	// Import adds the paths of a stream in the format of "nix-store --export",
	// and reads no further than its end.
	Import(ctx context.Context, r *wire.Reader) error
	// BuildPaths makes the paths. A *BuildFailure is told to the client.
	BuildPaths(ctx context.Context, req BuildPathsRequest) error
	// Closure gives the paths with all that they refer to, and with the outputs
	// of the derivations among them if asked to.
	Closure(ctx context.Context, paths []storepath.Path, includeOutputs bool) ([]storepath.Path, error)
	// BuildDerivation builds a derivation.
	BuildDerivation(ctx context.Context, req BuildDerivationRequest) (derivation.BuildResult, error)
	// Add adds a path. It need not read the whole archive.
	Add(ctx context.Context, info *pathinfo.Info, nar io.Reader) error
}

// BuildFailure says why paths were not made.
type BuildFailure struct {
	// Status is the exit status of a client that fails for this reason, 1 or
	// from 100 on.
	Status  uint64
	Message string
}

// Error gives the message.
func (e *BuildFailure) Error() string { return e.Message }

// Options say how a server works.
type Options struct {
	// Dir is the store directory.
	Dir storepath.Dir
	// Version is what is offered; 0 is Latest.
	Version Version
	// Write allows to change the store (--write).
	Write bool
	// Features decide what derivations may say.
	Features derivation.Features
}

// Errors that end a conversation, in upstream's words.
var (
	errNoImport = errors.New("importing paths is not allowed")
	errNoBuild  = errors.New("building paths is not allowed")
	errNoSize   = errors.New("narInfo is too old and missing the narSize field")
	errRepeats  = errors.New("client requested repeating builds, but this is not currently implemented")
)

// Serve answers a client until it hangs up between requests, or until
// something fails: with ErrDisconnected if it hangs up within one.
func Serve(ctx context.Context, stream io.ReadWriter, h Handler, o Options) error {
	if o.Version == 0 {
		o.Version = Latest
	}
	in, out, err := ServerHandshake(wire.NewReader(stream), wire.NewWriter(stream), o.Dir, o.Version)
	if err != nil {
		return err
	}
	in.Features = o.Features
	s := server{h: h, o: o, in: in, out: out}
	for {
		in.StartRequest()
		command, err := in.Command()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = s.perform(ctx, command)
		}
		if err == nil {
			err = out.Flush()
		}
		if err != nil {
			return lost(err)
		}
	}
}

// server is one conversation.
type server struct {
	h   Handler
	o   Options
	in  *Reader
	out *Writer
}

func (s *server) perform(ctx context.Context, c Command) error {
	switch c {
	case QueryValidPaths:
		return s.validPaths(ctx)
	case QueryPathInfos:
		return s.pathInfos(ctx)
	case DumpStorePath:
		p, err := s.in.StorePath()
		if err != nil {
			return err
		}
		return s.h.Dump(ctx, p, s.out)
	case ImportPaths:
		return s.importPaths(ctx)
	case BuildPaths:
		return s.buildPaths(ctx)
	case QueryClosure:
		return s.closure(ctx)
	case BuildDerivation:
		return s.buildDerivation(ctx)
	case AddToStoreNar:
		return s.add(ctx)
	}
	return fmt.Errorf("unknown serve command %d", uint64(c))
}

func (s *server) validPaths(ctx context.Context) error {
	req, err := s.in.ValidPaths()
	if err != nil {
		return err
	}
	req.Lock = req.Lock && s.o.Write
	req.Substitute = req.Substitute && s.o.Write
	valid, err := s.h.ValidPaths(ctx, req)
	s.out.StorePaths(valid)
	return err
}

// pathInfos answers path by path, so that no reply is held whole.
func (s *server) pathInfos(ctx context.Context) error {
	paths, err := s.in.StorePaths()
	if err != nil {
		return err
	}
	for _, p := range paths {
		info, err := s.h.PathInfo(ctx, p)
		if err != nil {
			return err
		}
		if info != nil {
			s.out.StorePath(info.Path)
			s.out.Info(info)
		}
	}
	s.out.String("")
	return nil
}

func (s *server) importPaths(ctx context.Context) error {
	if !s.o.Write {
		return errNoImport
	}
	err := s.h.Import(ctx, s.in.Reader.Reader)
	s.out.Uint64(1)
	return err
}

func (s *server) buildPaths(ctx context.Context) error {
	if !s.o.Write {
		return errNoBuild
	}
	req, err := s.in.BuildPaths()
	if err == nil {
		err = req.Options.check()
	}
	if err != nil {
		return err
	}
	err = s.h.BuildPaths(ctx, req)
	var failure *BuildFailure
	if errors.As(err, &failure) {
		s.out.Uint64(failure.Status)
		s.out.String(failure.Message)
		return nil
	}
	s.out.Uint64(0)
	return err
}

func (o BuildOptions) check() error {
	if o.Repeats != 0 {
		return errRepeats
	}
	return nil
}

func (s *server) closure(ctx context.Context) error {
	includeOutputs, err := s.in.Bool()
	if err != nil {
		return err
	}
	paths, err := s.in.StorePaths()
	if err != nil {
		return err
	}
	closure, err := s.h.Closure(ctx, paths, includeOutputs)
	s.out.StorePaths(closure)
	return err
}

func (s *server) buildDerivation(ctx context.Context) error {
	if !s.o.Write {
		return errNoBuild
	}
	req, err := s.in.BuildDerivation()
	if err == nil {
		err = req.Options.check()
	}
	if err != nil {
		return err
	}
	res, err := s.h.BuildDerivation(ctx, req)
	s.out.BuildResult(res)
	return err
}

func (s *server) add(ctx context.Context) error {
	if !s.o.Write {
		return errNoImport
	}
	info, err := s.in.Addition()
	if err != nil {
		return err
	}
	data := &sized{r: s.in, left: info.NarSize}
	if err := s.h.Add(ctx, info, data); err != nil {
		return err
	}
	if err := data.drain(); err != nil {
		return err
	}
	s.out.Uint64(1)
	return nil
}

// sized is data whose length was told before; its early end is an error.
type sized struct {
	r    io.Reader
	left uint64
}

// Read reads.
func (s *sized) Read(p []byte) (int, error) {
	if s.left == 0 {
		return 0, io.EOF
	}
	n, err := s.r.Read(p[:min(uint64(len(p)), s.left)])
	s.left -= uint64(n)
	if err == io.EOF && s.left > 0 {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

func (s *sized) drain() error {
	_, err := io.Copy(io.Discard, s)
	return err
}
