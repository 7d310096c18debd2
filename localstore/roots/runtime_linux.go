package roots

import (
	"bytes"
	"context"
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// kernelFiles hold names of programs that the kernel starts.
var kernelFiles = [...]string{"sys/kernel/modprobe", "sys/kernel/fbsplash", "sys/kernel/poweroff_cmd"}

// runtime asks the process file system: programs, working directories, open and mapped files, and environments.
func (o *Options) runtime(ctx context.Context) (uses, error) {
	s := &procScan{Options: o, ctx: ctx, found: make(uses), prefix: []byte(string(o.Dir) + "/")}
	proc, err := openDir(unix.AT_FDCWD, o.ProcDir, o.ProcDir)
	if err != nil {
		// Without it nothing can be known; upstream goes on, too.
		return s.found, nil
	}
	defer proc.Close()
	names, err := proc.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if !isNumber(name) {
			continue
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err := s.process(int(proc.Fd()), name); err != nil && !isGone(err) {
			return nil, err
		}
	}
	for _, name := range kernelFiles {
		if err := s.file(int(proc.Fd()), name, s.whole, o.ProcDir, "/", name); err != nil && !isGone(err) {
			return nil, err
		}
	}
	return s.found, nil
}

// procScan is one pass over all processes, through one buffer.
type procScan struct {
	*Options
	ctx    context.Context
	prefix []byte // the store directory with a slash
	found  uses
	buf    []byte
	link   [maxLink]byte
}

// isGone tells whether a process ended, or is not ours to look at.
func isGone(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EPERM)
}

func isNumber(name string) bool {
	for i := range len(name) {
		if name[i] < '0' || name[i] > '9' {
			return false
		}
	}
	return true
}

func (s *procScan) process(proc int, pid string) error {
	dir, err := openat(proc, pid, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	label := s.ProcDir + "/" + pid
	for _, name := range []string{"exe", "cwd"} {
		if err := s.readLink(dir, name, label, "/", name); err != nil {
			return err
		}
	}
	if err := s.descriptors(dir, label); err != nil {
		return err
	}
	if err := s.file(dir, "maps", s.mapped, label, "/maps"); err != nil {
		return err
	}
	return s.file(dir, "environ", s.mentioned, label, "/environ")
}

func (s *procScan) descriptors(process int, label string) error {
	dir, err := openDir(process, "fd", label+"/fd")
	if err != nil {
		return err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := s.readLink(int(dir.Fd()), name, label, "/fd/", name); err != nil {
			return err
		}
	}
	return nil
}

func (s *procScan) readLink(dir int, name string, label ...string) error {
	n, err := readlinkInto(dir, name, s.link[:])
	if err != nil {
		if isGone(err) || err == unix.ENAMETOOLONG {
			return nil
		}
		return &os.PathError{Op: "readlink", Path: name, Err: err}
	}
	if target := s.link[:n]; bytes.HasPrefix(target, s.prefix) {
		s.found.add(s.Options, target, label...)
	}
	return nil
}

// file reads a whole file and gives its contents to scan.
func (s *procScan) file(dir int, name string, scan func(text []byte, label []string), label ...string) error {
	fd, err := openat(dir, name, unix.O_RDONLY|unix.O_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	text := s.buf[:0]
	for {
		if len(text) == cap(text) {
			text = append(text, make([]byte, max(64<<10, len(text)))...)[:len(text)]
		}
		n, err := unix.Read(fd, text[len(text):cap(text)])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		if n <= 0 {
			break
		}
		text = text[:len(text)+n]
	}
	s.buf = text
	scan(text, label)
	return nil
}

// whole takes the text for one file name.
func (s *procScan) whole(text []byte, label []string) {
	if bytes.HasPrefix(text, s.prefix) {
		s.found.add(s.Options, text, label...)
	}
}

// mapped finds the file names of /proc/<pid>/maps: a line's sixth column, if it is its last. A deleted file has a
// seventh.
func (s *procScan) mapped(text []byte, label []string) {
	s.each(text, func(at int, rest []byte) int {
		end := bytes.IndexByte(rest, '\n')
		if end < 0 {
			end = len(rest)
		}
		name := bytes.TrimRight(rest[:end], " \t\r\v\f")
		if at > 0 && text[at-1] == ' ' && !bytes.ContainsAny(name, " \t\r\v\f") {
			s.found.add(s.Options, name, label...)
		}
		return end
	})
}

// mentioned finds what looks like a store path, anywhere.
func (s *procScan) mentioned(text []byte, label []string) {
	s.each(text, func(_ int, rest []byte) int {
		end := len(s.prefix)
		if end < len(rest) && isLowerOrDigit(rest[end]) {
			for end < len(rest) && isPathByte(rest[end]) {
				end++
			}
			s.found.add(s.Options, rest[:end], label...)
		}
		return end
	})
}

// each calls hit wherever the store directory is named, with the text from there on; hit returns how much it used up.
func (s *procScan) each(text []byte, hit func(at int, rest []byte) int) {
	for at := 0; ; {
		i := bytes.Index(text[at:], s.prefix)
		if i < 0 {
			return
		}
		at += i
		at += hit(at, text[at:])
	}
}

func isLowerOrDigit(c byte) bool { return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' }

func isPathByte(c byte) bool {
	return isLowerOrDigit(c) || 'A' <= c && c <= 'Z' || bytes.IndexByte([]byte("+-._?="), c) >= 0
}
