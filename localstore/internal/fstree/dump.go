package fstree

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"nixdaemon/protocol/nar"
)

// DumpOptions say how a tree is read. The zero value takes names as they are.
type DumpOptions struct {
	// CaseHack undoes what [RestoreOptions.CaseHack] did.
	CaseHack bool
	// Map has large files mapped rather than read. What the archive is written to must be done with its argument when Write
	// returns. Other goroutines that it hands it to have to expect faults of memory.
	Map bool
	// Unread leaves the access times of what is read as they are, if the files are ours.
	Unread bool
}

// bigFile is the size from which contents bypass the archive writer's buffer.
const bigFile = 64 << 10

// bigChunk is how much of a big file is read at once.
const bigChunk = 256 << 10

// Dump writes the archive of the entry called name to w. It reads through one buffer; memory grows with the
// largest directory alone.
func (d *Dir) Dump(ctx context.Context, name string, w io.Writer, o DumpOptions) error {
	if err := checkName(name); err != nil {
		return err
	}
	dm := d.newDumper()
	defer d.putDumper(dm)
	dm.ctx, dm.opts = ctx, o
	dm.out.Reset(w)
	if err := dm.node(d.fd, &entry{name: name}, ""); err != nil {
		return err
	}
	return dm.out.Close()
}

// newDumper borrows a dumper, for its buffers; give it back with [Dir.putDumper].
func (d *Dir) newDumper() *dumper {
	if dm, ok := d.dumpers.Get().(*dumper); ok {
		return dm
	}
	return &dumper{top: d, out: nar.NewWriter(nil)}
}

func (d *Dir) putDumper(dm *dumper) {
	dm.ctx, dm.path = nil, dm.path[:0]
	dm.out.Reset(nil)
	d.dumpers.Put(dm)
}

type dumper struct {
	ctx   context.Context
	opts  DumpOptions
	top   *Dir
	out   *nar.Writer
	list  lister
	file  fdReader
	chunk []byte
	path  []string // names of the nodes on the way down, for messages
}

func (dm *dumper) node(parent int, e *entry, narName string) error {
	if len(dm.path) >= maxDepth {
		return fmt.Errorf("path '%s/%s' exceeds maximum NAR directory depth of %d", dm.where(), e.name, maxDepth)
	}
	dm.path = append(dm.path, e.name)
	defer func() { dm.path = dm.path[:len(dm.path)-1] }()
	if e.kind == 0 {
		if opened, err := dm.unknown(parent, e.name, narName); opened {
			return err
		}
	}
	kind, err := e.kindOf(parent)
	if err != nil {
		return dm.wrap("getting status of", err)
	}
	switch kind {
	case unix.S_IFREG:
		return dm.regular(parent, e.name, narName)
	case unix.S_IFDIR:
		return dm.directory(parent, e.name, narName)
	case unix.S_IFLNK:
		return dm.symlink(parent, e.name, narName)
	}
	return fmt.Errorf("file '%s' has an unsupported type", dm.where())
}

