package client

import (
	"context"
	"errors"
	"io"
	"slices"

	"nixdaemon/protocol"
	"nixdaemon/protocol/nar"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
	"nixdaemon/protocol/wire"
)

// ask makes a request and reads its reply.
func ask[T any](ctx context.Context, c *Client, op protocol.Op, request func(*protocol.Writer), read func(*protocol.Reader) (T, error)) (T, error) {
	var answer T
	err := c.Do(ctx, func(conn *Conn) error {
		return conn.Call(op, request, func(r *protocol.Reader) (err error) {
			answer, err = read(r)
			return err
		})
	})
	return answer, err
}

// tell makes a request whose reply is a meaningless number.
func tell(ctx context.Context, c *Client, op protocol.Op, request func(*protocol.Writer)) error {
	_, err := ask(ctx, c, op, request, func(r *protocol.Reader) (uint64, error) { return r.Uint64() })
	return err
}

func about(p storepath.Path) func(*protocol.Writer) {
	return func(w *protocol.Writer) { w.StorePath(p) }
}

func storePaths(r *protocol.Reader) ([]storepath.Path, error) { return r.StorePaths() }

// IsValid tells whether a path is valid.
func (c *Client) IsValid(ctx context.Context, p storepath.Path) (bool, error) {
	return ask(ctx, c, protocol.OpIsValidPath, about(p), func(r *protocol.Reader) (bool, error) { return r.Bool() })
}

// PathInfo gives the metadata of a path, nil if it is not valid.
func (c *Client) PathInfo(ctx context.Context, p storepath.Path) (*pathinfo.Info, error) {
	return ask(ctx, c, protocol.OpQueryPathInfo, about(p), func(r *protocol.Reader) (*pathinfo.Info, error) {
		return foundInfo(r, p)
	})
}

// infoBatch is how many metadata requests are sent before their replies are
// read: what fits the buffers of any transport, so that neither side waits for
// the other to read.
const infoBatch = 64

// PathInfos gives the metadata of those of the paths that are valid, without
// waiting for each reply before the next request.
func (c *Client) PathInfos(ctx context.Context, paths []storepath.Path) ([]*pathinfo.Info, error) {
	var infos []*pathinfo.Info
	for batch := range slices.Chunk(paths, infoBatch) {
		var found []*pathinfo.Info
		err := c.Do(ctx, func(conn *Conn) (err error) {
			found, err = conn.pathInfos(batch)
			return err
		})
		if err != nil {
			return nil, err
		}
		infos = append(infos, found...)
	}
	return infos, nil
}

// pathInfos reads all replies, also behind one that is an error.
func (c *Conn) pathInfos(paths []storepath.Path) ([]*pathinfo.Info, error) {
	for _, p := range paths {
		c.out.Op(protocol.OpQueryPathInfo)
		c.out.StorePath(p)
	}
	var infos []*pathinfo.Info
	var refusal error
	for _, p := range paths {
		err := c.finish(nil, func(r *protocol.Reader) error {
			info, err := foundInfo(r, p)
			if info != nil {
				infos = append(infos, info)
			}
			return err
		})
		if err != nil && !isRemote(err) {
			return nil, err
		}
		if refusal == nil {
			refusal = err
		}
	}
	return infos, refusal
}

// foundInfo reads the reply to OpQueryPathInfo; nil says that the path is not
// valid.
func foundInfo(r *protocol.Reader, p storepath.Path) (*pathinfo.Info, error) {
	valid, err := r.Bool()
	if err != nil || !valid {
		return nil, err
	}
	return r.InfoOf(p)
}

// ValidPaths gives those of the paths that are valid, after trying to
// substitute the others if asked to.
func (c *Client) ValidPaths(ctx context.Context, paths []storepath.Path, substitute bool) ([]storepath.Path, error) {
	return ask(ctx, c, protocol.OpQueryValidPaths, func(w *protocol.Writer) {
		w.StorePaths(paths)
		if w.Version.AtLeast(27) {
			w.Bool(substitute)
		}
	}, storePaths)
}

// AllValidPaths gives every valid path.
func (c *Client) AllValidPaths(ctx context.Context) ([]storepath.Path, error) {
	return ask(ctx, c, protocol.OpQueryAllValidPaths, nil, storePaths)
}

// Referrers gives the valid paths that refer to a path.
func (c *Client) Referrers(ctx context.Context, p storepath.Path) ([]storepath.Path, error) {
	return ask(ctx, c, protocol.OpQueryReferrers, about(p), storePaths)
}

// ValidDerivers gives the valid derivations of which a path is an output.
func (c *Client) ValidDerivers(ctx context.Context, p storepath.Path) ([]storepath.Path, error) {
	return ask(ctx, c, protocol.OpQueryValidDerivers, about(p), storePaths)
}

