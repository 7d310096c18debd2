package plan

import (
	"path"

	"golang.org/x/sys/unix"
)

// Attachment is something that appears in the root of a builder that runs already.
type Attachment struct {
	// Entry is a BindDir, BindFile or Link.
	Entry Entry
	// Mounts is the descriptor of the builder's mount namespace, UserNamespace that of the builder's user namespace, to be
	// entered first by a daemon that is not Privileged.
	Mounts, UserNamespace int
	Privileged            bool
}

// Attach are the steps of a child that makes it appear. What the builder may write to lies on the way: nothing follows a
// link at the end of the path, and whatever the way is, it lies within the builder's own root. It is read-only before it
// appears: a builder that owns what it sees would have the moment until then, and keep what it has opened.
func Attach(a Attachment) []Step {
	p := &planner{in: &Input{UserNamespace: a.UserNamespace}}
	e := &a.Entry
	if !a.Privileged {
		p.enterUser()
		// Where the child can open the source as a mount of its own.
		p.add("make namespaces", "", "unshare", unix.SYS_UNSHARE, num(unix.CLONE_NEWNS))
	}
	p.add("set file mode mask", "", "umask", unix.SYS_UMASK, num(0o022))
	opened := len(p.steps)
	if e.Kind != Link {
		p.openTree(e.Source).then(0)
	}
	p.add("enter mount namespace of builder", "", "setns", unix.SYS_SETNS, num(a.Mounts), num(unix.CLONE_NEWNS))
	p.add("enter directory above", e.Target, "chdir", unix.SYS_CHDIR, str(path.Dir(e.Target)))
	name := path.Base(e.Target)
	switch e.Kind {
	case Link:
		p.add("make symbolic link", e.Target, "symlinkat", unix.SYS_SYMLINKAT, str(e.Text), num(unix.AT_FDCWD), str(name)).unless(unix.EEXIST)
	case BindDir:
		p.add("make directory", e.Target, "mkdirat", unix.SYS_MKDIRAT, num(unix.AT_FDCWD), str(name), num(0o755)).unless(unix.EEXIST)
	case BindFile:
		p.add("make mount point", e.Target, "mknodat", unix.SYS_MKNODAT, num(unix.AT_FDCWD), str(name), num(unix.S_IFREG|0o644), num(0)).unless(unix.EEXIST)
	}
	if e.Kind != Link {
		p.steps[opened].Ahead = len(p.steps) - opened - 1
		// Two steps need it, so it gets a number that is known: that of the namespace, which has been entered.
		p.add("set up descriptor", e.Target, "dup3", unix.SYS_DUP3, null, num(a.Mounts), num(unix.O_CLOEXEC))
		p.add("make read-only", e.Target, "mount_setattr", unix.SYS_MOUNT_SETATTR, num(a.Mounts), str(""),
			num(unix.AT_RECURSIVE|unix.AT_EMPTY_PATH), raw(readOnlyAttr()), num(mountAttrSize)).unless(unix.ENOSYS)
		p.moveMount(e.Target, name).Args[0] = num(a.Mounts)
	}
	p.add("end", "", "exit_group", unix.SYS_EXIT_GROUP, num(0))
	return p.steps
}