// unknown writes what may be a file or a directory, which is opened sooner than asked what it is: with a million names
// finding one takes as long as the rest. It tells whether it could be opened; links cannot.
func (dm *dumper) unknown(parent int, name, narName string) (opened bool, err error) {
	fd, err := dm.open(parent, name, openFileFlags)
	if err != nil {
		return false, nil
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := fstat(fd, &st); err != nil {
		return true, dm.wrap("getting status of", err)
	}
	switch {
	case isType(uint32(st.Mode), unix.S_IFREG):
		return true, dm.contents(fd, &st, narName)
	case isType(uint32(st.Mode), unix.S_IFDIR):
		return true, dm.inside(fd, narName)
	}
	return true, fmt.Errorf("file '%s' has an unsupported type", dm.where())
}

func (dm *dumper) regular(parent int, name, narName string) error {
	fd, err := dm.open(parent, name, openFileFlags)
	if err != nil {
		return dm.wrap("opening file", err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := fstat(fd, &st); err != nil {
		return dm.wrap("getting status of", err)
	}
	if !isType(uint32(st.Mode), unix.S_IFREG) {
		return fmt.Errorf("file '%s' has an unsupported type", dm.where())
	}
	return dm.contents(fd, &st, narName)
}

// openFileFlags are for reading a file. They do not block, in case somebody puts a pipe in the file's place.
const openFileFlags = unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC

func (dm *dumper) open(parent int, name string, flags int) (int, error) {
	if dm.opts.Unread {
		return openUnread(parent, name, flags)
	}
	return openat(parent, name, flags, 0)
}

// contents writes a regular file that is open.
func (dm *dumper) contents(fd int, st *unix.Stat_t, narName string) error {
	executable := st.Mode&unix.S_IXUSR != 0
	if st.Size < bigFile {
		dm.file.fd = fd
		return dm.out.Regular(narName, executable, uint64(st.Size), &dm.file)
	}
	if err := dm.out.Create(narName, executable, uint64(st.Size)); err != nil {
		return err
	}
	if dm.opts.Map && st.Size >= mapFrom {
		if err := dm.copyMapped(fd, st.Size); err != errNotMapped {
			return err
		}
	}
	return dm.copyBig(fd, st.Size)
}

func (dm *dumper) copyBig(fd int, left int64) error {
	if dm.chunk == nil {
		dm.chunk = make([]byte, bigChunk)
	}
	src := fdReader{fd}
	for left > 0 {
		if err := dm.ctx.Err(); err != nil {
			return context.Cause(dm.ctx)
		}
		n, err := io.ReadFull(src, dm.chunk[:min(left, bigChunk)])
		if err != nil {
			return dm.wrap("reading file", err)
		}
		if _, err := dm.out.Write(dm.chunk[:n]); err != nil {
			return err
		}
		left -= int64(n)
	}
	return nil
}

func (dm *dumper) directory(parent int, name, narName string) error {
	fd, err := dm.open(parent, name, openDirFlags)
	if err != nil {
		return dm.wrap("opening directory", err)
	}
	defer unix.Close(fd)
	return dm.inside(fd, narName)
}

// inside writes a directory that is open.
func (dm *dumper) inside(fd int, narName string) error {
	if err := dm.ctx.Err(); err != nil {
		return context.Cause(dm.ctx)
	}
	entries, err := dm.list.list(fd)
	if err != nil {
		return dm.wrap("reading directory", err)
	}
	if err := dm.out.Directory(narName); err != nil {
		return err
	}
	if err := dm.entries(fd, entries); err != nil {
		return err
	}
	return dm.out.EndDirectory()
}

func (dm *dumper) entries(fd int, entries []entry) error {
	narName := func(e *entry) string { return e.name }
	if dm.opts.CaseHack {
		narName = func(e *entry) string { return undoCaseHack(e.name) }
	}
	slices.SortFunc(entries, func(a, b entry) int { return cmp.Compare(narName(&a), narName(&b)) })
	for i := range entries {
		if i > 0 && narName(&entries[i]) == narName(&entries[i-1]) {
			return fmt.Errorf("file name collision between '%s/%s' and '%s/%s'", dm.where(), entries[i-1].name, dm.where(), entries[i].name)
		}
		if err := dm.node(fd, &entries[i], narName(&entries[i])); err != nil {
			return err
		}
	}
	return nil
}

func (dm *dumper) symlink(parent int, name, narName string) error {
	target, err := readlinkat(parent, name)
	if err != nil {
		return dm.wrap("reading symbolic link", err)
	}
	return dm.out.Symlink(narName, target)
}

func readlinkat(dir int, name string) (string, error) {
	var buf [nar.MaxTarget + 1]byte
	for {
		n, err := unix.Readlinkat(dir, name, buf[:])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return "", err
		}
		if n > nar.MaxTarget {
			return "", unix.ENAMETOOLONG
		}
		return string(buf[:n]), nil
	}
}

func (dm *dumper) where() string { return dm.top.path + "/" + strings.Join(dm.path, "/") }

func (dm *dumper) wrap(verb string, err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) || err == io.EOF {
		err = errors.New("unexpected end-of-file")
	}
	return fmt.Errorf("%s \"%s\": %w", verb, dm.where(), err)
}

// fdReader reads an open file; unlike os.File it costs nothing to make.
type fdReader struct{ fd int }

func (r fdReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		n, err := unix.Read(r.fd, p)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return 0, err
		case n == 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}
