package serve

import (
	"errors"
	"fmt"
	"io"

	"nixdaemon/protocol"
	"nixdaemon/protocol/derivation"
	"nixdaemon/protocol/nar"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
	"nixdaemon/protocol/wire"
)

// Conn is a client's end, for one goroutine at a time. After an error of any
// method but those of [BuildFailure] it is of no use any more.
type Conn struct {
	in   *Reader
	out  *Writer
	host string
}

// Dial logs in to a server. Errors call it by the name of its host.
func Dial(stream io.ReadWriter, dir storepath.Dir, local Version, host string) (*Conn, error) {
	greeting := protocol.NewGreeting(stream)
	in, out, err := ClientHandshake(wire.NewReader(greeting), wire.NewWriter(stream), dir, local, host)
	if err == nil {
		greeting.Done()
		return &Conn{in: in, out: out, host: host}, nil
	}
	if text, junk := greeting.Junk(err); junk {
		return nil, fmt.Errorf("'nix-store --serve' protocol mismatch from '%s', got '%s'", host, text)
	}
	if greeting.Silent() {
		return nil, fmt.Errorf("cannot connect to '%s'", host)
	}
	return nil, err
}

// Version is what was negotiated.
func (c *Conn) Version() Version { return c.in.Version }

// Features are what replies may say.
func (c *Conn) Features(f derivation.Features) { c.in.Features = f }

// ErrDisconnected says that the other end hung up within a request or before
// its answer; a server has told why on its standard error. The text is that of
// upstream's end of file.
var ErrDisconnected = errors.New("unexpected end-of-file")

// lost gives the end of a stream a name.
func lost(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return ErrDisconnected
	}
	return err
}

// send ends a request; its reply has a bound of its own.
func (c *Conn) send() error {
	c.in.StartRequest()
	return c.out.Flush()
}

// ValidPaths asks which paths are valid.
func (c *Conn) ValidPaths(req ValidPathsRequest) ([]storepath.Path, error) {
	c.out.Command(QueryValidPaths)
	c.out.ValidPaths(req)
	if err := c.send(); err != nil {
		return nil, err
	}
	valid, err := c.in.StorePaths()
	return valid, lost(err)
}

// PathInfos gives the metadata of those of the paths that are valid, in their
// order.
func (c *Conn) PathInfos(paths []storepath.Path) ([]*pathinfo.Info, error) {
	if len(paths) == 0 {
		return nil, nil
	}
	asked := storepath.SortUnique(append([]storepath.Path{}, paths...))
	c.out.Command(QueryPathInfos)
	c.out.StorePaths(asked)
	if err := c.send(); err != nil {
		return nil, err
	}
	found := make(map[storepath.Path]*pathinfo.Info)
	for {
		p, err := c.in.OptionalStorePath()
		if err != nil {
			return nil, lost(err)
		}
		if p.IsZero() {
			break
		}
		if !storepath.Contains(asked, p) || found[p] != nil {
			return nil, wire.Errorf("More path infos returned than queried")
		}
		if found[p], err = c.info(p); err != nil {
			return nil, err
		}
	}
	var infos []*pathinfo.Info
	for _, p := range paths {
		if info := found[p]; info != nil {
			infos = append(infos, info)
		}
	}
	return infos, nil
}

var errNoHash = errors.New("NAR hash is now mandatory")

func (c *Conn) info(p storepath.Path) (*pathinfo.Info, error) {
	info, err := c.in.Info(p)
	if err == nil && info.NarHash == (nixhash.Hash{}) {
		err = errNoHash
	}
	return info, lost(err)
}

// Closure gives the paths with all that they refer to.
func (c *Conn) Closure(paths []storepath.Path, includeOutputs bool) ([]storepath.Path, error) {
	c.out.Command(QueryClosure)
	c.out.Bool(includeOutputs)
	c.out.StorePaths(paths)
	if err := c.send(); err != nil {
		return nil, err
	}
	closure, err := c.in.StorePaths()
	return closure, lost(err)
}

