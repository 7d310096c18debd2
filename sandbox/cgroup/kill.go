package cgroup

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// killLimit is how long killed processes may take to go away, which is long only in uninterruptible disk waits.
const killLimit = 10 * time.Second

// Kill kills all processes of the group whose open directory dir is, and of those below, without waiting for them to be
// gone. No fork can outrun it.
func Kill(dir *os.File) error {
	err := writeAt(dir, "cgroup.kill", "1")
	if !errors.Is(err, unix.ENOENT) {
		return err
	}
	// Before Linux 5.14. What is frozen does not fork, and can be killed.
	if err := writeAt(dir, "cgroup.freeze", "1"); err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	return killEach(dir, 0)
}

// Clear kills all processes of the group and returns when none is left.
func Clear(dir *os.File) error {
	start := time.Now()
	for delay := 50 * time.Microsecond; ; delay = min(2*delay, 20*time.Millisecond) {
		populated, err := isPopulated(dir)
		if err != nil || !populated {
			return err
		}
		if err := Kill(dir); err != nil {
			return err
		}
		if time.Since(start) > killLimit {
			return fmt.Errorf("cannot kill cgroup \"%s\"", dir.Name())
		}
		time.Sleep(delay)
	}
}

// isPopulated tells whether the group or one below has a living process.
func isPopulated(dir *os.File) (bool, error) {
	text, err := readAt(dir, "cgroup.events")
	if err != nil {
		return false, err
	}
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, "populated "); ok {
			return strings.TrimSpace(value) != "0", nil
		}
	}
	return false, fmt.Errorf("read \"%s/cgroup.events\": no word of processes", dir.Name())
}

// killEach kills the processes of the group and of those below one by one.
func killEach(dir *os.File, depth int) error {
	text, err := readAt(dir, "cgroup.procs")
	// Processes of a threaded group are listed by the one above.
	if err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		return err
	}
	for pid := range strings.FieldsSeq(text) {
		n, err := strconv.ParseInt(pid, 10, 32)
		// 0 stands for a process that our process namespace has no number for.
		if err != nil || n <= 0 {
			return fmt.Errorf("kill member of cgroup \"%s\": invalid pid '%s'", dir.Name(), pid)
		}
		if err := unix.Kill(int(n), unix.SIGKILL); err != nil && err != unix.ESRCH {
			return fmt.Errorf("killing member %d of cgroup \"%s\": %w", n, dir.Name(), err)
		}
	}
	return eachBelow(dir, depth, func(sub *os.File) error { return killEach(sub, depth+1) })
}

// removeBelow removes the groups below one without processes.
func removeBelow(dir *os.File, depth int) error {
	return eachBelow(dir, depth, func(sub *os.File) error {
		if err := removeBelow(sub, depth+1); err != nil {
			return err
		}
		if err := removeEmpty(int(dir.Fd()), filepath.Base(sub.Name())); err != nil {
			return fmt.Errorf("deleting cgroup \"%s\": %w", sub.Name(), err)
		}
		return nil
	})
}

// removeEmpty retries for a moment: a process can be gone from the lists shortly before it is gone from its group.
func removeEmpty(dirfd int, name string) error {
	for delay := 50 * time.Microsecond; ; delay *= 2 {
		err := unix.Unlinkat(dirfd, name, unix.AT_REMOVEDIR)
		if err == unix.ENOENT {
			return nil
		}
		if err != unix.EBUSY || delay > time.Second {
			return err
		}
		time.Sleep(delay)
	}
}

// depthLimit bounds the descriptors held; groups of ours are bounded by maxDepth.
const depthLimit = 500

func eachBelow(dir *os.File, depth int, do func(*os.File) error) error {
	if depth > depthLimit {
		return fmt.Errorf("cgroup \"%s\" is nested too deeply", dir.Name())
	}
	// A descriptor of its own, since reading moves the offset.
	list, err := openAt(dir, ".", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer list.Close()
	entries, err := list.ReadDir(-1)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		sub, err := openAt(dir, e.Name(), unix.O_RDONLY|unix.O_DIRECTORY)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		err = do(sub)
		sub.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

func openAt(dir *os.File, name string, flags int) (*os.File, error) {
	path := filepath.Join(dir.Name(), name)
	for {
		fd, err := unix.Openat(int(dir.Fd()), name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err == nil {
			return os.NewFile(uintptr(fd), path), nil
		}
		if err != unix.EINTR {
			return nil, &os.PathError{Op: "open", Path: path, Err: err}
		}
	}
}

func writeAt(dir *os.File, name, value string) error {
	f, err := openAt(dir, name, unix.O_WRONLY)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}

// readLimit bounds what is read of one of the kernel's files: a list of as many process ids as there can be.
const readLimit = 64 << 20

func readAt(dir *os.File, name string) (string, error) {
	f, err := openAt(dir, name, unix.O_RDONLY)
	if err != nil {
		return "", err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, readLimit))
	return string(text), err
}
