package roots

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"nixdaemon/localstore/pathlock"
	"nixdaemon/protocol/activity"
)

// Temporary gives the temporary roots of all living processes, valid or not, and removes the files of dead ones.
func Temporary(ctx context.Context, o Options) (Roots, error) {
	h, err := Hold(ctx, o)
	if err != nil {
		return nil, err
	}
	h.Release()
	return h.Roots, nil
}

// Held are temporary roots together with what keeps those processes from adding more that could not tell a collector
// by any other way: releases before 2.4 do not know its socket, and wait for the lock on their own file.
type Held struct {
	Roots Roots
	files []*os.File
}

// Release lets the processes go on.
func (h *Held) Release() {
	closeAll(h.files)
	h.files = nil
}

// Hold is [Temporary] for a collector, which calls Release once it deletes no more.
func Hold(ctx context.Context, o Options) (*Held, error) {
	o = o.withDefaults()
	path := filepath.Join(o.StateDir, "temproots")
	h := &Held{Roots: make(Roots)}
	dir, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return h, o.inProcess(h.Roots)
	}
	if err != nil {
		return nil, fmt.Errorf("find temporary roots: %w", err)
	}
	defer dir.Close()
	entries, err := dir.ReadDir(-1)
	if err != nil {
		return nil, fmt.Errorf("find temporary roots: %w", err)
	}
	for _, e := range entries {
		if err = context.Cause(ctx); err == nil && e.Name()[0] != '.' {
			err = o.tempFile(h, int(dir.Fd()), e.Name(), path+"/"+e.Name())
		}
		if err != nil {
			h.Release()
			return nil, err
		}
	}
	return h, o.inProcess(h.Roots)
}

// inProcess adds what no file told of, as happens when the directory was deleted beneath us.
func (o *Options) inProcess(roots Roots) error {
	if o.InProcess == nil {
		return nil
	}
	paths, err := o.InProcess()
	if err != nil {
		return fmt.Errorf("find temporary roots: %w", err)
	}
	for _, p := range paths {
		if _, known := roots[p]; !known {
			roots.add(p, o.tempLabel(strconv.Itoa(os.Getpid())))
		}
	}
	return nil
}

func (o *Options) tempLabel(process string) string {
	if o.Censor {
		return Censored
	}
	return "{temp:" + process + "}"
}

// tempFile reads one file, which may vanish at any time. Its owner holds the lock on it as long as it lives.
func (o *Options) tempFile(h *Held, dir int, name, path string) error {
	fd, err := openat(dir, name, unix.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC)
	if err == unix.ENOENT || err == unix.ELOOP || err == unix.EISDIR || err == unix.ENXIO {
		return nil
	}
	if err != nil {
		return fmt.Errorf("opening temporary roots file \"%s\": %w", path, err)
	}
	file := os.NewFile(uintptr(fd), path)
	keep, err := o.readTempFile(h, file, dir, name)
	if keep {
		h.files = append(h.files, file)
	} else {
		file.Close()
	}
	return err
}

// readTempFile tells whether the file is to stay open, since it is locked.
func (o *Options) readTempFile(h *Held, file *os.File, dir int, name string) (keep bool, err error) {
	if st, err := file.Stat(); err != nil || !st.Mode().IsRegular() {
		return false, err
	}
	stale, err := pathlock.TryFlock(file, pathlock.Exclusive)
	if err != nil {
		return false, fmt.Errorf("lock temporary roots file \"%s\": %w", file.Name(), err)
	}
	if stale {
		return false, o.removeStaleFile(file, dir, name)
	}
	// Current releases hold the exclusive lock, so that this fails.
	if keep, err = pathlock.TryFlock(file, pathlock.Shared); err != nil {
		return false, fmt.Errorf("lock temporary roots file \"%s\": %w", file.Name(), err)
	}
	return keep, o.readRoots(h.Roots, file, name)
}

// removeStaleFile removes the file of a process that died. Who just made a file of that name and has yet to lock it
// learns from the mark that it must make another.
func (o *Options) removeStaleFile(file *os.File, dir int, name string) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil {
		return fmt.Errorf("getting status of \"%s\": %w", file.Name(), err)
	}
	if st.Nlink == 0 {
		// Its owner removed it, and the name may be another's by now.
		return nil
	}
	o.info("removing stale temporary roots file \"%s\"", file.Name())
	if err := unix.Unlinkat(dir, name, 0); err != nil {
		return nil // as upstream: it does no harm, and the next one may succeed
	}
	if _, err := file.WriteAt([]byte("d"), 0); err != nil {
		return fmt.Errorf("mark temporary roots file \"%s\": %w", file.Name(), err)
	}
	return nil
}

// maxRoot is longer than any store path.
const maxRoot = 64 << 10

// readRoots reads full store paths, each ended by a NUL byte. A last one without it is still being written, by a
// process that has not been told that it may rely on it.
func (o *Options) readRoots(roots Roots, file *os.File, name string) error {
	label := o.tempLabel(name)
	in := bufio.NewScanner(io.NewSectionReader(file, 0, 1<<62))
	in.Buffer(nil, maxRoot)
	in.Split(splitNUL)
	for in.Scan() {
		p, err := o.Dir.Parse(in.Text())
		if err != nil {
			// It can keep nothing alive; upstream's collector fails.
			o.Log.Message(activity.Debug, fmt.Sprintf("skip temporary root in \"%s\": %v", file.Name(), err))
			continue
		}
		roots.add(p, label)
	}
	if err := in.Err(); err != nil {
		return fmt.Errorf("read temporary roots file \"%s\": %w", file.Name(), err)
	}
	return nil
}

func splitNUL(data []byte, atEOF bool) (int, []byte, error) {
	if i := bytes.IndexByte(data, 0); i >= 0 {
		return i + 1, data[:i], nil
	}
	if atEOF {
		return len(data), nil, nil
	}
	return 0, nil, nil
}
