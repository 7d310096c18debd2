package fstree

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"nixdaemon/protocol/nixhash"
)

// Optimiser gives equal files of a store one inode. In a directory beside the trees each file that it has met has a
// further name, the hash of the file's archive, so that contents and executable bit count; symbolic links too,
// where they can have several names. It may be used by several goroutines.
type Optimiser struct {
	store, links *Dir
	opts         OptimiseOptions

	inodes inodeSet // of the files in links
	sync   linkSync
	temps  atomic.Uint64
}

// OptimiseOptions say what becomes of oddities. Functions may be called from any goroutine; nil ones drop what they get.
type OptimiseOptions struct {
	// Repair compares the contents of links, too, before files are replaced by them.
	Repair bool
	// Sync makes a file durable before it takes the place of others.
	Sync bool
	// Linked is told of each file that was replaced: its size, and how many blocks of 512 bytes it had.
	Linked func(size, blocks uint64)
	// Warn and Info receive messages; Talkative those of each file.
	Warn, Info, Talkative func(text string)
}

// NewOptimiser makes an optimiser of trees in store, with the directory links, of the same file system.
func NewOptimiser(store, links *Dir, o OptimiseOptions) *Optimiser {
	nothing := func(string) {}
	if o.Linked == nil {
		o.Linked = func(_, _ uint64) {}
	}
	for _, f := range []*func(string){&o.Warn, &o.Info, &o.Talkative} {
		if *f == nil {
			*f = nothing
		}
	}
	return &Optimiser{store: store, links: links, opts: o}
}

// Load reads which files are linked already, which saves hashing them once more.
func (o *Optimiser) Load() (int, error) {
	fd, err := openUnread(o.links.fd, ".", openDirFlags)
	if err != nil {
		return 0, fmt.Errorf("opening directory \"%s\": %w", o.links.path, err)
	}
	defer unix.Close(fd)
	var inodes []uint64
	l := o.store.lists.borrow()
	defer o.store.lists.giveBack(l)
	err = l.each(fd, func(e *entry) {
		if e.ino != 0 {
			inodes = append(inodes, e.ino)
		}
	})
	if err != nil {
		return 0, fmt.Errorf("reading directory \"%s\": %w", o.links.path, err)
	}
	if o.opts.Sync {
		if err := o.sync.begin(o.store); err != nil {
			return 0, err
		}
		o.inodes.loadedDurable = true
	}
	o.inodes.load(inodes)
	return len(inodes), nil
}

// Tree links the files of the tree called name, which has canonical metadata and keeps it.
func (o *Optimiser) Tree(ctx context.Context, name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	t, ok := o.store.optimisings.Get().(*optimising)
	if !ok {
		t = &optimising{sum: nixhash.SHA256.New()}
	}
	t.Optimiser, t.ctx, t.dumper = o, ctx, o.store.newDumper()
	t.dumper.ctx, t.dumper.opts = ctx, DumpOptions{Map: true, Unread: true}
	_, err := t.node(o.store.fd, &entry{name: name}, true)
	o.store.putDumper(t.dumper)
	t.Optimiser, t.ctx, t.dumper = nil, nil, nil
	o.store.optimisings.Put(t)
	return err
}

// optimising is one tree.
type optimising struct {
	*Optimiser
	ctx  context.Context
	path []string

	list    lister
	entries []entry // of the directories on the way down
	sum     hash.Hash
	dumper  *dumper // writes to sum
}

