package client

import (
	"context"
	"errors"
	"io"

	"nixdaemon/protocol"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
	"nixdaemon/protocol/wire"
)

// copyFrom makes a data function of a reader.
func copyFrom(data io.Reader) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := io.Copy(w, data)
		return err
	}
}

// AddToStore adds content under its content address and gives its metadata;
// before protocol 1.25 nothing but the path is known. Data is a NAR or a
// file's bytes, as the request's method says.
func (c *Client) AddToStore(ctx context.Context, req protocol.AddToStoreRequest, data io.Reader) (*pathinfo.Info, error) {
	var info *pathinfo.Info
	request := func(w *protocol.Writer) { w.AddToStore(req) }
	err := c.Do(ctx, func(conn *Conn) error {
		if conn.Version().AtLeast(25) {
			return conn.CallFramed(protocol.OpAddToStore, request, copyFrom(data), func(r *protocol.Reader) (err error) {
				info, err = r.Info()
				return err
			})
		}
		return conn.CallRaw(protocol.OpAddToStore, request, copyFrom(data), func(r *protocol.Reader) error {
			p, err := r.StorePath()
			info = &pathinfo.Info{Path: p}
			return err
		})
	})
	return info, err
}

// AddText adds a text and gives its path.
func (c *Client) AddText(ctx context.Context, req protocol.AddTextRequest) (storepath.Path, error) {
	return ask(ctx, c, protocol.OpAddTextToStore, func(w *protocol.Writer) { w.AddText(req) },
		func(r *protocol.Reader) (storepath.Path, error) { return r.StorePath() })
}

// AddNAR adds a path with its metadata, in whichever of the three forms the
// daemon's version wants.
func (c *Client) AddNAR(ctx context.Context, req protocol.AddToStoreNarRequest, nar io.Reader) error {
	return c.addNAR(ctx, req, copyFrom(nar), func(call func(io.Reader) error) error { return call(nar) })
}

// AddWritten is AddNAR for an archive that is written by a function.
func (c *Client) AddWritten(ctx context.Context, req protocol.AddToStoreNarRequest, nar func(io.Writer) error) error {
	return c.addNAR(ctx, req, nar, func(call func(io.Reader) error) error {
		r, w := io.Pipe()
		done := make(chan struct{})
		go func() {
			defer close(done)
			w.CloseWithError(nar(w))
		}()
		err := call(r)
		r.CloseWithError(errAnswered)
		<-done
		return err
	})
}

// addNAR has the archive in both directions: pushed by push, and read by what
// pull calls.
func (c *Client) addNAR(ctx context.Context, req protocol.AddToStoreNarRequest, push func(io.Writer) error, pull func(func(io.Reader) error) error) error {
	request := func(w *protocol.Writer) { w.AddToStoreNar(req) }
	return c.Do(ctx, func(conn *Conn) error {
		switch {
		case conn.Version().AtLeast(23):
			return conn.CallFramed(protocol.OpAddToStoreNar, request, push, nil)
		case conn.Version().AtLeast(21):
			return pull(func(nar io.Reader) error {
				return conn.CallPulled(protocol.OpAddToStoreNar, request, nar, nil)
			})
		}
		return conn.CallRaw(protocol.OpAddToStoreNar, request, push, nil)
	})
}

// Addition is one path of AddMultiple.
type Addition struct {
	Info *pathinfo.Info
	NAR  io.Reader
}

// ErrNoBatch says that the daemon is too old to add several paths at once.
var ErrNoBatch = errors.New("daemon does not support adding multiple paths at once")

// AddMultiple adds paths in one stream, each after those that it refers to.
func (c *Client) AddMultiple(ctx context.Context, repair, dontCheckSigs bool, paths []Addition) error {
	return c.addMultiple(ctx, repair, dontCheckSigs, func(w io.Writer) error { return c.additions(w, paths) })
}

// AddManyWritten is AddMultiple for archives that are written by a function.
func (c *Client) AddManyWritten(ctx context.Context, repair, dontCheckSigs bool, infos []*pathinfo.Info, nar func(*pathinfo.Info, io.Writer) error) error {
	return c.addMultiple(ctx, repair, dontCheckSigs, func(to io.Writer) error {
		w := c.entryWriter(to)
		w.Uint64(uint64(len(infos)))
		for _, info := range infos {
			w.Info(info)
			if err := nar(info, w); err != nil {
				return err
			}
		}
		return w.Flush()
	})
}

// AddEntries is AddMultiple for paths that have the form of that request
// already: their number, then metadata as of 1.16 and a NAR each.
func (c *Client) AddEntries(ctx context.Context, repair, dontCheckSigs bool, entries io.Reader) error {
	return c.addMultiple(ctx, repair, dontCheckSigs, copyFrom(entries))
}

func (c *Client) addMultiple(ctx context.Context, repair, dontCheckSigs bool, data func(io.Writer) error) error {
	return c.Do(ctx, func(conn *Conn) error {
		if !conn.Version().AtLeast(32) {
			return ErrNoBatch
		}
		return conn.CallFramed(protocol.OpAddMultipleToStore, func(w *protocol.Writer) {
			w.Bool(repair)
			w.Bool(dontCheckSigs)
		}, data, nil)
	})
}

func (c *Client) additions(to io.Writer, paths []Addition) error {
	w := c.entryWriter(to)
	w.Uint64(uint64(len(paths)))
	for _, p := range paths {
		w.Info(p.Info)
		if _, err := io.Copy(w, p.NAR); err != nil {
			return err
		}
	}
	return w.Flush()
}

// entryWriter writes metadata in the form of OpAddMultipleToStore.
func (c *Client) entryWriter(to io.Writer) *protocol.Writer {
	return protocol.NewWriter(wire.NewWriter(to), c.o.Dir, protocol.Version{Number: protocol.Minor(16)})
}

// AddSignatures adds signatures to a valid path.
func (c *Client) AddSignatures(ctx context.Context, p storepath.Path, sigs []pathinfo.Signature) error {
	return tell(ctx, c, protocol.OpAddSignatures, func(w *protocol.Writer) {
		w.StorePath(p)
		w.Signatures(sigs)
	})
}

// AddBuildLog adds the log of a derivation's build.
func (c *Client) AddBuildLog(ctx context.Context, drv storepath.Path, log io.Reader) error {
	return c.Do(ctx, func(conn *Conn) error {
		return conn.CallFramed(protocol.OpAddBuildLog, func(w *protocol.Writer) { w.String(drv.Base()) },
			copyFrom(log), func(r *protocol.Reader) error {
				_, err := r.Uint64()
				return err
			})
	})
}
