package worker

import (
	"cmp"
	"context"
	"errors"
	"io"
	"slices"
	"strings"

	"nixdaemon/localstore"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
	"nixdaemon/protocol/wire"
)

// addOptions are what every addition on behalf of this client shares.
func (c *conn) addOptions() localstore.AddOptions {
	s := c.sess.Settings
	return localstore.AddOptions{
		Room:        c.room(),
		RequireSigs: c.o.RequireSigs,
		TrustedKeys: c.o.Keys(s),
		Optimise:    s.AutoOptimiseStore,
		Log:         c.sess.Log,
		Roots:       c.sess.Roots,
	}
}

// framed gives the data that follows a request to f and leaves the stream
// behind it whatever f does with it. A stream that breaks off ends the
// connection, and so does the end of the context, which says that nobody waits
// for the answer. The text end is for data that is shorter than it says.
func (c *conn) framed(ctx context.Context, end refusal, f func(*wire.FramedReader) error) error {
	data := c.in.Framed()
	err := f(data)
	if data.Ended() && errors.Is(err, io.ErrUnexpectedEOF) {
		err = end
	}
	if err != nil && ctx.Err() != nil {
		c.breakOff(context.Cause(ctx))
		return err
	}
	if broken := data.Drain(); broken != nil {
		c.breakOff(broken)
		err = cmp.Or(err, broken)
	}
	return err
}

func (c *conn) addToStore(ctx context.Context) error {
	req, err := c.in.AddToStore()
	if err != nil {
		return err
	}
	var info *pathinfo.Info
	add := func(data io.Reader) error {
		method, algo, err := req.Method(c.in.Features)
		if err != nil {
			return err
		}
		o := c.addOptions()
		o.Repair = req.Repair
		info, err = c.o.Store.AddDump(ctx, localstore.DumpSpec{
			Name: req.Name, Method: method, Algo: algo, References: req.References,
			Repair: req.Repair, IsNAR: req.DataIsNAR,
		}, data, o)
		return err
	}
	if req.DataIsNAR {
		return c.work(func() error { return c.raw(ctx, add) }, func() { c.out.StorePath(info.Path) })
	}
	return c.work(func() error {
		return c.framed(ctx, textDumpEnd, func(data *wire.FramedReader) error { return add(data) })
	}, func() { c.out.Info(info) })
}

// raw gives a NAR that follows a request bare to f. Nothing but reading it
// tells where it ends, so an error within it ends the connection.
func (c *conn) raw(ctx context.Context, f func(io.Reader) error) error {
	archive := newRawNAR(c.in.Reader)
	defer archive.abandon()
	err := f(wire.NewReaderSize(archive, pullSize))
	if err != nil && ctx.Err() != nil {
		c.breakOff(context.Cause(ctx))
		return err
	}
	if broken := archive.finish(); broken != nil {
		return c.breakOff(broken) // whatever f has made of it
	}
	return err
}

func (c *conn) addTextToStore(ctx context.Context) error {
	req, err := c.in.AddText()
	if err != nil {
		return err
	}
	var info *pathinfo.Info
	return c.work(func() (err error) {
		info, err = c.o.Store.AddDump(ctx, localstore.DumpSpec{
			Name: req.Name, Method: storepath.MethodText, Algo: nixhash.SHA256, References: req.References,
		}, strings.NewReader(req.Text), c.addOptions())
		return err
	}, func() { c.out.StorePath(info.Path) })
}

func (c *conn) addToStoreNar(ctx context.Context) error {
	req, err := c.in.AddToStoreNar()
	if err != nil {
		return err
	}
	o := c.addOptions()
	o.Repair = req.Repair
	o.DontCheckSigs = req.DontCheckSigs && c.o.Trusted
	if !c.o.Trusted {
		req.Info.Ultimate = false
	}
	add := func(data io.Reader) error {
		if err := c.checkSignatures(req.Info.Sigs); err != nil {
			return err
		}
		return c.o.Store.AddNAR(ctx, req.Info, data, o)
	}
	return c.work(func() error {
		return c.unchecked(o, c.paths(req.Info.Path), func() error {
			switch {
			case c.in.Version.AtLeast(23):
				return c.framed(ctx, textFramesEnd, func(data *wire.FramedReader) error { return add(data) })
			case c.in.Version.AtLeast(21):
				return c.pull(add)
			}
			return c.raw(ctx, add)
		})
	}, nil)
}

