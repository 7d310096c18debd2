package localstore

import (
	"context"
	"fmt"
	"io"

	"nixdaemon/localstore/internal/fstree"
	"nixdaemon/protocol/activity"
	"nixdaemon/protocol/nar"
	"nixdaemon/protocol/nixhash"
	"nixdaemon/protocol/pathinfo"
	"nixdaemon/protocol/storepath"
)

// DumpSpec says what contents are to be called, and how their address is made.
type DumpSpec struct {
	Name   string
	Method storepath.Method
	Algo   nixhash.Algo
	// References is a sorted set.
	References []storepath.Path
	// Scan, if not nil, is given the data as it comes, and then asked for the references instead.
	Scan RefScanner
	// Repair replaces contents that are valid.
	Repair bool
	// IsNAR says that the data is an archive of one file where Method would have the file's plain contents: old
	// clients send it so. For MethodNAR and MethodGit the data is an archive in any case.
	IsNAR bool
}

// RefScanner finds out what data refers to.
type RefScanner interface {
	io.Writer
	// References is a sorted set of what has been found in all that was written.
	References() []storepath.Path
}

func (spec *DumpSpec) isTree() bool {
	return spec.Method == storepath.MethodNAR || spec.Method == storepath.MethodGit
}

// AddDump adds contents under the path that follows from them, and gives the path's metadata. An archive is consumed
// exactly, plain contents up to the end of data. As long as they are smaller than Options.NarBufferSize they stay in
// memory until it is known whether they are needed; larger ones are staged in the store.
func (s *Store) AddDump(ctx context.Context, spec DumpSpec, data io.Reader, o AddOptions) (*pathinfo.Info, error) {
	h := s.acquire()
	defer h.release()
	o.Repair = o.Repair || spec.Repair
	d := &dump{s: s, h: h, spec: &spec, restoring: s.linking(h, &o)}
	defer d.close()
	if err := d.read(ctx, ctxReader(ctx, data)); err != nil {
		return nil, err
	}
	if err := s.step("received"); err != nil {
		return nil, err
	}
	info, err := d.info(ctx)
	if err != nil {
		return nil, err
	}
	a, err := s.begin(ctx, h, info.Path, &o)
	if err != nil {
		return nil, err
	}
	if a == nil {
		return s.pathInfoOf(ctx, h, info.Path)
	}
	err = d.add(ctx, a, info)
	a.end(err)
	if err != nil {
		return nil, err
	}
	return info, nil
}

func (s *Store) pathInfoOf(ctx context.Context, h *handle, p storepath.Path) (*pathinfo.Info, error) {
	info, err := s.pathInfo(ctx, h, p)
	if err == nil && info == nil {
		err = s.notValid(p)
	}
	return info, err
}

// dump is the contents of one AddDump.
type dump struct {
	s    *Store
	h    *handle
	spec *DumpSpec
	data spool
	sum  *hashWriter // of the data, as the address wants it
	nar  *hashWriter // of the archive; nil if that is sum, or found later

	staging   *Staging // nil as long as all is in memory
	restoring fstree.RestoreOptions
}

// stagedName is what the contents are called in the staging directory.
const stagedName = "x"

// read takes the data in, in one pass.
func (d *dump) read(ctx context.Context, r io.Reader) error {
	d.sum = newHashWriter(d.spec.Algo)
	d.data.sum = d.sum
	d.data.pool = &d.s.pieces
	d.data.limit = d.s.opts.NarBufferSize
	d.data.consume = func(r io.Reader) error { return d.stage(ctx, r) }
	err := d.receive(r)
	err = d.data.close(err)
	if err == nil && d.spec.Method == storepath.MethodGit && d.staging == nil {
		// Its hash is made from the tree.
		err = d.stage(ctx, d.data.reader())
	}
	return err
}

func (d *dump) receive(r io.Reader) error {
	if d.spec.Scan != nil {
		r = io.TeeReader(r, d.spec.Scan)
	}
	switch {
	case d.spec.isTree():
		if d.isArchiveHash() {
			_, err := nar.Copy(&d.data, r)
			return err
		}
		d.nar = newHashWriter(nixhash.SHA256)
		_, err := nar.Copy(io.MultiWriter(d.nar, &d.data), r)
		return err
	case d.spec.IsNAR:
		return nar.Parse(r, &singleFile{&d.data})
	}
	_, err := d.data.ReadFrom(r)
	return err
}

// isArchiveHash tells whether the address is made of the hash of the archive that every path has.
func (d *dump) isArchiveHash() bool {
	return d.spec.Method == storepath.MethodNAR && d.spec.Algo == nixhash.SHA256
}

