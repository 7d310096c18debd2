package fstree

import (
	"context"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// Measured is what can be told of a tree without reading any file.
type Measured struct {
	// Size is that of its archive, in bytes.
	Size uint64
	// Touched says that something has a mode or a time that no store object has, so that somebody has changed it, or
	// copied it from elsewhere.
	Touched bool
}

// Measure looks at the entry called name and all beneath it. It reads directories alone, so that it costs one system
// call for each file, whatever the file's size. What could not be in an archive is an error.
func (d *Dir) Measure(ctx context.Context, name string, o DumpOptions) (Measured, error) {
	if err := checkName(name); err != nil {
		return Measured{}, err
	}
	m, ok := d.measurers.Get().(*measurer)
	if !ok {
		m = &measurer{top: d}
	}
	m.ctx, m.opts, m.path = ctx, o, m.path[:0]
	m.sum = Measured{Size: sizeOf("nix-archive-1")}
	err := m.node(d.fd, name)
	sum := m.sum
	m.ctx = nil
	d.measurers.Put(m)
	return sum, err
}

type measurer struct {
	ctx  context.Context
	opts DumpOptions
	top  *Dir
	list lister
	path []string // as in dumper
	sum  Measured
}

// sizeOf is what strings take in an archive: a length each, and padding.
func sizeOf(texts ...string) uint64 {
	var size uint64
	for _, s := range texts {
		size += sizeOfBytes(uint64(len(s)))
	}
	return size
}

func sizeOfBytes(n uint64) uint64 { return 8 + (n+7)&^7 }

func (m *measurer) node(parent int, name string) error {
	if len(m.path) >= maxDepth {
		return fmt.Errorf("path '%s/%s' exceeds maximum NAR directory depth of %d", m.where(), name, maxDepth)
	}
	m.path = append(m.path, name)
	defer func() { m.path = m.path[:len(m.path)-1] }()
	var st unix.Stat_t
	if err := fstatat(parent, name, &st); err != nil {
		return m.wrap("getting status of", err)
	}
	mode := uint32(st.Mode)
	isLink := isType(mode, unix.S_IFLNK)
	if !mtimeIsCanonical(&st) || !isLink && canonicalMode(mode) != mode&^unix.S_IFMT {
		m.sum.Touched = true
	}
	m.sum.Size += sizeOf("(", "type", ")")
	switch {
	case isLink:
		m.sum.Size += sizeOf("symlink", "target") + sizeOfBytes(uint64(st.Size))
	case isType(mode, unix.S_IFREG):
		m.sum.Size += sizeOf("regular", "contents") + sizeOfBytes(uint64(st.Size))
		if mode&unix.S_IXUSR != 0 {
			m.sum.Size += sizeOf("executable", "")
		}
	case isType(mode, unix.S_IFDIR):
		m.sum.Size += sizeOf("directory")
		return m.directory(parent, name)
	default:
		return fmt.Errorf("file '%s' has an unsupported type", m.where())
	}
	return nil
}

func (m *measurer) directory(parent int, name string) error {
	if m.ctx.Err() != nil {
		return context.Cause(m.ctx)
	}
	fd, err := openUnread(parent, name, openDirFlags)
	if err != nil {
		return m.wrap("opening directory", err)
	}
	defer unix.Close(fd)
	entries, err := m.list.list(fd)
	if err != nil {
		return m.wrap("reading directory", err)
	}
	for i := range entries {
		as := entries[i].name
		if m.opts.CaseHack {
			as = undoCaseHack(as)
		}
		m.sum.Size += sizeOf("entry", "(", "name", as, "node", ")")
		if err := m.node(fd, entries[i].name); err != nil {
			return err
		}
	}
	return nil
}

func (m *measurer) where() string { return m.top.path + "/" + strings.Join(m.path, "/") }

func (m *measurer) wrap(verb string, err error) error {
	return fmt.Errorf("%s \"%s\": %w", verb, m.where(), err)
}