// unchecked is audited for additions whose signatures nobody looks at.
func (c *conn) unchecked(o localstore.AddOptions, about func(*Privilege), add func() error) error {
	if !o.DontCheckSigs || !c.o.RequireSigs {
		return add()
	}
	return c.audited(ActionImport, about, add)
}

// addMultipleToStore adds paths that come one after the other in a single
// stream, each after those that it refers to.
func (c *conn) addMultipleToStore(ctx context.Context) error {
	repair, dontCheckSigs, err := c.in.AddMultipleToStore()
	if err != nil {
		return err
	}
	o := c.addOptions()
	o.Repair = repair
	o.DontCheckSigs = dontCheckSigs && c.o.Trusted
	return c.work(func() error {
		c.in.Resize(pullSize) // one read takes many small paths
		defer c.in.Resize(wire.DefaultBufferSize)
		var added []storepath.Path
		about := func(deed *Privilege) { c.paths(added...)(deed) }
		return c.unchecked(o, about, func() error {
			return c.framed(ctx, textFramesEnd, func(data *wire.FramedReader) error { return c.addEntries(ctx, data, o, &added) })
		})
	}, nil)
}

// addEntries notes what it is given if nobody checks it.
func (c *conn) addEntries(ctx context.Context, data *wire.FramedReader, o localstore.AddOptions, given *[]storepath.Path) error {
	entries := c.in.Entry(data)
	defer entries.Release()
	entries.Features = c.in.Features
	if c.forward != nil {
		return c.forward.AddEntries(ctx, entries, o)
	}
	count, err := entries.Uint64()
	if err != nil {
		return unexpected(err)
	}
	return c.o.Store.AddNARs(ctx, func() (*pathinfo.Info, io.Reader, error) {
		if count == 0 {
			return nil, nil, io.EOF
		}
		count--
		entries.StartRequest()
		info, err := entries.Info()
		if errors.Is(err, io.EOF) { // fewer than were announced
			err = io.ErrUnexpectedEOF
		}
		if err == nil {
			err = c.checkSignatures(info.Sigs)
		}
		if err != nil {
			return nil, nil, err
		}
		info.Ultimate = false
		if o.DontCheckSigs {
			*given = append(*given, info.Path)
		}
		return info, entries, nil
	}, o)
}

func (c *conn) addSignatures(ctx context.Context) error {
	p, err := c.in.StorePath()
	if err != nil {
		return err
	}
	sigs, err := c.in.Signatures()
	if err != nil {
		return err
	}
	return c.work(func() error {
		if !c.o.Trusted && c.forward == nil {
			info, err := c.o.Store.PathInfo(ctx, p)
			if err != nil {
				return err
			}
			if err := c.checkSignatures(slices.Concat(info.Sigs, sigs)); err != nil {
				return err
			}
		}
		return c.o.Store.AddSignatures(ctx, p, sigs)
	}, c.one)
}

// maxSignatures bounds, in bytes, what untrusted clients make a path's
// signatures: everybody who asks for the path gets them all. Some hundred fit.
const maxSignatures = 64 << 10

func (c *conn) checkSignatures(sigs []pathinfo.Signature) error {
	size := 0
	for _, sig := range sigs {
		size += len(sig)
	}
	if size > maxSignatures && !c.o.Trusted {
		return refuseSignatures
	}
	return nil
}

// addBuildLog takes the log off the stream even when it is refused: upstream
// leaves it there, and the connection is lost.
func (c *conn) addBuildLog(ctx context.Context) error {
	base, err := c.in.Text()
	if err != nil {
		return err
	}
	drv, err := storepath.ParseBase(base)
	if err != nil {
		return err
	}
	return c.work(func() error {
		return c.framed(ctx, textFramesEnd, func(log *wire.FramedReader) error {
			return c.audited(ActionLog, c.paths(drv), func() error {
				if !c.o.Trusted {
					return refuseLogs
				}
				return c.o.Store.AddBuildLog(ctx, drv, log)
			})
		})
	}, c.one)
}
