package fstree

import (
	"sync"

	"golang.org/x/sys/unix"
)

// entry is one name of a directory.
type entry struct {
	name string
	ino  uint64 // 0 where the listing does not tell
	kind uint32 // a file type such as S_IFREG, or 0 where the listing does not tell
}

// lister reads directories, one after the other, through one buffer.
type lister struct {
	buf  []byte
	part []entry // see some
}

// listers lends listers, for their buffers.
type listers struct{ pool sync.Pool }

func (p *listers) borrow() *lister {
	if l, ok := p.pool.Get().(*lister); ok {
		return l
	}
	return new(lister)
}

func (p *listers) giveBack(l *lister) {
	clear(l.part[:cap(l.part)])
	p.pool.Put(l)
}

// listBufSize holds some hundred entries: one call for most directories.
const listBufSize = 32 << 10

// list reads the whole directory, in the order in which the file system has it.
func (l *lister) list(fd int) ([]entry, error) { return l.appendTo(nil, fd) }

// appendTo is list for who has a slice already.
func (l *lister) appendTo(out []entry, fd int) ([]entry, error) {
	for {
		n, err := l.next(fd)
		if err != nil || n == 0 {
			return out, err
		}
		out = parseDirents(l.buf[:n], out)
	}
}

// each calls visit for each entry, in the same order, and holds few of them at a time.
func (l *lister) each(fd int, visit func(*entry)) error {
	for {
		some, err := l.some(fd)
		if err != nil || len(some) == 0 {
			return err
		}
		for i := range some {
			visit(&some[i])
		}
	}
}

// some gives the next entries, which are valid until the lister reads on; none at the end.
func (l *lister) some(fd int) ([]entry, error) {
	for {
		n, err := l.next(fd)
		if err != nil || n == 0 {
			return nil, err
		}
		l.part = parseDirents(l.buf[:n], l.part[:0])
		if len(l.part) > 0 {
			return l.part, nil
		}
	}
}

// next fills the buffer; 0 is the end of the directory.
func (l *lister) next(fd int) (int, error) {
	if l.buf == nil {
		l.buf = make([]byte, listBufSize)
	}
	for {
		n, err := unix.ReadDirent(fd, l.buf)
		if err != unix.EINTR {
			return max(n, 0), err
		}
	}
}

// kindOf finds the type out where the listing left it open.
func (e *entry) kindOf(dir int) (uint32, error) {
	if e.kind == 0 {
		var st unix.Stat_t
		if err := fstatat(dir, e.name, &st); err != nil {
			return 0, err
		}
		e.kind = uint32(st.Mode) & unix.S_IFMT
	}
	return e.kind, nil
}