// PathFromHashPart gives the valid path with a hash part, or the zero path.
func (c *Client) PathFromHashPart(ctx context.Context, hashPart string) (storepath.Path, error) {
	return ask(ctx, c, protocol.OpQueryPathFromHashPart, func(w *protocol.Writer) { w.String(hashPart) },
		func(r *protocol.Reader) (storepath.Path, error) { return r.OptionalStorePath() })
}

// OutputMap gives the outputs of a derivation; the zero path is an unknown one.
// Daemons before 1.22 know none but those that stand in the derivation.
func (c *Client) OutputMap(ctx context.Context, drv storepath.Path) (map[string]storepath.Path, error) {
	if v, err := c.Negotiated(ctx); err != nil || !v.AtLeast(22) {
		return c.staticOutputs(ctx, drv, err)
	}
	return ask(ctx, c, protocol.OpQueryDerivationOutputMap, about(drv),
		func(r *protocol.Reader) (map[string]storepath.Path, error) { return r.OutputMap() })
}

// AddTempRoot protects a path for as long as the connection that carried the
// request stays open; with a pool, that is until the pool is closed or the
// connection breaks.
func (c *Client) AddTempRoot(ctx context.Context, p storepath.Path) error {
	return tell(ctx, c, protocol.OpAddTempRoot, about(p))
}

// Roots gives the garbage collector's roots.
func (c *Client) Roots(ctx context.Context) ([]protocol.Root, error) {
	return ask(ctx, c, protocol.OpFindRoots, nil, func(r *protocol.Reader) ([]protocol.Root, error) { return r.Roots() })
}

// ErrSpecificGC says that the daemon cannot confine a collection as asked
// (libstore/worker-protocol.cc).
var ErrSpecificGC = errors.New("Garbage collecting specific paths requested but it is not supported by the negotiated protocol")

// CollectGarbage runs a collection.
func (c *Client) CollectGarbage(ctx context.Context, req protocol.GCRequest) (protocol.GCResults, error) {
	v, err := c.Negotiated(ctx)
	if err != nil {
		return protocol.GCResults{}, err
	}
	if !v.Has(protocol.FeatureDeleteDeadSpecificReferrers) && !oldGC(req) {
		return protocol.GCResults{}, ErrSpecificGC
	}
	return ask(ctx, c, protocol.OpCollectGarbage, func(w *protocol.Writer) { w.GC(req) },
		func(r *protocol.Reader) (protocol.GCResults, error) { return r.GCResults() })
}

// oldGC tells whether a request means the same without the feature, where no
// paths are the whole store, unless given paths are to be deleted.
func oldGC(req protocol.GCRequest) bool {
	if req.Action == protocol.GCDeleteSpecific {
		return !req.WholeStore && !req.DeleteReferrers
	}
	return req.WholeStore && len(req.Paths) == 0
}

// Verify checks the store and tells whether errors were found.
func (c *Client) Verify(ctx context.Context, checkContents, repair bool) (bool, error) {
	return ask(ctx, c, protocol.OpVerifyStore, func(w *protocol.Writer) {
		w.Bool(checkContents)
		w.Bool(repair)
	}, func(r *protocol.Reader) (bool, error) { return r.Bool() })
}

// Server gives what the daemon says of itself.
func (c *Client) Server(ctx context.Context) (protocol.ServerInfo, error) {
	var info protocol.ServerInfo
	err := c.Do(ctx, func(conn *Conn) error {
		info = conn.Server()
		return nil
	})
	return info, err
}

// Negotiated is what is spoken with the daemon.
func (c *Client) Negotiated(ctx context.Context) (protocol.Version, error) {
	var v protocol.Version
	err := c.Do(ctx, func(conn *Conn) error {
		v = conn.Version()
		return nil
	})
	return v, err
}

// Dump writes the NAR of a valid path.
func (c *Client) Dump(ctx context.Context, p storepath.Path, w io.Writer) error {
	return c.Do(ctx, func(conn *Conn) error {
		return conn.Call(protocol.OpNarFromPath, about(p), func(r *protocol.Reader) error {
			r.Resize(bulkBuffer)
			defer r.Resize(wire.DefaultBufferSize)
			to := &sink{w: w}
			_, err := nar.Copy(to, r.Reader)
			if to.err != nil {
				return &dataError{to.err}
			}
			return err
		})
	})
}

// sink remembers that it was the receiver who failed, not the daemon.
type sink struct {
	w   io.Writer
	err error
}

// Write passes p on.
func (s *sink) Write(p []byte) (int, error) {
	n, err := s.w.Write(p)
	s.err = err
	return n, err
}

// bulkBuffer is the read buffer while an archive streams in.
const bulkBuffer = 256 << 10
