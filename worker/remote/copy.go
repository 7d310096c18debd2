package remote

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sync/atomic"
	"time"

	"nixdaemon/localstore"
	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
	"nixdaemon/worker/remote/peer"
)

// closureOptions are for what a path refers to.
var closureOptions = localstore.ClosureOptions{}

// copying tells of several paths that are copied, and of each (libstore/store-api.cc, copyPaths).
type copying struct {
	log   activity.Sink
	ids   *activity.IDs
	id    activity.ID
	total int
	done  int
}

func (w *errand) copying(infos []*pathinfo.Info) *copying {
	c := &copying{log: w.task.Log, ids: w.b.o.IDs, id: w.b.o.IDs.Next(), total: len(infos)}
	c.log.Start(c.id, activity.Info, activity.CopyPaths, fmt.Sprintf("copying %d paths", len(infos)), nil, 0)
	var size uint64
	for _, info := range infos {
		size += info.NarSize
	}
	c.log.Result(c.id, activity.SetExpected, []activity.Field{activity.Number(uint64(activity.CopyPath)), activity.Number(size)})
	return c
}

func (c *copying) end() { c.log.Stop(c.id) }

// path tells of one path while f copies it, with a writer that counts.
func (c *copying) path(text string, fields []activity.Field, size uint64, f func(*meter) error) error {
	m := &meter{log: c.log, id: c.ids.Next(), size: size}
	c.log.Start(m.id, activity.Info, activity.CopyPath, text, fields, c.id)
	defer c.log.Stop(m.id)
	if err := f(m); err != nil {
		return err
	}
	m.show()
	c.done++
	c.log.Result(c.id, activity.Progress, []activity.Field{
		activity.Number(uint64(c.done)), activity.Number(uint64(c.total)), activity.Number(0), activity.Number(0),
	})
	return nil
}

// meter tells how much of a path was copied, not too often.
type meter struct {
	log   activity.Sink
	id    activity.ID
	size  uint64
	count atomic.Uint64
	shown time.Time
}

const meterInterval = 100 * time.Millisecond

// Write counts.
func (m *meter) Write(p []byte) (int, error) {
	m.count.Add(uint64(len(p)))
	if now := time.Now(); now.Sub(m.shown) >= meterInterval {
		m.shown = now
		m.show()
	}
	return len(p), nil
}

func (m *meter) show() {
	m.log.Result(m.id, activity.Progress, []activity.Field{
		activity.Number(m.count.Load()), activity.Number(m.size), activity.Number(0), activity.Number(0),
	})
}

// localName is how messages call a store of this machine.
const localName = "local"

// copyingText does not name a store of this machine (libstore/store-api.cc, makeCopyPathMessage). which says where the
// machine stands.
func (w *errand) copyingText(path, which, from, to string) string {
	if w.b.o.StoreURI == localName {
		return fmt.Sprintf("copying path '%s' %s '%s'", path, which, w.store.URI())
	}
	return fmt.Sprintf("copying path '%s' from '%s' to '%s'", path, from, to)
}

// send copies those of the paths to the machine that are missing there. All are valid here.
func (w *errand) send(paths []storepath.Path) error {
	valid, err := w.store.ValidPaths(w.ctx, paths, w.set.BuildersUseSubstitutes)
	if err != nil {
		return err
	}
	var infos []*pathinfo.Info
	for _, p := range paths {
		if slices.Contains(valid, p) {
			continue
		}
		info, err := w.b.o.Store.PathInfo(w.ctx, p)
		if err != nil {
			return here(err)
		}
		copied := *info
		copied.Ultimate = false
		infos = append(infos, &copied)
	}
	c := w.copying(infos)
	defer c.end()
	var ours error
	err = w.store.Import(w.ctx, infos, func(ctx context.Context, info *pathinfo.Info, to io.Writer) error {
		path := w.b.o.Dir.Print(info.Path)
		text := w.copyingText(path, "to", w.b.o.StoreURI, w.store.URI())
		fields := []activity.Field{activity.Text(path), activity.Text(w.b.o.StoreURI), activity.Text(w.store.URI())}
		return c.path(text, fields, info.NarSize, func(m *meter) error {
			out := &sending{to: to}
			err := w.b.o.Store.Dump(ctx, info.Path, io.MultiWriter(out, m))
			if err != nil && out.err == nil {
				ours = err
			}
			return err
		})
	}, peer.ImportOptions{DontCheckSigs: true, Log: w.theirs})
	if ours != nil {
		return here(ours)
	}
	return err
}

// sending notes whether it is the receiver who fails.
type sending struct {
	to  io.Writer
	err error
}

func (s *sending) Write(p []byte) (int, error) {
	n, err := s.to.Write(p)
	if err != nil {
		s.err = err
	}
	return n, err
}

// fetch makes paths of the machine valid here, without asking for signatures: the machine is the administrator's, and
// the caller holds their locks.
func (w *errand) fetch(paths []storepath.Path) error {
	infos, err := w.infos(paths)
	if err != nil {
		return err
	}
	c := w.copying(infos)
	defer c.end()
	for _, info := range infos {
		path := w.b.o.Dir.Print(info.Path)
		text := w.copyingText(path, "from", w.store.URI(), w.b.o.StoreURI)
		fields := []activity.Field{activity.Text(path), activity.Text(w.store.URI()), activity.Text(w.b.o.StoreURI)}
		err := c.path(text, fields, info.NarSize, func(m *meter) error { return w.fetchOne(info, m) })
		if err != nil {
			return err
		}
	}
	return nil
}

// infos are the paths' metadata, in an order in which they can be added.
func (w *errand) infos(paths []storepath.Path) ([]*pathinfo.Info, error) {
	infos, err := w.store.PathInfos(w.ctx, paths)
	if err != nil {
		return nil, err
	}
	byPath := make(map[storepath.Path]*pathinfo.Info, len(infos))
	for _, info := range infos {
		copied := *info
		copied.Ultimate = false
		byPath[info.Path] = &copied
	}
	var order []*pathinfo.Info
	// The outputs of a derivation are too few for recursion to be deep.
	var visit func(p storepath.Path)
	visit = func(p storepath.Path) {
		info := byPath[p]
		if info == nil {
			return
		}
		delete(byPath, p) // a circle is found when it is added
		for _, ref := range info.References {
			visit(ref)
		}
		order = append(order, info)
	}
	for _, p := range paths {
		if !slices.ContainsFunc(infos, func(i *pathinfo.Info) bool { return i.Path == p }) {
			return nil, &localError{&localstore.NotValidError{Path: w.b.o.Dir.Print(p)}}
		}
		visit(p)
	}
	return order, nil
}

func (w *errand) fetchOne(info *pathinfo.Info, m *meter) error {
	nar, err := w.store.NAR(w.ctx, info.Path)
	if err != nil {
		return err
	}
	in := &receiving{from: nar}
	err = w.b.o.Store.AddNAR(w.ctx, info, io.TeeReader(in, m), localstore.AddOptions{
		DontCheckSigs: true, Optimise: w.set.AutoOptimiseStore, Log: w.task.Log, Roots: w.task.Roots,
		LocksHeld: func(storepath.Path) bool { return true },
	})
	closeErr := nar.Close()
	if in.err != nil {
		return in.err
	}
	if err != nil {
		return here(err)
	}
	return closeErr
}

// receiving notes whether it is the sender who fails.
type receiving struct {
	from io.Reader
	err  error
}

func (r *receiving) Read(p []byte) (int, error) {
	n, err := r.from.Read(p)
	if err != nil && err != io.EOF {
		r.err = err
	}
	return n, err
}
