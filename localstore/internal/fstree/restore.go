package fstree

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"nixdaemon/protocol/nar"
	"nixdaemon/protocol/nixhash"
)

// RestoreOptions say how a tree is made. The zero value makes it as it stands in the archive.
type RestoreOptions struct {
	// CaseHack renames entries that differ from an earlier one of their directory in case alone (libutil/archive.cc).
	CaseHack bool
	// DropACLs removes access control lists that were inherited from the parent directory (see [Dir.InheritsACL]),
	// except IgnoredACLs.
	DropACLs    bool
	IgnoredACLs []string
	// Preallocate sets room aside for files before they are written, where the file system can. Small files that are linked
	// are not: their contents are all there before they are made, and one write lays them out in one piece, or finds the disk
	// full, as well as fallocate(2) would (upstream's, which come in pieces, are set aside whatever their size).
	Preallocate bool
	// Link, if not nil, links what is beneath a directory to what equals it, by hashes that are computed while it is
	// written. A root that is no directory is left to [Optimiser.Root].
	Link *Optimiser
}

// Restore reads one archive from r and makes its tree as the entry called name, which must not exist. Everything has
// its canonical metadata from the start: no second pass. It fails with [io/fs.ErrExist] before it made anything
// if the name is taken; after any other error what was made is removed again.
//
// The archive's bytes are also written to tee, unless that is nil, and their number is returned.
func (d *Dir) Restore(name string, r io.Reader, tee io.Writer, o RestoreOptions) (int64, error) {
	if err := checkName(name); err != nil {
		return 0, err
	}
	re := &restorer{opts: o, root: name, top: d}
	size, err := re.parse(r, tee)
	if e := re.small.end(re, err == nil); err == nil {
		err = e
	}
	re.closeAll()
	if err == nil {
		err = d.dropInherited(name, o)
	}
	if err != nil && re.made {
		if _, e := d.Delete(context.Background(), name); e != nil {
			err = errors.Join(err, e)
		}
	}
	return size, err
}

// RestoreFile makes a regular file of what r gives, as Restore does, and tells its size.
func (d *Dir) RestoreFile(name string, r io.Reader, o RestoreOptions) (uint64, error) {
	if err := checkName(name); err != nil {
		return 0, err
	}
	re := &restorer{opts: o, root: name, top: d}
	size, err := re.plain(r)
	if err == nil {
		err = d.dropInherited(name, o)
	}
	if err != nil && re.made {
		if _, e := d.Delete(context.Background(), name); e != nil {
			err = errors.Join(err, e)
		}
	}
	return size, err
}

// dropInherited deals with access control lists that the store's own directory passes on: rare, and then the whole
// tree has them.
func (d *Dir) dropInherited(name string, o RestoreOptions) error {
	if !o.DropACLs {
		return nil
	}
	return d.Canonicalise(context.Background(), name, CanonicaliseOptions{IgnoredACLs: o.IgnoredACLs})
}

// restorer makes the nodes of one archive.
type restorer struct {
	opts RestoreOptions
	top  *Dir
	root string
	made bool // the root exists and is ours
	open []*openDir
	file fileWriter

	small  smallFiles
	unmade []*openDir // directories that have ended, but for files that are still being made
}

type openDir struct {
	fd      int
	name    string
	parent  *openDir // nil for the root
	cases   caseNames
	waiting int // files that are still to be made in it
	ended   bool
}

// within is the path of an entry of the directory, from the root on.
func (d *openDir) within(name string) string {
	for ; d != nil; d = d.parent {
		name = d.name + "/" + name
	}
	return name
}

var _ nar.Handler = (*restorer)(nil)

func (re *restorer) parse(r io.Reader, tee io.Writer) (int64, error) {
	p, ok := re.top.parsers.Get().(*nar.Parser)
	if !ok {
		p = new(nar.Parser)
	}
	defer re.top.parsers.Put(p)
	if tee == nil {
		return 0, p.Parse(r, re)
	}
	return p.ParseTee(r, tee, re)
}

// parent is the directory in which the next node is made, and the name that it gets there.
func (re *restorer) parent(name string) (int, string, error) {
	if len(re.open) == 0 {
		return re.top.fd, re.root, nil
	}
	dir := re.open[len(re.open)-1]
	if !re.opts.CaseHack {
		return dir.fd, name, nil
	}
	name, err := dir.cases.rename(name)
	return dir.fd, name, err
}

// Directory makes a directory that stays writable until its end.
func (re *restorer) Directory(name string) error {
	parent, name, err := re.parent(name)
	if err != nil {
		return err
	}
	if err := retry(func() error { return unix.Mkdirat(parent, name, 0o755) }); err != nil {
		return re.wrap("creating directory", name, err)
	}
	re.made = true
	fd, err := openat(parent, name, openDirFlags, 0)
	if err != nil {
		return re.wrap("opening directory", name, err)
	}
	dir := &openDir{fd: fd, name: name}
	if last := len(re.open) - 1; last >= 0 {
		dir.parent = re.open[last]
	}
	re.open = append(re.open, dir)
	return nil
}

// EndDirectory gives the directory its metadata, at once or after the files that are still to be made in it.
func (re *restorer) EndDirectory() error {
	last := len(re.open) - 1
	dir := re.open[last]
	dir.ended = true
	re.open = re.open[:last]
	if dir.waiting > 0 {
		re.unmade = append(re.unmade, dir)
		return nil
	}
	return re.endDirectory(dir)
}