// node tells whether the entry was replaced, so that its directory must get its metadata back.
func (t *optimising) node(parent int, e *entry, top bool) (replaced bool, err error) {
	if len(t.path) >= maxNesting {
		return false, nil // It would be no store object.
	}
	t.path = append(t.path, e.name)
	defer func() { t.path = t.path[:len(t.path)-1] }()
	if e.kind == 0 {
		var st unix.Stat_t
		if err := fstatat(parent, e.name, &st); err != nil {
			return false, t.wrap("getting status of", err)
		}
		e.kind, e.ino = uint32(st.Mode)&unix.S_IFMT, uint64(st.Ino)
		if top && e.kind == unix.S_IFREG && st.Mode&unix.S_IWUSR != 0 {
			t.suspect() // even if it is linked already
			return false, nil
		}
	}
	switch {
	case e.kind == unix.S_IFDIR:
		if excludedFromLinking(t.where) {
			return false, nil
		}
		return false, t.directory(parent, e.name)
	case e.ino != 0 && t.inodes.has(e.ino), excludedFromLinking(t.where):
		return false, nil
	case e.kind == unix.S_IFREG, e.kind == unix.S_IFLNK && canLinkSymlinks:
		return t.file(parent, e.name, e.kind, top)
	}
	return false, nil
}

func (t *optimising) directory(parent int, name string) error {
	fd, err := openUnread(parent, name, openDirFlags)
	if err != nil {
		return t.wrap("opening directory", err)
	}
	defer unix.Close(fd)
	return t.contents(fd)
}

func (t *optimising) contents(fd int) error {
	if t.ctx.Err() != nil {
		return context.Cause(t.ctx)
	}
	above := len(t.entries)
	all, err := t.list.appendTo(t.entries, fd)
	if err != nil {
		return t.wrap("reading directory", err)
	}
	t.entries = all
	defer func() {
		clear(t.entries[above:])
		t.entries = t.entries[:above]
	}()
	entries := all[above:]
	changed := false
	for i := range entries {
		replaced, e := t.node(fd, &entries[i], false)
		changed = changed || replaced
		if e != nil {
			err = e
			break
		}
	}
	if changed {
		if e := restoreDir(fd); err == nil && e != nil {
			err = t.wrap("restoring metadata of", e)
		}
	}
	return err
}

// restoreDir undoes what replacing an entry did to its directory.
func restoreDir(fd int) error {
	if err := retry(func() error { return unix.Fchmod(fd, modeDir) }); err != nil {
		return err
	}
	return setTime(fd)
}

// file links one file. It tells whether the directory that holds it was changed.
func (t *optimising) file(parent int, name string, kind uint32, top bool) (bool, error) {
	var st unix.Stat_t
	hash, ok, err := t.hashNew(parent, name, kind, &st)
	if !ok || err != nil {
		return false, err
	}
	return t.join(parent, name, &st, hash, top)
}

// hashNew hashes a file that is to be linked, and tells whether it is. What is opened to be read anyway is looked at then.
func (t *optimising) hashNew(parent int, name string, kind uint32, st *unix.Stat_t) (h nixhash.Hash, ok bool, err error) {
	if kind == unix.S_IFLNK {
		if err := fstatat(parent, name, st); err != nil {
			return h, false, t.wrap("getting status of", err)
		}
		if st.Nlink > 1 && t.inodes.has(uint64(st.Ino)) {
			return h, false, nil
		}
		h, err = t.hash(parent, name)
		return h, err == nil, err
	}
	fd, err := openUnread(parent, name, openFileFlags)
	if err != nil {
		return h, false, t.wrap("opening file", err)
	}
	defer unix.Close(fd)
	if err := fstat(fd, st); err != nil {
		return h, false, t.wrap("getting status of", err)
	}
	switch {
	case !isType(uint32(st.Mode), unix.S_IFREG):
		return h, false, nil // It is something else by now.
	case st.Mode&unix.S_IWUSR != 0:
		t.suspect()
		return h, false, nil
	case st.Nlink > 1 && t.inodes.has(uint64(st.Ino)):
		return h, false, nil
	}
	h, err = t.summed(func(dm *dumper) error {
		dm.path = append(dm.path[:0], t.path...)
		return dm.contents(fd, st, "")
	})
	return h, err == nil, err
}

func (t *optimising) suspect() {
	t.opts.Warn(fmt.Sprintf("skipping suspicious writable file '\"%s\"'", t.where()))
}

