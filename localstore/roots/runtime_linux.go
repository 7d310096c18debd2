package roots

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// kernelFiles hold names of programs that the kernel starts.
var kernelFiles = [...]string{"sys/kernel/modprobe", "sys/kernel/fbsplash", "sys/kernel/poweroff_cmd"}

// runtime asks the process file system: programs, working directories, open and mapped files, and environments.
func (o *Options) runtime(ctx context.Context) (uses, error) {
	found := make(uses)
	proc, err := openDir(unix.AT_FDCWD, o.ProcDir, o.ProcDir)
	if err != nil {
		// Without it nothing can be known; upstream goes on, too.
		return found, nil
	}
	defer proc.Close()
	names, err := proc.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	names = slices.DeleteFunc(names, func(name string) bool { return !isNumber(name) })
	var next atomic.Int64
	scans := make([]procScan, min(scanners, runtime.GOMAXPROCS(0)))
	group, ctx := errgroup.WithContext(ctx)
	for i := range scans {
		s := &scans[i]
		*s = procScan{Options: o, ctx: ctx, found: make(uses), prefix: []byte(string(o.Dir) + "/")}
		group.Go(func() error { return s.processes(int(proc.Fd()), names, &next) })
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	for _, name := range kernelFiles {
		if err := scans[0].file(int(proc.Fd()), name, '\n', scans[0].whole, o.ProcDir, "/", name); err != nil && !isGone(err) {
			return nil, err
		}
	}
	for i := range scans {
		maps.Copy(found, scans[i].found)
	}
	return found, nil
}

// processes looks at those processes that no other scan has taken.
func (s *procScan) processes(proc int, names []string, next *atomic.Int64) error {
	for {
		i := int(next.Add(1)) - 1
		if i >= len(names) {
			return nil
		}
		if s.ctx.Err() != nil {
			return context.Cause(s.ctx)
		}
		if err := s.process(proc, names[i]); err != nil && !isGone(err) {
			return err
		}
	}
}

// procScan is one goroutine's pass over processes, through one buffer.
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
	// The kernel's own threads, and what is left of processes, have no program: there is nothing else to be found then.
	if none, err := s.readLink(dir, "exe", label, "/exe"); none || err != nil {
		return err
	}
	if _, err := s.readLink(dir, "cwd", label, "/cwd"); err != nil {
		return err
	}
	if err := s.descriptors(dir, label); err != nil {
		return err
	}
	if err := s.file(dir, "maps", '\n', s.mapped, label, "/maps"); err != nil {
		return err
	}
	return s.file(dir, "environ", 0, s.mentioned, label, "/environ")
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
	fd := int(dir.Fd())
	for _, name := range names {
		if _, err := s.readLink(fd, name, label, "/fd/", name); err != nil {
			return err
		}
	}
	return nil
}

// readLink notes where a link leads; none tells that there is no such link.
func (s *procScan) readLink(dir int, name string, label ...string) (none bool, err error) {
	n, err := readlinkInto(dir, name, s.link[:])
	if err != nil {
		if isGone(err) || err == unix.ENAMETOOLONG {
			return err == unix.ENOENT, nil
		}
		return false, &os.PathError{Op: "readlink", Path: name, Err: err}
	}
	if target := s.link[:n]; bytes.HasPrefix(target, s.prefix) {
		s.found.add(s.Options, target, label...)
	}
	return false, nil
}

// readSize is how much of a file is read at a time, in bytes. Files of sys refuse reads of 4 MiB
// (fs/proc/proc_sysctl.c, proc_sys_call_handler: ENOMEM), and the others give less than this anyway.
const readSize = 64 << 10

// file gives what a file says to scan, a number of whole items at a time, each of which ends with that byte: a user
// can make the names of what a process has mapped take hundreds of megabytes.
func (s *procScan) file(dir int, name string, end byte, scan func(text []byte, label []string), label ...string) error {
	fd, err := openat(dir, name, unix.O_RDONLY|unix.O_CLOEXEC)
	if err != nil {
		return &os.PathError{Op: "open", Path: strings.Join(label, ""), Err: err}
	}
	defer unix.Close(fd)
	text := s.buf[:0]
	for {
		text = slices.Grow(text, readSize)
		n, err := unix.Read(fd, text[len(text):len(text)+readSize])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return &os.PathError{Op: "read", Path: strings.Join(label, ""), Err: err}
		}
		if n <= 0 {
			break
		}
		text = text[:len(text)+n]
		whole := bytes.LastIndexByte(text, end) + 1
		scan(text[:whole], label)
		text = text[:copy(text, text[whole:])]
	}
	scan(text, label)
	s.buf = text
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
