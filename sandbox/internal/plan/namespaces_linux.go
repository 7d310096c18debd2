package plan

import (
	"golang.org/x/sys/unix"
)

// join puts the child into its cgroup before it makes the namespace that hides the ones above.
func (p *planner) join() {
	if p.in.Cgroup >= 0 {
		p.add("join cgroup", "", "write", unix.SYS_WRITE, num(p.in.Cgroup), raw([]byte("0")), num(1))
	}
	if p.in.Privileged {
		s := p.add("drop supplementary groups", "", "setgroups", unix.SYS_SETGROUPS, num(0), null)
		if !p.in.RequireGroups {
			s.unless(unix.EPERM)
		}
	}
}

// namespaces makes all but the user's. A privileged daemon has cloned the child into its process namespace already.
func (p *planner) namespaces() {
	flags := p.flags()
	if !p.in.Privileged {
		p.enterUser()
		flags |= unix.CLONE_NEWPID
	}
	p.add("make namespaces", "", "unshare", unix.SYS_UNSHARE, num(flags))
	if p.in.Network >= 0 {
		p.add("enter network namespace", "", "setns", unix.SYS_SETNS, num(p.in.Network), num(unix.CLONE_NEWNET))
	}
	if !p.in.Privileged {
		// Only children are in the new process namespace. As its parent's sibling the child is the daemon's to wait for.
		args := []Arg{num(unix.CLONE_VM | unix.CLONE_PARENT | unix.CLONE_CHILD_CLEARTID | uint64(unix.SIGCHLD)), null, null}
		p.add("enter process namespace", "", "clone", unix.SYS_CLONE, append(args, cloneTail()...)...).Result = ResultFork
	}
	p.add("make mounts private", "/", "mount", unix.SYS_MOUNT, null, str("/"), null, num(unix.MS_REC|unix.MS_PRIVATE), null)
	if !p.in.Owner {
		p.hostname()
	}
}

// flags are the namespaces that are made in any case.
func (p *planner) flags() int {
	flags := unix.CLONE_NEWNS | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS
	if !p.in.ShareNetwork && p.in.Network < 0 {
		flags |= unix.CLONE_NEWNET
	}
	if p.in.Cgroup >= 0 {
		flags |= unix.CLONE_NEWCGROUP
	}
	return flags
}

func (p *planner) enterUser() {
	p.add("enter user namespace", "", "setns", unix.SYS_SETNS, num(p.in.UserNamespace), num(unix.CLONE_NEWUSER))
}

// hostname gives the machine within the builder's world its name, and a network of its own the loopback device.
func (p *planner) hostname() {
	p.add("set host name", "", "sethostname", unix.SYS_SETHOSTNAME, str("localhost"), num(len("localhost")))
	p.add("set domain name", "", "setdomainname", unix.SYS_SETDOMAINNAME, str("(none)"), num(len("(none)")))
	if !p.in.ShareNetwork && p.in.Network < 0 {
		p.loopback()
	}
}

func (p *planner) loopback() {
	// struct ifreq: the name, then the flags.
	request := make([]byte, 40)
	copy(request, "lo")
	const up = unix.IFF_UP | unix.IFF_LOOPBACK | unix.IFF_RUNNING
	request[16] = byte(up)
	p.add("open socket", "", "socket", unix.SYS_SOCKET, num(unix.AF_INET), num(unix.SOCK_DGRAM|unix.SOCK_CLOEXEC), num(0)).then(0)
	p.add("bring up loopback device", "lo", "ioctl", unix.SYS_IOCTL, null, num(unix.SIOCSIFFLAGS), raw(request))
}
