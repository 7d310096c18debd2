package sandbox

import (
	"fmt"
	"runtime"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"nixdaemon/sandbox/seccomp"
)

// ownDescriptors is a directory with an entry for each open descriptor of ours.
const ownDescriptors = "/proc/self/fd"

// attributes are what a thread sets once and its children inherit.
type attributes struct {
	allowNewPrivileges bool
	filterSyscalls     bool
	keyrings           bool
	personality        Personality
}

// forker hands each builder to the thread of its attributes. The zero value is ready.
type forker struct {
	running sync.WaitGroup

	// Guarded by mu.
	mu      sync.Mutex
	threads map[attributes]*thread
}

// thread is one launcher thread. Requests are carried out in order; the channel is closed by forker.close alone.
type thread struct {
	requests chan forkRequest
}

type forkRequest struct {
	fork  func() (int, error)
	reply chan<- forkReply
}

type forkReply struct {
	pid int
	err error
}

// fork starts a builder that is not isolated.
func (f *forker) fork(spec *Spec, files []uintptr) (int, error) {
	t, err := f.thread(spec.attributes())
	if err != nil {
		return 0, fmt.Errorf("prepare builder '%s': %w", spec.Path, err)
	}
	return t.do(func() (int, error) { return forkExec(spec, files) })
}

func (s *Spec) attributes() attributes {
	return attributes{s.AllowNewPrivileges, s.FilterSyscalls, s.Keyrings && !s.FilterSyscalls, s.Personality}
}

// do has the thread fork.
func (t *thread) do(fork func() (int, error)) (int, error) {
	reply := make(chan forkReply, 1)
	t.requests <- forkRequest{fork, reply}
	r := <-reply
	return r.pid, r.err
}

// thread returns the thread for a, starting it on first use. A set that cannot be set up is tried again next time.
func (f *forker) thread(a attributes) (*thread, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if t := f.threads[a]; t != nil {
		return t, nil
	}
	t := &thread{requests: make(chan forkRequest)}
	ready := make(chan error, 1)
	f.running.Go(func() { f.run(t, a, ready) })
	if err := <-ready; err != nil {
		return nil, err
	}
	if f.threads == nil {
		f.threads = make(map[attributes]*thread)
	}
	f.threads[a] = t
	return t, nil
}

func (f *forker) close() {
	f.mu.Lock()
	for _, t := range f.threads {
		close(t.requests)
	}
	f.threads = nil
	f.mu.Unlock()
	f.running.Wait()
}

// run never unlocks its thread, so the runtime ends the thread with the goroutine and nothing else ever runs under
// its attributes. New threads do not inherit them either: the runtime clones those from a clean one.
func (f *forker) run(t *thread, a attributes, ready chan<- error) {
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		// The main thread's attributes are what /proc/self shows, and it cannot end before the process:
		// hold it until another goroutine has locked another thread.
		defer runtime.UnlockOSThread()
		settled := make(chan error, 1)
		f.running.Go(func() { f.run(t, a, settled) })
		ready <- <-settled
		return
	}
	err := a.apply()
	ready <- err
	if err != nil {
		return
	}
	for r := range t.requests {
		pid, err := r.fork()
		r.reply <- forkReply{pid, err}
	}
}

// apply changes the calling thread, for good.
func (a attributes) apply() error {
	// Without this the umask belongs to all threads together.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("separate umask: %w", err)
	}
	unix.Umask(0o022)
	if !a.allowNewPrivileges {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("set no-new-privileges: %w", err)
		}
	}
	if err := a.filter(); err != nil {
		return err
	}
	if err := landlock(); err != nil {
		return err
	}
	if err := a.personality.apply(); err != nil {
		return fmt.Errorf("set personality: %w", err)
	}
	return nil
}

func (a attributes) filter() error {
	switch {
	case a.filterSyscalls:
		return seccomp.Install()
	case a.keyrings:
		return nil
	}
	return seccomp.HideKeyrings()
}

// landlock cuts the thread's builders off from the abstract sockets of all others, as far as the kernel can
// (linux/build/linux-derivation-builder.cc does so, and goes on if it cannot).
func landlock() error {
	version, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 || version < landlockScopes {
		return nil
	}
	attr := unix.LandlockRulesetAttr{Scoped: unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET}
	fd, _, errno := unix.RawSyscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr), 0)
	if errno != 0 {
		return fmt.Errorf("make landlock rules: %w", errno)
	}
	defer unix.Close(int(fd))
	_, _, errno = unix.RawSyscall(unix.SYS_LANDLOCK_RESTRICT_SELF, fd, 0, 0)
	if errno != 0 && errno != unix.EPERM {
		return fmt.Errorf("cut off abstract sockets: %w", errno)
	}
	return nil
}

// From linux/personality.h.
const (
	perLinux32      = 0x0008
	uname26         = 0x0020000
	addrNoRandomize = 0x0040000
)

func (p Personality) apply() error {
	// RawSyscall: it must be this very thread, and it cannot block.
	if _, _, errno := unix.RawSyscall(unix.SYS_PERSONALITY, uintptr(p.argument()), 0, 0); errno != 0 {
		return errno
	}
	return nil
}

// sysProcAttr: Go's child sets the death signal after it has changed user, which would clear it.
func sysProcAttr(spec *Spec) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL, Credential: credential(spec.User)}
	if spec.Cgroup != nil {
		attr.UseCgroupFD, attr.CgroupFD = true, int(spec.Cgroup.Fd())
	}
	return attr
}

// forkStopped forks a child of Go's making that stops where it would begin to run.
func forkStopped() (int, error) {
	return syscall.ForkExec("/proc/self/exe", []string{"limits"}, &syscall.ProcAttr{
		Env: []string{}, Sys: &syscall.SysProcAttr{Ptrace: true, Pdeathsig: syscall.SIGKILL},
	})
}