// bulkBuffer is the read buffer while an archive streams in.
const bulkBuffer = 256 << 10

// Dump writes the archive of a valid path. When its writer fails, the rest of
// the archive is on its way.
func (c *Conn) Dump(p storepath.Path, w io.Writer) error {
	c.out.Command(DumpStorePath)
	c.out.StorePath(p)
	if err := c.send(); err != nil {
		return err
	}
	c.in.Resize(bulkBuffer)
	defer c.in.Resize(wire.DefaultBufferSize)
	_, err := nar.Copy(w, c.in.Reader.Reader)
	return lost(err)
}

// Add adds a path, whose archive is written by a function. It is not held to
// the size that the metadata tell: whoever writes is.
func (c *Conn) Add(info *pathinfo.Info, narOf func(io.Writer) error) error {
	c.out.Command(AddToStoreNar)
	c.out.Addition(info)
	if err := narOf(c.out); err != nil {
		return err
	}
	if err := c.send(); err != nil {
		return err
	}
	n, err := c.in.Uint32()
	if err == nil && n != 1 {
		err = fmt.Errorf("failed to add path '%s' to remote host '%s'", c.in.Dir.Print(info.Path), c.host)
	}
	return lost(err)
}

// Import sends a stream in the format of "nix-store --export", as Hydra does.
func (c *Conn) Import(stream func(io.Writer) error) error {
	c.out.Command(ImportPaths)
	if err := stream(c.out); err != nil {
		return err
	}
	if err := c.send(); err != nil {
		return err
	}
	n, err := c.in.Uint32()
	if err == nil && n != 1 {
		err = errors.New("remote machine failed to import closure")
	}
	return lost(err)
}

// BuildPaths makes paths. Each is a path, or a derivation with names of its
// outputs; a derivation cannot be asked for as a file. A *BuildFailure leaves
// the connection as it was.
func (c *Conn) BuildPaths(paths []derivation.DerivedPath, o BuildOptions) error {
	texts := make([]string, len(paths))
	for i, p := range paths {
		var err error
		if texts[i], err = c.pathText(p); err != nil {
			return &BuildFailure{Status: 1, Message: err.Error()}
		}
	}
	c.out.Command(BuildPaths)
	c.out.Strings(texts)
	c.out.BuildOptions(o)
	if err := c.send(); err != nil {
		return err
	}
	status, err := c.in.Uint8()
	if err != nil || status == 0 {
		return lost(err)
	}
	message, err := c.in.String(wire.MaxString)
	if err != nil {
		return lost(err)
	}
	return &BuildFailure{Status: uint64(status), Message: message}
}

// pathText writes what derivation.ParsePathWithOutputs reads; errors are
// upstream's (libstore/legacy-ssh-store.cc, buildPaths).
func (c *Conn) pathText(p derivation.DerivedPath) (string, error) {
	switch {
	case p.Drv == nil && p.Path.IsDerivation():
		return "", fmt.Errorf("wanted to fetch '%s' but the legacy ssh protocol doesn't support merely substituting drv files via the build paths command. It would build them instead. Try using ssh-ng://", c.in.Dir.Print(p.Path))
	case p.Drv == nil:
		return c.in.Dir.Print(p.Path), nil
	case p.Drv.Drv != nil:
		return "", errors.New("wanted build derivation that is itself a build product, but the legacy ssh protocol doesn't support that. Try using ssh-ng://")
	}
	text := c.in.Dir.Print(p.Drv.Path)
	for i, name := range p.Outputs.Names {
		text += []string{"!", ","}[min(i, 1)] + name
	}
	return text, nil
}

// BuildDerivation builds a derivation that the server need not have.
func (c *Conn) BuildDerivation(req BuildDerivationRequest) (derivation.BuildResult, error) {
	if err := c.out.BuildDerivation(req); err != nil {
		return derivation.BuildResult{}, err
	}
	if err := c.send(); err != nil {
		return derivation.BuildResult{}, err
	}
	res, err := c.in.BuildResult()
	return res, lost(err)
}
