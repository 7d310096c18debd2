package fstree

import "golang.org/x/sys/unix"

// entry is one name of a directory.
type entry struct {
	name string
	ino  uint64 // 0 where the listing does not tell
	kind uint32 // a file type such as S_IFREG, or 0 where the listing does not tell
}

// lister reads directories, one after the other, through one buffer.
type lister struct{ buf []byte }

// bufSize holds some hundred entries: one call for most directories.
const listBufSize = 32 << 10

// list reads the whole directory, in the order in which the file system has it.
func (l *lister) list(fd int) (out []entry, err error) {
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
	var some []entry
	for {
		n, err := l.next(fd)
		if err != nil || n == 0 {
			return err
		}
		some = parseDirents(l.buf[:n], some[:0])
		for i := range some {
			visit(&some[i])
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