// join links a file whose hash is known. It tells whether the directory that holds it was changed.
func (t *optimising) join(parent int, name string, st *unix.Stat_t, hash nixhash.Hash, top bool) (bool, error) {
	link := hash.Nix32()
	changed := false
	for try := 1; ; try++ {
		var is unix.Stat_t
		linked, err := t.addLink(parent, name, link, st, &is, hash)
		if linked || err != nil {
			return changed, err
		}
		replaced, err := t.replace(parent, name, link, st, &is, top)
		changed = changed || replaced
		if errors.Is(err, fs.ErrNotExist) && try < sweptTries && t.swept(t.links, link) {
			continue
		}
		return changed, err
	}
}

// sweptTries is how often a collector may remove what we are about to use.
const sweptTries = 10

// swept tells whether a name is gone. To a collector a link that no tree uses yet is one that none uses any more, and a
// temporary name is what a dead process left behind.
func (t *optimising) swept(dir *Dir, name string) bool {
	var st unix.Stat_t
	return fstatat(dir.fd, name, &st) == unix.ENOENT
}

func (t *optimising) hash(dir int, name string) (nixhash.Hash, error) {
	return t.summed(func(dm *dumper) error {
		dm.path = dm.path[:0]
		return dm.node(dir, &entry{name: name}, "")
	})
}

// summed hashes the archive of what dump writes.
func (t *optimising) summed(dump func(*dumper) error) (nixhash.Hash, error) {
	t.sum.Reset()
	t.dumper.out.Reset(t.sum)
	if err := dump(t.dumper); err != nil {
		return nixhash.Hash{}, err
	}
	if err := t.dumper.out.Close(); err != nil {
		return nixhash.Hash{}, err
	}
	return nixhash.FromSum(nixhash.SHA256, t.sum), nil
}

// addLink gives the file its name among the links, if the name is free. It tells whether nothing is left to be done; if not,
// what the link is.
func (t *optimising) addLink(parent int, name, link string, st, is *unix.Stat_t, hash nixhash.Hash) (bool, error) {
	for {
		err := retry(func() error { return unix.Linkat(parent, name, t.links.fd, link, 0) })
		switch err {
		case nil:
			t.inodes.add(uint64(st.Ino), t.opts.Sync && t.sync.unchanged(st))
			return true, nil
		case unix.EEXIST:
		case unix.ENOSPC:
			// On ext4: the directory's index is full. This file then stays as it is.
			t.opts.Info(fmt.Sprintf("cannot link \"%s\" to '\"%s\"': No space left on device", t.links.join(link), t.where()))
			return true, nil
		case unix.EMLINK:
			return true, nil
		default:
			return false, fmt.Errorf("creating hard link from \"%s\" to \"%s\": %w", t.links.join(link), t.where(), err)
		}
		intact, err := t.intact(link, st, is, hash)
		if errors.Is(err, fs.ErrNotExist) {
			continue // just collected: the next attempt makes it
		}
		if intact || err != nil {
			return false, err
		}
		t.opts.Warn(fmt.Sprintf("removing corrupted link \"%s\"", t.links.join(link)))
		t.opts.Warn("There may be more corrupted paths." +
			"\nYou should run `nix-store --verify --check-contents --repair` to fix them all")
		if err := unlink(t.links.fd, link, 0); err != nil && err != unix.ENOENT {
			return false, t.links.wrap("cannot unlink", link, err)
		}
	}
}

// intact tells whether a link still is what its name says: by its size, or when repairing by its contents.
func (t *optimising) intact(link string, st, is *unix.Stat_t, hash nixhash.Hash) (bool, error) {
	if err := fstatat(t.links.fd, link, is); err != nil {
		return false, t.links.wrap("getting status of", link, err)
	}
	if is.Size != st.Size {
		return false, nil
	}
	if !t.opts.Repair {
		return true, nil
	}
	got, err := t.hash(t.links.fd, link)
	return err == nil && got == hash, err
}

