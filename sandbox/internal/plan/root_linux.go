package plan

import (
	"maps"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// rootOptions bound what a builder that owns its root can put there: everything large has a place on disk.
const rootOptions = "mode=0755,size=64m,nr_inodes=100k"

// root mounts an empty file system and fills it. From here to the pivot all targets are relative to it.
func (p *planner) root() {
	// Modes are meant as they are written.
	p.add("set file mode mask", "", "umask", unix.SYS_UMASK, num(0))
	p.group()
	p.openHidden()
	p.add("mount root", p.in.Root, "mount", unix.SYS_MOUNT, str("none"), str(p.in.Root), str("tmpfs"), num(unix.MS_NOSUID|unix.MS_NODEV), str(rootOptions))
	p.add("enter root", p.in.Root, "chdir", unix.SYS_CHDIR, str(p.in.Root))
	if p.in.Owner {
		p.give(&Entry{Target: "/", Own: true})
	}
	var late []Entry
	for i := range p.in.Entries {
		e := &p.in.Entries[i]
		// What belongs to a namespace is mounted by the namespace's owner, which a builder with a range of ids is not yet.
		if p.in.Owner && (e.Kind == Sys || e.Kind == Pts || e.Kind == Tmpfs) {
			p.dirsAbove(e.Target)
			p.dir(e.Target, 0o755)
			late = append(late, *e)
			continue
		}
		p.entry(e)
	}
	p.in.Entries = late
	for _, dir := range slices.Sorted(maps.Keys(p.grouped)) {
		if p.mountedOn[dir] {
			p.readOnlyBelow(dir)
		}
	}
}

// group finds the fresh directories whose mounts are all read-only: those are made so together. One with none is left as
// it is, and so is one with none but what is assembled, which is read-only already.
func (p *planner) group() {
	for i := range p.in.Entries {
		switch e := &p.in.Entries[i]; {
		case e.Fresh:
			p.grouped[e.Target] = true
		case e.Kind == BindDir || e.Kind == BindFile || e.Kind >= Proc:
			p.mountedOn[parent(e.Target)] = true
			for above := parent(e.Target); above != "/"; above = parent(above) {
				if !e.ReadOnly || above != parent(e.Target) {
					delete(p.grouped, above)
				}
			}
		}
	}
}

// readOnlyBelow makes all mounts below a directory read-only, but not the directory's own.
func (p *planner) readOnlyBelow(dir string) {
	tolerate := p.readOnly(dir, relative(dir)).Tolerate
	p.setWritable(dir, relative(dir)).Tolerate = tolerate
}

// setWritable is for one mount alone.
func (p *planner) setWritable(target, rel string) *Step {
	b := make([]byte, mountAttrSize)
	b[8] = unix.MOUNT_ATTR_RDONLY // attr_clr
	return p.add("make writable", target, "mount_setattr", unix.SYS_MOUNT_SETATTR, num(unix.AT_FDCWD), str(rel), num(0), raw(b), num(mountAttrSize))
}

// setReadOnly is for a mount and all below it.
func (p *planner) setReadOnly(target, rel string) *Step {
	return p.add("make read-only", target, "mount_setattr", unix.SYS_MOUNT_SETATTR, num(unix.AT_FDCWD), str(rel), num(unix.AT_RECURSIVE),
		raw(readOnlyAttr()), num(mountAttrSize))
}

// openHidden gets hold of what lies in the directory that the new root is mounted over, or elsewhere.
func (p *planner) openHidden() {
	for i := range p.in.Entries {
		e := &p.in.Entries[i]
		if e.Assembly > 0 {
			p.openAssembled(e)
		} else if (e.Kind == BindDir || e.Kind == BindFile) && strings.HasPrefix(e.Source, p.in.Root+"/") {
			p.hidden[e.Target] = len(p.steps)
			p.openTree(e.Source)
		}
	}
}

// openTree makes a mount that is nowhere yet. The caller says where its descriptor goes.
func (p *planner) openTree(source string) *Step {
	return p.add("open", source, "open_tree", unix.SYS_OPEN_TREE, num(unix.AT_FDCWD), str(source),
		num(unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE))
}

// moveMount puts it in its place, and does not follow a link at the end of the path, as mount does.
func (p *planner) moveMount(target, rel string) *Step {
	return p.add("mount", target, "move_mount", unix.SYS_MOVE_MOUNT, null, str(""), num(unix.AT_FDCWD), str(rel), num(unix.MOVE_MOUNT_F_EMPTY_PATH))
}

func (p *planner) entry(e *Entry) {
	if p.below(e.Target) {
		p.guarded(e)
		return
	}
	p.dirsAbove(e.Target)
	rel := relative(e.Target)
	switch e.Kind {
	case Dir:
		p.dir(e.Target, e.Mode)
		p.give(e)
	case File:
		p.file(e, rel)
	case Link:
		p.add("make symbolic link", e.Target, "symlinkat", unix.SYS_SYMLINKAT, str(e.Text), num(unix.AT_FDCWD), str(rel))
	case BindDir:
		p.dir(e.Target, 0o755)
		p.bind(e, rel)
	case BindFile:
		p.add("make mount point", e.Target, "mknodat", unix.SYS_MKNODAT, num(unix.AT_FDCWD), str(rel), num(unix.S_IFREG|0o644), num(0)).unless(unix.EEXIST)
		p.bind(e, rel)
	default:
		p.dir(e.Target, 0o755)
		p.special(e, rel)
	}
}

// special mounts a file system that is made for the builder.
func (p *planner) special(e *Entry, rel string) {
	switch e.Kind {
	case Proc:
		p.add("mount", e.Target, "mount", unix.SYS_MOUNT, str("proc"), str(rel), str("proc"), num(0), null)
		if p.in.Outside.UID == 0 {
			p.guardProc(e.Target, rel)
		}
	case Sys:
		p.add("mount", e.Target, "mount", unix.SYS_MOUNT, str("sysfs"), str(rel), str("sysfs"), num(0), null)
	case Tmpfs:
		p.add("mount", e.Target, "mount", unix.SYS_MOUNT, str("none"), str(rel), str("tmpfs"), num(0), str("size="+e.Text))
	case Pts:
		p.add("mount", e.Target, "mount", unix.SYS_MOUNT, str("devpts"), str(rel), str("devpts"), num(0), str("newinstance,mode=0620"))
		p.add("open to all", e.Target+"/ptmx", "fchmodat", unix.SYS_FCHMODAT, num(unix.AT_FDCWD), str(rel+"/ptmx"), num(0o666))
	}
}

// guardProc closes what the owner of a file in /proc may write although it has no privileges: the owner is root, and
// so is a builder of a root daemon without build users, in whatever user namespace it is.
func (p *planner) guardProc(target, rel string) {
	for _, name := range []string{"/sys", "/sysrq-trigger", "/irq", "/bus", "/fs", "/acpi", "/scsi"} {
		// Not every kernel has each, and then there is nothing to remount either.
		p.add("protect", target+name, "mount", unix.SYS_MOUNT, str(rel+name), str(rel+name), null, num(unix.MS_BIND|unix.MS_REC), null).
			unless(unix.ENOENT).guard()
		p.add("protect", target+name, "mount", unix.SYS_MOUNT, null, str(rel+name), null, num(unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY), null)
	}
}

func (p *planner) file(e *Entry, rel string) {
	p.add("make file", e.Target, "openat", unix.SYS_OPENAT, num(unix.AT_FDCWD), str(rel),
		num(unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC), num(e.Mode)).then(0)
	p.add("write file", e.Target, "write", unix.SYS_WRITE, null, raw([]byte(e.Text)), num(len(e.Text)))
	p.give(e)
}

func (p *planner) give(e *Entry) {
	if !e.Own {
		return
	}
	who := p.in.Outside
	if !p.in.Privileged {
		who = p.in.Inside
	}
	p.add("give to builder", e.Target, "fchownat", unix.SYS_FCHOWNAT, num(unix.AT_FDCWD), str(relative(e.Target)), num(who.UID), num(who.GID), num(0))
}

func (p *planner) dir(target string, mode uint32) {
	p.add("make directory", target, "mkdirat", unix.SYS_MKDIRAT, num(unix.AT_FDCWD), str(relative(target)), num(mode)).unless(unix.EEXIST)
	p.dirs[target] = true
}

func (p *planner) dirsAbove(target string) {
	above := parent(target)
	if p.dirs[above] {
		return
	}
	p.dirsAbove(above)
	p.dir(above, 0o755)
}

func (p *planner) bind(e *Entry, rel string) {
	if opened, ok := p.hidden[e.Target]; ok {
		s := &p.steps[opened]
		s.then(0)
		s.Ahead = len(p.steps) - opened - 1
		p.moveMount(e.Target, rel)
	} else {
		p.add("mount", e.Target, "mount", unix.SYS_MOUNT, str(e.Source), str(rel), null, num(unix.MS_BIND|unix.MS_REC), null)
	}
	if e.ReadOnly && !p.grouped[parent(e.Target)] {
		p.readOnly(e.Target, rel)
	}
	if !e.Fresh {
		p.foreign[e.Target] = true
	}
}

// readOnly. A builder that is nobody else than the daemon owns its inputs: then this is what keeps them as they are,
// and kernels that cannot do it (before 5.12) will not do.
func (p *planner) readOnly(target, rel string) *Step {
	s := p.setReadOnly(target, rel)
	if p.in.Privileged && p.in.Outside.UID != 0 {
		s.unless(unix.ENOSYS)
	}
	return s
}

const mountAttrSize = int(unsafe.Sizeof(unix.MountAttr{}))

func readOnlyAttr() []byte {
	b := make([]byte, mountAttrSize)
	b[0] = unix.MOUNT_ATTR_RDONLY // attr_set comes first
	return b
}

// below tells whether the target lies within what comes from the host.
func (p *planner) below(target string) bool {
	for above := parent(target); above != "/"; above = parent(above) {
		if p.foreign[above] {
			return true
		}
	}
	return false
}

// guarded mounts something in a tree of the host, where anybody may have made symbolic links: the way to it must not
// lead through one. Files and links are not made there, since that would change the host.
func (p *planner) guarded(e *Entry) {
	if e.Kind == File || e.Kind == Link {
		return
	}
	name := e.Target[strings.LastIndexByte(e.Target, '/')+1:]
	p.enterWithoutLinks(e.Target, parent(e.Target))
	if e.Kind == BindFile {
		p.add("make mount point", e.Target, "mknodat", unix.SYS_MKNODAT, num(unix.AT_FDCWD), str(name), num(unix.S_IFREG|0o644), num(0)).unless(unix.EEXIST)
	} else {
		p.add("make directory", e.Target, "mkdirat", unix.SYS_MKDIRAT, num(unix.AT_FDCWD), str(name), num(0o755)).unless(unix.EEXIST)
	}
	switch e.Kind {
	case Dir:
	case BindFile, BindDir:
		p.openTree(e.Source).then(0)
		p.moveMount(e.Target, name)
		if e.ReadOnly {
			p.readOnly(e.Target, name)
		}
	default:
		p.enterWithoutLinks(e.Target, "/"+name)
		p.special(e, ".")
	}
	p.add("enter root", p.in.Root, "chdir", unix.SYS_CHDIR, str(p.in.Root))
}

// enterWithoutLinks makes a directory the current one, step by step.
func (p *planner) enterWithoutLinks(target, dir string) {
	for name := range strings.SplitSeq(relative(dir), "/") {
		p.add("enter directory above", target, "openat", unix.SYS_OPENAT, num(unix.AT_FDCWD), str(name),
			num(unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC), num(0)).then(0)
		p.add("enter directory above", target, "fchdir", unix.SYS_FCHDIR, null)
	}
}

// pivot makes the new root the only one.
func (p *planner) pivot() {
	p.add("pivot into root", p.in.Root, "pivot_root", unix.SYS_PIVOT_ROOT, str("."), str("."))
	// Both are mounted on one another now, and the one on top is the old.
	p.add("let go of old root", "", "umount2", unix.SYS_UMOUNT2, str("."), num(unix.MNT_DETACH))
	p.add("enter root", "/", "chdir", unix.SYS_CHDIR, str("/"))
}

// parent is the directory above a clean path.
func parent(target string) string {
	if i := strings.LastIndexByte(target, '/'); i > 0 {
		return target[:i]
	}
	return "/"
}

func relative(target string) string {
	if target == "/" {
		return "."
	}
	return target[1:]
}