func (re *restorer) endDirectory(dir *openDir) error {
	err := retry(func() error { return unix.Fchmod(dir.fd, modeDir) })
	if err == nil {
		err = setTime(dir.fd)
	}
	if e := unix.Close(dir.fd); err == nil {
		err = e
	}
	if err != nil {
		return fmt.Errorf("finishing directory \"%s/%s\": %w", re.top.path, dir.parent.within(dir.name), err)
	}
	return nil
}

// Regular makes a file.
func (re *restorer) Regular(name string, executable bool, size uint64, contents io.Reader) error {
	if size <= smallFile && re.hashes() {
		return re.addSmall(name, executable, size, contents)
	}
	fd, name, err := re.create(name, executable)
	if err != nil {
		return err
	}
	re.file = fileWriter{fd: fd}
	if re.opts.Preallocate && size > 0 {
		if err := preallocate(fd, size); err != nil {
			unix.Close(fd)
			return re.wrap(fmt.Sprintf("preallocating %d bytes of file", size), name, err)
		}
	}
	var hash nixhash.Hash
	if re.hashes() {
		hash, err = re.hashed(executable, size, contents)
	} else {
		_, err = contents.(io.WriterTo).WriteTo(&re.file)
	}
	if err == nil {
		err = re.top.finishFile(&re.file, executable)
	}
	if e := unix.Close(fd); err == nil {
		err = e
	}
	if err != nil {
		return re.wrap("writing file", name, err)
	}
	if re.hashes() {
		return re.link(name, hash)
	}
	return nil
}

// hashed writes a file and gives its own hash.
func (re *restorer) hashed(executable bool, size uint64, contents io.Reader) (nixhash.Hash, error) {
	sum := re.top.newSum()
	defer re.top.putSum(sum)
	if err := sum.begin(&re.file, executable, size); err != nil {
		return nixhash.Hash{}, err
	}
	if _, err := contents.(io.WriterTo).WriteTo(sum); err != nil {
		return nixhash.Hash{}, err
	}
	return sum.finish()
}

func (re *restorer) plain(r io.Reader) (uint64, error) {
	fd, name, err := re.create("", false)
	if err != nil {
		return 0, err
	}
	re.file = fileWriter{fd: fd}
	size, err := io.Copy(&re.file, r)
	if err == nil {
		err = re.top.finishFile(&re.file, false)
	}
	if e := unix.Close(fd); err == nil {
		err = e
	}
	if err != nil {
		return 0, re.wrap("writing file", name, err)
	}
	return uint64(size), nil
}

func (re *restorer) create(name string, executable bool) (int, string, error) {
	parent, name, err := re.parent(name)
	if err != nil {
		return -1, name, err
	}
	fd, err := createFile(parent, name, executable)
	if err != nil {
		return -1, name, re.wrap("creating file", name, err)
	}
	re.made = true
	return fd, name, nil
}

func createFile(parent int, name string, executable bool) (int, error) {
	return openat(parent, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, fileMode(executable))
}

func fileMode(executable bool) uint32 {
	if executable {
		return modeExec
	}
	return modeFile
}

// finishFile gives a written file its metadata: its mode is right since its creation, unless the umask is strange.
func (d *Dir) finishFile(w *fileWriter, executable bool) error {
	if err := w.end(); err != nil {
		return err
	}
	if err := d.fixMode(w.fd, executable); err != nil {
		return err
	}
	return setTime(w.fd)
}

// createdModes remembers what the umask and inherited lists leave of the two modes, as seen on the first file of each.
type createdModes struct{ plain, executable atomic.Int32 }

const (
	modeUnseen = iota
	modeKept
	modeChanged
)

func (d *Dir) fixMode(fd int, executable bool) error {
	seen, mode := &d.created.plain, fileMode(executable)
	if executable {
		seen = &d.created.executable
	}
	if seen.Load() == modeUnseen {
		var st unix.Stat_t
		if err := fstat(fd, &st); err != nil {
			return err
		}
		if uint32(st.Mode)&0o7777 == mode {
			seen.Store(modeKept)
		} else {
			seen.Store(modeChanged)
		}
	}
	if seen.Load() == modeKept {
		return nil
	}
	return retry(func() error { return unix.Fchmod(fd, mode) })
}

// Symlink makes a link.
func (re *restorer) Symlink(name, target string) error {
	parent, name, err := re.parent(name)
	if err != nil {
		return err
	}
	if err := retry(func() error { return unix.Symlinkat(target, parent, name) }); err != nil {
		return re.wrap("creating symlink", name, err)
	}
	re.made = true
	if err := setTimeAt(parent, name); err != nil {
		return re.wrap("changing modification time of", name, err)
	}
	if re.hashes() && canLinkSymlinks {
		sum := re.top.newSum()
		defer re.top.putSum(sum)
		hash, err := sum.symlink(target)
		if err == nil {
			err = re.link(name, hash)
		}
		return err
	}
	return nil
}

func (re *restorer) closeAll() {
	for _, dir := range append(re.open, re.unmade...) {
		unix.Close(dir.fd)
	}
	re.open, re.unmade = nil, nil
}

func (re *restorer) wrap(verb, name string, err error) error {
	if last := len(re.open) - 1; last >= 0 {
		name = re.open[last].within(name)
	}
	return fmt.Errorf("%s \"%s\": %w", verb, re.top.join(name), err)
}
