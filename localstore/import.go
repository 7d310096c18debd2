package localstore

import (
	"context"
	"errors"
	"io"

	"nixdaemon/localstore/internal/fstree"
	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/nar"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
)

// Import adds many paths, as [Store.AddNAR] does one by one, and registers them in groups: what was added is valid
// after [Import.Flush] at the latest. Paths may refer to those added before them. It is for one goroutine.
type Import struct {
	s    *Store
	h    *handle
	opts AddOptions

	pending []*pathinfo.Info
	locked  []*adding
	known   map[storepath.Path]struct{} // the paths of pending
	bytes   uint64                      // of pending

	commits chan error // the registration that runs; nil for none
}

const (
	// maxPending bounds a group: each of its paths has a lock file open. Small groups let the same few files go round,
	// see [shortLocks], which saves more than fewer commits do.
	maxPending = 64

	// maxPendingBytes keeps a group that takes long to transfer from making others wait for its first paths.
	maxPendingBytes = 64 << 20
)

// NewImport begins an import. Close it.
func (s *Store) NewImport(o AddOptions) *Import {
	return &Import{s: s, h: s.acquire(), opts: o, known: make(map[storepath.Path]struct{})}
}

// Add takes in one path. Exactly one archive is consumed from r, as with [Store.AddNAR]. After an error what was added
// before may or may not be valid; the import goes on with the next path, if the position in r is still known.
func (im *Import) Add(ctx context.Context, info *pathinfo.Info, r io.Reader) error {
	r = ctxReader(ctx, r)
	a, err := im.admit(ctx, info)
	if a == nil || err != nil {
		return joinErrors(err, nar.Skip(r))
	}
	if im.opts.Repair {
		// Rare, and done one at a time.
		consumed := false
		err := a.importNAR(ctx, info, r, &consumed)
		a.end(err)
		if !consumed {
			err = joinErrors(err, nar.Skip(r))
		}
		return err
	}
	if err := a.restore(ctx, info, r); err != nil {
		a.end(err)
		return err
	}
	copied := *info
	im.pending = append(im.pending, &copied)
	im.locked = append(im.locked, a)
	im.known[info.Path] = struct{}{}
	im.bytes += info.NarSize
	if len(im.pending) >= maxPending || im.bytes >= maxPendingBytes {
		return im.commit(ctx)
	}
	return nil
}

// admit locks the path, waiting for nobody while other paths are locked: two imports of the same paths in different
// orders would wait for each other for ever.
func (im *Import) admit(ctx context.Context, info *pathinfo.Info) (*adding, error) {
	if _, twice := im.known[info.Path]; twice {
		return nil, nil
	}
	s, p := im.s, info.Path
	if err := s.checkTrust(info, &im.opts); err != nil {
		return nil, err
	}
	if im.opts.Repair {
		if err := im.Flush(ctx); err != nil {
			return nil, err
		}
		return s.begin(ctx, im.h, p, &im.opts)
	}
	if err := im.opts.root(ctx, p); err != nil {
		return nil, err
	}
	if valid, _, err := s.needless(ctx, im.h, p, &im.opts); valid || err != nil {
		return nil, err
	}
	if err := im.opts.room(ctx); err != nil {
		return nil, err
	}
	a := &adding{s: s, h: im.h, opts: &im.opts, path: p}
	locked, err := a.tryLock(ctx, false)
	if err == nil && !locked {
		if err = im.Flush(ctx); err == nil {
			err = a.lock(ctx)
		}
	}
	if err != nil {
		return nil, err
	}
	return a.recheck(ctx)
}

// restore puts a path's contents in place and checks them.
func (a *adding) restore(ctx context.Context, info *pathinfo.Info, r io.Reader) error {
	skip := true
	err := a.clear(ctx)
	if err == nil {
		skip = false
		err = a.restoreTo(ctx, a.h.root, a.path.Base(), info, r)
	}
	if skip {
		return joinErrors(err, nar.Skip(r))
	}
	return err
}

// restoreTo makes a tree of an archive and checks that it is what the metadata say. What is not is deleted.
func (a *adding) restoreTo(ctx context.Context, dir *fstree.Dir, name string, info *pathinfo.Info, r io.Reader) error {
	w := newHashWriter(nixhash.SHA256)
	defer w.stop()
	o := a.s.linking(a.h, a.opts)
	if _, err := dir.Restore(name, r, w, o); err != nil {
		return err
	}
	if err := a.s.step("restored"); err != nil {
		return err
	}
	hash, size := w.finish()
	if err := a.s.checkContents(ctx, dir, name, info, hash, size); err != nil {
		_, e := dir.Delete(ctx, name)
		return joinErrors(err, e)
	}
	if o.Link == nil {
		return nil
	}
	return o.Link.Root(ctx, name, hash)
}

// commit registers the group while the next one is taken in. Groups become valid in their order.
func (im *Import) commit(ctx context.Context) error {
	if err := im.wait(); err != nil {
		im.drop(err)
		return err
	}
	infos, locked := im.pending, im.locked
	if len(infos) == 0 {
		return nil
	}
	im.pending, im.locked, im.bytes = nil, nil, 0
	clear(im.known)
	im.commits = make(chan error, 1)
	done := im.commits
	go func() {
		err := im.register(ctx, infos)
		for _, a := range locked {
			a.endAs(err, true)
		}
		done <- err
	}()
	return nil
}

func (im *Import) register(ctx context.Context, infos []*pathinfo.Info) error {
	err := im.s.register(ctx, im.h, infos, known{})
	if err == nil || len(infos) == 1 || ctx.Err() != nil {
		return err
	}
	// One of them is wrong: those before it are not to suffer.
	for i := range infos {
		if err := im.s.register(ctx, im.h, infos[i:i+1], known{}); err != nil {
			return err
		}
	}
	return nil
}

func (im *Import) wait() error {
	if im.commits == nil {
		return nil
	}
	err := <-im.commits
	im.commits = nil
	return err
}

// drop gives up what is not registered: garbage from now on.
func (im *Import) drop(err error) {
	for _, a := range im.locked {
		a.end(err)
	}
	im.pending, im.locked, im.bytes = nil, nil, 0
	clear(im.known)
}

// Flush makes everything valid that was added, up to the first path that cannot be registered, whose error it gives.
// None of their lock files is left then.
func (im *Import) Flush(ctx context.Context) error {
	err := errors.Join(im.commit(ctx), im.wait())
	im.settle()
	return err
}

func (im *Import) settle() {
	if err := im.h.short.settle(); err != nil {
		im.s.opts.Log(activity.Error, err.Error())
	}
}

// Close ends the import; what was not flushed is dropped.
func (im *Import) Close() error {
	err := im.wait()
	im.drop(errors.New("import was given up"))
	im.settle()
	im.h.release()
	return err
}
