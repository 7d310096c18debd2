package sandbox

import (
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"nixdaemon/sandbox/internal/child"
	"nixdaemon/sandbox/internal/plan"
)

// Support tells what the machine offers for isolation. It is found out by trying, once.
func (l *Launcher) Support() Support {
	i := &l.isolator
	i.support.Do(func() { i.supported = i.try(&l.forker) })
	return i.supported
}

func (i *isolator) try(f *forker) Support {
	var s Support
	own := plan.IDs{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())}
	fd, err := i.namespaces.get(f, idMap{own, plan.IDs{UID: 1000, GID: 100}, 1})
	s.UserNamespaces = err
	privileged := os.Geteuid() == 0
	if !privileged && err != nil {
		s.Namespaces = err
		return s
	}
	if privileged {
		fd = -1
	}
	t, err := f.thread(plainThread)
	if err == nil {
		var pid int
		if pid, err = t.run(plan.Trial(fd), privileged); err == nil {
			child.Reap(pid)
		}
	}
	s.Namespaces = err
	return s
}

// hardCoreLimit is what upstream raises the hard limit to where it may: infinity.
func hardCoreLimit() uint64 {
	var now unix.Rlimit
	if os.Geteuid() == 0 || unix.Getrlimit(unix.RLIMIT_CORE, &now) != nil {
		return unix.RLIM_INFINITY
	}
	return now.Max
}

// inheritedFilesLimit is the limit on descriptors that the daemon was started with: Go raises its own, and gives what it
// began with to those children only that it forks itself. Such a child, stopped before it runs anything, tells it.
// Zero means that it could not be found out, and builders keep the daemon's.
func inheritedFilesLimit() unix.Rlimit {
	// A stopped child is the forking thread's to wait for.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var limit unix.Rlimit
	pid, err := forkStopped()
	if err != nil {
		return limit
	}
	defer child.Reap(pid)
	defer unix.Kill(pid, unix.SIGKILL)
	var status unix.WaitStatus
	for {
		_, err := unix.Wait4(pid, &status, 0, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil || !status.Stopped() || unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &limit) != nil {
			return unix.Rlimit{}
		}
		return limit
	}
}

// argument is what personality(2) is given.
func (p Personality) argument() uint64 {
	persona := uint64(addrNoRandomize)
	if p.Linux32 {
		persona |= perLinux32
	}
	if p.UNAME26 {
		persona |= uname26
	}
	return persona
}

// ignoredSignals are the signals that the daemon ignores, signal 1 in the lowest bit. Whoever started it has decided
// that, and a builder that is not isolated inherits it, too.
func ignoredSignals() uint64 {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(text), "\nSigIgn:")
	digits, _, _ := strings.Cut(rest, "\n")
	mask, err := strconv.ParseUint(strings.TrimSpace(digits), 16, 64)
	if err != nil {
		return 0
	}
	return mask
}

// hasZero refuses what would be cut off on its way into the kernel.
func hasZero(list []string) bool {
	for _, s := range list {
		if strings.IndexByte(s, 0) >= 0 {
			return true
		}
	}
	return false
}