// stage makes the contents in a directory of their own.
func (d *dump) stage(ctx context.Context, r io.Reader) error {
	st, err := d.s.StagingDir(ctx)
	if err != nil {
		return err
	}
	d.staging = st
	return d.restore(st.dir, stagedName, r)
}

func (d *dump) restore(dir *fstree.Dir, name string, r io.Reader) error {
	var err error
	if d.spec.isTree() {
		_, err = dir.Restore(name, r, nil, d.restoring)
	} else {
		_, err = dir.RestoreFile(name, r, d.restoring)
	}
	return err
}

// info is what the contents' metadata are.
func (d *dump) info(ctx context.Context) (*pathinfo.Info, error) {
	hash, size := d.sum.finish()
	var err error
	if d.spec.Method == storepath.MethodGit {
		hash, err = d.staging.dir.HashGit(ctx, stagedName, d.spec.Algo)
		if err != nil {
			return nil, err
		}
	}
	ca := storepath.ContentAddress{Method: d.spec.Method, Hash: hash}
	refs := d.spec.References
	if d.spec.Scan != nil {
		refs = d.spec.Scan.References()
	}
	info, err := pathinfo.FromCA(d.s.opts.StoreDir, d.spec.Name, ca, storepath.References{Others: refs})
	if err != nil {
		return nil, err
	}
	switch {
	case d.isArchiveHash():
		info.NarHash, info.NarSize = hash, size
	case d.nar != nil:
		info.NarHash, info.NarSize = d.nar.finish()
	case d.staging != nil:
		info.NarHash, info.NarSize, err = d.s.hashTree(ctx, d.staging.dir, stagedName)
	default:
		info.NarHash, info.NarSize, err = d.hashAsArchive()
	}
	return info, err
}

// hashAsArchive hashes the archive that a plain file in memory would have.
func (d *dump) hashAsArchive() (nixhash.Hash, uint64, error) {
	sum := newHashWriter(nixhash.SHA256)
	defer sum.stop()
	w := nar.NewWriter(sum)
	if err := w.Create("", false, uint64(d.data.size)); err != nil {
		return nixhash.Hash{}, 0, err
	}
	if _, err := d.data.reader().WriteTo(w); err != nil {
		return nixhash.Hash{}, 0, err
	}
	if err := w.Close(); err != nil {
		return nixhash.Hash{}, 0, err
	}
	hash, size := sum.finish()
	return hash, size, nil
}

// add puts the contents in place and registers them.
func (d *dump) add(ctx context.Context, a *adding, info *pathinfo.Info) error {
	if a.opts.Repair && d.staging == nil {
		if err := d.stage(ctx, d.data.reader()); err != nil {
			return err
		}
	}
	if err := d.place(ctx, a); err != nil {
		return err
	}
	if d.restoring.Link != nil {
		if err := d.restoring.Link.Root(ctx, a.path.Base(), info.NarHash); err != nil {
			return err
		}
	}
	var k known
	if info.Path.IsDerivation() && d.staging == nil && d.spec.Method == storepath.MethodText {
		drv, err := a.s.parseDerivation(info.Path, d.data.pieces)
		if err != nil {
			return err
		}
		k.drv = drv
	}
	if err := a.commit(ctx, info, k); err != nil {
		return err
	}
	if k.drv != nil {
		a.s.drvs.put(info.Path, k.drv, d.data.size)
	}
	return nil
}

func (d *dump) place(ctx context.Context, a *adding) error {
	if d.staging != nil {
		return a.replace(d.staging, stagedName)
	}
	if err := a.clear(ctx); err != nil {
		return err
	}
	if err := d.restore(a.h.root, a.path.Base(), d.data.reader()); err != nil {
		return err
	}
	return a.s.step("restored")
}

func (d *dump) close() {
	d.data.release()
	d.sum.stop()
	if d.nar != nil {
		d.nar.stop()
	}
	if d.staging != nil {
		if err := d.staging.Close(); err != nil {
			d.s.opts.Log(activity.Error, fmt.Sprintf("error: %v", err))
		}
	}
}

// singleFile accepts an archive of one file alone and passes its contents on.
type singleFile struct{ w io.Writer }

var _ nar.Handler = (*singleFile)(nil)

func (f *singleFile) Directory(string) error { return errNotRegular }

func (f *singleFile) EndDirectory() error { return errNotRegular }

func (f *singleFile) Symlink(string, string) error { return errNotRegular }

func (f *singleFile) Regular(_ string, _ bool, _ uint64, contents io.Reader) error {
	_, err := io.Copy(f.w, contents)
	return err
}