// replace puts a further name of the link in the file's place.
func (t *optimising) replace(parent int, name, link string, st, is *unix.Stat_t, top bool) (bool, error) {
	if is.Ino == st.Ino {
		t.inodes.add(uint64(st.Ino), false)
		return false, nil
	}
	if err := t.syncLink(link, is); err != nil {
		return false, err
	}
	linked, changed, err := t.swap(parent, name, link, st.Size, top)
	if !linked || err != nil {
		return changed, err
	}
	t.inodes.add(uint64(is.Ino), false)
	t.linked(link, st)
	// The store's own directory keeps its times.
	return !top, nil
}

// linked tells that a file has got the inode of a link.
func (t *optimising) linked(link string, st *unix.Stat_t) {
	t.opts.Talkative(fmt.Sprintf("linking \"%s\" to \"%s\"", t.where(), t.links.join(link)))
	t.opts.Linked(uint64(st.Size), uint64(st.Blocks))
}

// swap puts a further name of the link in the file's place, unless the link can have no more names. It tells whether it
// did, and whether the directory was changed, even if it is made writable and nothing more.
func (t *optimising) swap(parent int, name, link string, size int64, top bool) (linked, changed bool, err error) {
	for try := 1; ; try++ {
		temp, err := t.linkTemp(link, size)
		if temp == "" || err != nil {
			return false, changed, err
		}
		rename := func() error { return unix.Renameat(t.store.fd, temp, parent, name) }
		err = retry(rename)
		if err == unix.EACCES && !top && makeWritable(parent) == nil {
			changed = true
			err = retry(rename)
		}
		if err == nil {
			return true, !top, nil
		}
		if err == unix.ENOENT && try < sweptTries && t.swept(t.store, temp) {
			continue
		}
		if e := unlink(t.store.fd, temp, 0); e != nil && err != unix.ENOENT {
			t.opts.Warn(fmt.Sprintf("unable to unlink \"%s\": %s", t.store.join(temp), e))
		}
		if err == unix.EMLINK {
			return false, changed, nil
		}
		return false, changed, fmt.Errorf("renaming \"%s\" to \"%s\": %w", t.store.join(temp), t.where(), err)
	}
}

// linkTemp gives the link a name beside the trees, or none if it has as many names as a file can have. A name may be
// taken: by another optimiser, by what a dead process left, or by a builder that means harm.
func (t *optimising) linkTemp(link string, size int64) (string, error) {
	for {
		temp := ".tmp-link-" + strconv.Itoa(os.Getpid()) + "-" + strconv.FormatUint(t.temps.Add(1), 10)
		err := retry(func() error { return unix.Linkat(t.links.fd, link, t.store.fd, temp, 0) })
		switch err {
		case nil:
			return temp, nil
		case unix.EEXIST:
			continue
		case unix.EMLINK:
			if size > 0 {
				t.opts.Info(fmt.Sprintf("\"%s\" has maximum number of links", t.links.join(link)))
			}
			return "", nil
		}
		return "", fmt.Errorf("creating hard link from \"%s\" to \"%s\": %w", t.links.join(link), t.store.join(temp), err)
	}
}

func (t *optimising) where() string { return t.store.path + "/" + strings.Join(t.path, "/") }

func (t *optimising) wrap(verb string, err error) error {
	return fmt.Errorf("%s \"%s\": %w", verb, t.where(), err)
}

// NameOfFile gives the name that a file among the links must have: the hash of its archive.
func (d *Dir) NameOfFile(ctx context.Context, name string) (string, error) {
	if err := checkName(name); err != nil {
		return "", err
	}
	sum := nixhash.SHA256.New()
	if err := d.Dump(ctx, name, sum, DumpOptions{Map: true, Unread: true}); err != nil {
		return "", err
	}
	return nixhash.FromSum(nixhash.SHA256, sum).Nix32(), nil
}
