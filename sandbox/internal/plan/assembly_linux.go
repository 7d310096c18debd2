package plan

import "golang.org/x/sys/unix"

// Assembly is a directory with others mounted in it, in a mount namespace that holds nothing else.
type Assembly struct {
	// Dir is the directory of the host. Root is another one, over which it is mounted.
	Dir, Root string
	// Entries are BindDir and BindFile. A target is a name in Dir.
	Entries []Entry
	// UserNamespace is to be entered first by a daemon without privileges; negative for none.
	UserNamespace int
}

// Assemble are the steps of a child that puts it together and keeps the descriptor of the namespace.
func Assemble(a Assembly) []Step {
	p := &planner{in: &Input{UserNamespace: a.UserNamespace, Root: a.Root}, steps: make([]Step, 0, 16+2*len(a.Entries))}
	if a.UserNamespace >= 0 {
		p.enterUser()
	}
	p.add("make mount namespace", "", "unshare", unix.SYS_UNSHARE, num(unix.CLONE_NEWNS))
	p.add("make mounts private", "/", "mount", unix.SYS_MOUNT, null, str("/"), null, num(unix.MS_REC|unix.MS_PRIVATE), null)
	p.add("set file mode mask", "", "umask", unix.SYS_UMASK, num(0o022))
	p.add("mount", a.Dir, "mount", unix.SYS_MOUNT, str(a.Dir), str(a.Root), null, num(unix.MS_BIND), null)
	p.add("enter root", a.Root, "chdir", unix.SYS_CHDIR, str(a.Root))
	for i := range a.Entries {
		e := &a.Entries[i]
		if e.Kind == BindFile {
			p.add("make mount point", e.Target, "mknodat", unix.SYS_MKNODAT, num(unix.AT_FDCWD), str(e.Target), num(unix.S_IFREG|0o644), num(0)).unless(unix.EEXIST)
		} else {
			p.add("make directory", e.Target, "mkdirat", unix.SYS_MKDIRAT, num(unix.AT_FDCWD), str(e.Target), num(0o755)).unless(unix.EEXIST)
		}
		p.add("mount", e.Target, "mount", unix.SYS_MOUNT, str(e.Source), str(e.Target), null, num(unix.MS_BIND|unix.MS_REC), null)
	}
	p.setReadOnly(a.Dir, ".")
	p.setWritable(a.Dir, ".")
	// While there is a /proc to find it in.
	p.openOwnMounts().Result = ResultKeep
	p.pivot()
	p.add("end", "", "exit_group", unix.SYS_EXIT_GROUP, num(0))
	return p.steps
}

// openOwnMounts gets hold of the mount namespace that the child is in.
func (p *planner) openOwnMounts() *Step {
	const name = "/proc/self/ns/mnt"
	return p.add("open", name, "openat", unix.SYS_OPENAT, num(unix.AT_FDCWD), str(name), num(unix.O_RDONLY|unix.O_CLOEXEC), num(0))
}

// openAssembled copies what is assembled in another mount namespace. The child leaves its own for that and comes back:
// nothing but the copy comes with it.
func (p *planner) openAssembled(e *Entry) {
	p.openOwnMounts().Ahead = 2
	p.steps[len(p.steps)-1].then(0)
	p.add("enter assembly", e.Target, "setns", unix.SYS_SETNS, num(e.Assembly), num(unix.CLONE_NEWNS))
	p.hidden[e.Target] = len(p.steps)
	p.openTree("/")
	p.add("leave assembly", e.Target, "setns", unix.SYS_SETNS, null, num(unix.CLONE_NEWNS))
}
