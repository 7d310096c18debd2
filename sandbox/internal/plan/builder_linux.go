package plan

import (
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"
)

// identity makes the child who the builder is.
func (p *planner) identity() {
	if p.in.Owner {
		return
	}
	if p.in.Privileged && p.in.UserNamespace >= 0 {
		p.enterUser()
	}
	p.become()
}

func (p *planner) become() {
	id := p.in.Inside
	p.add("set group", "", "setresgid", unix.SYS_SETRESGID, num(id.GID), num(id.GID), num(id.GID))
	p.add("set user", "", "setresuid", unix.SYS_SETRESUID, num(id.UID), num(id.UID), num(id.UID))
}

// own gives the builder's namespaces to the builder, who is root in its user namespace. This comes before the old root
// is gone: the kernel shows a sysfs to those only who can see one already. The process namespace stays the daemon's: the
// builder is in it, and makes others as it likes.
func (p *planner) own() {
	p.enterUser()
	p.add("make builder's namespaces", "", "unshare", unix.SYS_UNSHARE, num(p.flags()))
	// In the copy each mount is locked in its place and cannot become the root. A new one on top can.
	p.add("mount root", p.in.Root, "mount", unix.SYS_MOUNT, str("."), str("."), null, num(unix.MS_BIND|unix.MS_REC), null)
	p.add("enter root", p.in.Root, "chdir", unix.SYS_CHDIR, str(p.in.Root))
	p.become()
	p.hostname()
	for i := range p.in.Entries {
		p.special(&p.in.Entries[i], relative(p.in.Entries[i].Target))
	}
}

// restrict takes from the child what the builder shall not have. No-new-privileges, the system call filter and the
// personality come from the thread that cloned it.
func (p *planner) restrict() {
	in := p.in
	p.add("set file mode mask", "", "umask", unix.SYS_UMASK, num(0o022))
	p.limit("limit core files", unix.RLIMIT_CORE, unix.Rlimit{Cur: 0, Max: in.CoreLimit})
	if in.FilesLimit.Max != 0 {
		p.limit("limit descriptors", unix.RLIMIT_NOFILE, in.FilesLimit)
	}
	p.add("start session", "", "setsid", unix.SYS_SETSID)
	// The kernel forgets the death signal with the user, so only now. What the daemon died of before is for the pidfd to
	// tell: the daemon's id means nothing in this process namespace.
	p.add("die with the daemon", "", "prctl", unix.SYS_PRCTL, num(unix.PR_SET_PDEATHSIG), num(int(unix.SIGKILL)), num(0), num(0), num(0))
	if in.Daemon >= 0 {
		p.askForDaemon()
	}
	p.descriptors()
	if in.Landlock {
		p.landlock()
	}
	if !in.Owner {
		p.dropCapabilities()
	}
}

func (p *planner) limit(verb string, resource int, limit unix.Rlimit) {
	b := make([]byte, unsafe.Sizeof(limit))
	binary.NativeEndian.PutUint64(b, limit.Cur)
	binary.NativeEndian.PutUint64(b[8:], limit.Max)
	p.add(verb, "", "prlimit64", unix.SYS_PRLIMIT64, num(0), num(resource), raw(b), null)
}

// askForDaemon polls the pidfd, which is readable once the daemon is dead.
func (p *planner) askForDaemon() {
	b := make([]byte, unsafe.Sizeof(unix.PollFd{}))
	binary.NativeEndian.PutUint32(b, uint32(p.in.Daemon))
	binary.NativeEndian.PutUint16(b[4:], unix.POLLIN)
	zero := make([]byte, unsafe.Sizeof(unix.Timespec{}))
	p.add("look for the daemon", "", "ppoll", unix.SYS_PPOLL, raw(b), num(1), raw(zero), null, num(8)).Result = ResultZero
}

// descriptors leaves the builder three. All others close at exec by themselves; that is not left to chance.
func (p *planner) descriptors() {
	for target, from := range []int{p.in.Null, p.in.Terminal, p.in.Terminal} {
		p.add("set up descriptor", string(rune('0'+target)), "dup3", unix.SYS_DUP3, num(from), num(target), num(0))
	}
	p.add("close descriptors", "", "close_range", unix.SYS_CLOSE_RANGE, num(3), num(^uint32(0)), num(unix.CLOSE_RANGE_CLOEXEC)).unless(unix.ENOSYS)
}

// landlock makes a domain that cannot reach abstract sockets outside of it: they belong to the network namespace, which
// a builder may share with the host, and they pass descriptors.
func (p *planner) landlock() {
	attr := make([]byte, 24) // struct landlock_ruleset_attr: file system, network, scopes
	binary.NativeEndian.PutUint64(attr[16:], scopeAbstractSockets)
	p.add("make landlock rules", "", "landlock_create_ruleset", unix.SYS_LANDLOCK_CREATE_RULESET, raw(attr), num(len(attr)), num(0)).then(0)
	p.add("cut off abstract sockets", "", "landlock_restrict_self", unix.SYS_LANDLOCK_RESTRICT_SELF, null, num(0))
}

// scopeAbstractSockets is LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET of linux/landlock.h.
const scopeAbstractSockets = 1

// dropCapabilities comes after what needs them. Exec would do it, but for a builder that is told to allow new
// privileges.
func (p *planner) dropCapabilities() {
	header := make([]byte, unsafe.Sizeof(unix.CapUserHeader{}))
	binary.NativeEndian.PutUint32(header, unix.LINUX_CAPABILITY_VERSION_3)
	p.add("drop capabilities", "", "capset", unix.SYS_CAPSET, raw(header), raw(make([]byte, 2*unsafe.Sizeof(unix.CapUserData{}))))
}

// execute becomes the builder. The daemon's signal handlers must not run in the child, which has its memory: until
// here all signals are blocked.
func (p *planner) execute() {
	in := p.in
	p.add("enter directory", in.Dir, "chdir", unix.SYS_CHDIR, str(in.Dir))
	zero := make([]byte, 32) // struct sigaction: the default action
	for signal := 1; signal <= 64; signal++ {
		// What is ignored stays so, as for any child.
		if signal == int(unix.SIGKILL) || signal == int(unix.SIGSTOP) || in.Ignored>>(signal-1)&1 != 0 {
			continue
		}
		p.add("reset signal", "", "rt_sigaction", unix.SYS_RT_SIGACTION, num(signal), raw(zero), null, num(8))
	}
	p.add("unblock signals", "", "rt_sigprocmask", unix.SYS_RT_SIGPROCMASK, num(unix.SIG_SETMASK), raw(make([]byte, 8)), null, num(8))
	p.add("start builder", in.Path, "execve", unix.SYS_EXECVE, str(in.Path), vector(in.Args), vector(in.Env))
}
